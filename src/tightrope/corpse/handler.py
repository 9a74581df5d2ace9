"""What the control page's own handlers print before they halt: Linux 6.15 and later.

    Exc:000000000000000e        the vector
    Err:0000000000000002        its error code
    rip:... rsp:... rax:... ... r15:... cr2:...

Source: arch/x86/kernel/relocate_kernel_64.S, exc_handler, as machine
code of Debian's 7.2 and 7.3.  They are printed where the old kernel had earlyprintk on a serial
port; after a breakpoint (vector 3) the walk goes on.

Rules: a block that is cut gives what it has; lines of other consoles in between are stepped over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tightrope.corpse.log import Log
from tightrope.model.corpse import Ending, LogKind, Phase, Raised, Remains

LINE = re.compile(
    rb"\b(Exc|Err|rip|rsp|rax|rbx|rcx|rdx|rsi|rdi|r8|r9|r1[0-5]|cr2) *:([0-9a-f]{16})\b"
)
BREAKPOINT, PAGE_FAULT = 3, 14
LAST = "cr2"
BLOCK = 2048
"""Bytes that a block may have, with what a console puts before each line."""


def read(log: Log) -> Iterator[Remains]:
    """The last block."""
    found = log.last(b"Exc:0000")
    if found is None:
        return
    at = found[0]
    said: dict[str, int] = {}
    for name, value in LINE.findall(log.behind(at)[:BLOCK]):
        said.setdefault(name.decode(), int(value, 16))
    if "Exc" not in said:
        return
    vector = said["Exc"]
    yield Remains(
        kind=LogKind.HANDLER,
        line=log.number(at),
        offset=at,
        ending=Ending.WENT_ON if vector == BREAKPOINT else Ending.STOPPED,
        phase=Phase.WALK,
        words=log.line(at),
        raised=(
            Raised(
                vector=vector,
                error_code=said.get("Err"),
                rip=said.get("rip"),
                address=said.get("cr2") if vector == PAGE_FAULT else None,
                registers={k: v for k, v in said.items() if k not in ("Exc", "Err", "rip")},
            ),
        ),
        cut=LAST not in said,
    )
