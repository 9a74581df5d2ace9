"""The same questions for a real Xen, inside dom0, and for the model of one: what they answer.

Rules: a question is a few numbers; the answer is what the hypercall returned, an errno negated.  Run as a
program it asks the Xen under it and prints the answers.  No image that could be entered is ever loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from struct import pack

from tightrope.perform.privcmd import HypercallFailed, Hypercalls, Privcmd

MIB = 1 << 20
KEXEC, UNLOAD_V1, RANGE, LOAD, UNLOAD, STATUS = 0, 2, 3, 4, 5, 6
Segment = tuple[int, int, int]
"""buf_size, dest_maddr, dest_size; no buffer."""

ONE: tuple[Segment, ...] = ((0, 64 * MIB, 4096),)
LOADS: dict[str, tuple[int, int, tuple[Segment, ...]]] = {
    "fine": (0, 62, ONE),
    "15 segments": (0, 62, tuple((0, (64 + n) * MIB, 4096) for n in range(15))),
    "16 segments": (0, 62, tuple((0, (64 + n) * MIB, 4096) for n in range(16))),
    "another machine": (0, 183, ONE),
    "another type": (5, 62, ONE),
    "destination not aligned": (0, 62, ((0, 64 * MIB + 8, 4096),)),
    "size not aligned": (0, 62, ((0, 64 * MIB, 100),)),
    "overlap": (0, 62, (*ONE, (0, 64 * MIB, 8192))),
    "bytes without a buffer": (0, 62, ((4096, 64 * MIB, 4096),)),
    "more bytes than room": (0, 62, ((8192, 64 * MIB, 4096),)),
    "crash, only reached": (1, 62, ONE),
}


def answers(calls: Hypercalls) -> dict[str, int]:
    """Every question in its order, and what it was answered with."""
    return dict(_asked(calls))


def _ask(calls: Hypercalls, command: int, argument: bytes) -> int:
    buffer = calls.buffer(len(argument))
    buffer.view[: len(argument)] = argument
    try:
        return calls.call(37, command, buffer.address)
    except HypercallFailed as err:
        return -err.number


def _asked(calls: Hypercalls) -> Iterator[tuple[str, int]]:
    yield "go without an image", _ask(calls, KEXEC, pack("<i", 0))
    yield "go to another type", _ask(calls, KEXEC, pack("<i", 5))
    yield "status at first", _ask(calls, STATUS, b"\0")
    yield "status of another type", _ask(calls, STATUS, b"\5")
    yield "unload nothing", _ask(calls, UNLOAD, b"\0")
    yield "status then", _ask(calls, STATUS, b"\0")
    yield "unload nothing again", _ask(calls, UNLOAD, b"\0")
    yield "unload another type", _ask(calls, UNLOAD, b"\5")
    yield "a command that is none", _ask(calls, 9, bytes(24))
    for which, number in ((7, 0), (-1, 0), (2, 1), (2, -1)):
        yield f"range {which}, {number}", _ask(calls, RANGE, pack("<iiQQ", which, number, 0, 0))
    for name, (kind, machine, segments) in LOADS.items():
        rows = b"".join(pack("<4Q", 0, *each) for each in segments)
        table = calls.buffer(len(rows))
        table.view[: len(rows)] = rows
        load = pack("<BxHIQQ", kind, machine, len(segments), table.address, 64 * MIB)
        got = _ask(calls, LOAD, load)
        yield f"load: {name}", got
        if got == 0:
            yield f"unload: {name}", _ask(calls, UNLOAD, bytes([kind]))


if __name__ == "__main__":
    with Privcmd() as port:
        print(json.dumps(answers(port)), flush=True)
