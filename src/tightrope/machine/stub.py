"""Which registers QEMU's gdb stub has, in which order, and what a `g` answer says of each.

    ask(b"qXfer:features:read:...") --described--> (name, bytes) ... --values--> name -> value

Rules: whoever has the stub gives `ask`, which sends a command and returns its answer; nothing is
waited for here.  Source: GDB manual, G.2 "Target Description Format"; QEMU gdb-xml/i386-64bit.xml.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from xml.etree import ElementTree

from tightrope.errors import WireError
from tightrope.machine import wire

Ask = Callable[[bytes], bytes]
Described = Sequence[tuple[str, int]]
"""(gdb's name of a register, bytes), in the order of a `g` answer."""


def described(ask: Ask) -> Described:
    """The registers that the stub's target description has.  Raises WireError for none."""
    return tuple(
        (each.get("name", ""), int(each.get("bitsize", "0")) // 8)
        for tree in _included(ask)
        for each in tree.iter("reg")
    )


def _included(ask: Ask) -> Iterator[ElementTree.Element]:
    for name in re.findall(r'xi:include href="([^"]+)"', _feature(ask, "target.xml")):
        try:
            yield ElementTree.fromstring(_feature(ask, name))
        except ElementTree.ParseError as err:
            raise WireError(f"the gdb stub describes {name} in no XML: {err}") from err


def _feature(ask: Ask, name: str) -> str:
    text = b""
    while True:
        got = ask(b"qXfer:features:read:%b:%x,%x" % (name.encode(), len(text), 2000))
        text += got[1:]
        if got[:1] == b"l":
            return text.decode("latin-1")
        if got[:1] != b"m":
            raise WireError(f"the gdb stub has no {name}")


def values(registers: Described, answer: bytes) -> dict[str, int]:
    """Every register in a `g` answer by its gdb name (rax, eflags, cr3, efer ...)."""
    data = wire.register_bytes(answer)
    out, at = {}, 0
    for name, size in registers:
        if at + size > len(data):
            break
        out[name] = int.from_bytes(data[at : at + size], "little")
        at += size
    return out
