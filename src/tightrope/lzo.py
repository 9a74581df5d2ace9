"""LZO1X, unpacked a block at a time: pages of a dump, a kernel's own payload, an initrd.

Source: Linux Documentation/staging/lzo.rst.

Rules: standard library alone, because a crash kernel's initramfs reads dumps too.  Any bytes in;
nothing is made that is larger than what may come out and one instruction of its stream.
"""

from __future__ import annotations

_STARTS_WITH_LITERALS = 17
_LONG_RUN, _FIRST = 4, 0
"""States of LZO1X: after a long run of literals, and before anything; 1 to 3: after so many."""


def lzo1x(data: bytes, size: int) -> bytes:
    """What a block unpacks to: at most `size` bytes.

    Raises IndexError where it ends early, ValueError where it is corrupt.
    """
    out, at, state = bytearray(), 0, _FIRST
    if data[0] > _STARTS_WITH_LITERALS:
        length = data[0] - _STARTS_WITH_LITERALS
        at = literal(out, data, 1, length, size)
        state = min(length, _LONG_RUN)

    def counted(short: int, bits: int, base: int) -> int:
        """A length: `short`, or where it is 0, 255 for each zero and the byte that ends them."""
        nonlocal at
        if short:
            return base + short
        zeros = at
        while not data[at]:
            at += 1
        at += 1
        return base + bits + (at - 1 - zeros) * 255 + data[at - 1]

    while True:
        code = data[at]
        at += 1
        if code < 16 and state == _FIRST:
            length = counted(code, 15, 3)
            at = literal(out, data, at, length, size)
            state = _LONG_RUN
            continue
        if code >= 64:
            length = 5 + (code >> 5 & 3) if code >= 128 else 3 + (code >> 5 & 1)
            distance, low = (data[at] << 3) + (code >> 2 & 7) + 1, code
            at += 1
        elif code >= 16:
            length = counted(code & 31, 31, 2) if code >= 32 else counted(code & 7, 7, 2)
            low = data[at]
            word = low | data[at + 1] << 8
            at += 2
            distance = (word >> 2) + 1
            if code < 32:
                distance = (1 << 14) + ((code & 8) << 11) + (word >> 2)
                if distance == 1 << 14:
                    return bytes(out)  # the end's own mark
        else:
            far = state == _LONG_RUN
            length, low = (3, code) if far else (2, code)
            distance = (data[at] << 2) + (code >> 2 & 3) + (2049 if far else 1)
            at += 1
        repeated(out, distance, length, size)
        state = low & 3
        at = literal(out, data, at, state, size)


def repeated(out: bytearray, distance: int, length: int, most: int) -> None:
    """Append `length` bytes that begin `distance` before the end, which may be the new ones."""
    if not 0 < distance <= len(out):
        raise ValueError(f"a repetition of what lies {distance:,} bytes back, of {len(out):,}")
    if len(out) + length > most:
        raise ValueError(f"more than the {most:,} bytes that there may be")
    piece = bytes(out[-distance:][:length])
    out += (piece * -(-length // len(piece)))[:length]


def literal(out: bytearray, data: bytes, at: int, length: int, most: int) -> int:
    """Append `length` bytes of the stream; where it goes on."""
    if at + length > len(data):
        raise IndexError
    if len(out) + length > most:
        raise ValueError(f"more than the {most:,} bytes that there may be")
    out += data[at : at + length]
    return at + length
