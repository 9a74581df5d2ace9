"""An image that was called, where it should have been jumped to.

Xen calls the image until 8b7a72f4d3, and kexec-tools' purgatory takes the address that is left by a
call for one to come back to: it appends ` kexec_jump_back_entry=0x...` to the command line
(purgatory/arch/x86_64/setup-x86_64.S, x86_setup_jump_back_entry).

Rules: nothing falls by that word, where it is all that has changed, and only there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from tightrope.memory import Extent
from tightrope.model import Finding, Memory

JUMP_BACK = re.compile(rb" kexec_jump_back_entry=0x[0-9a-f]{16}")
SIZE = 41
"""Bytes of the word, with the space before it."""


def of_its_call(findings: Sequence[Finding], memory: Memory) -> list[Finding]:
    """The findings; as advice those that are about the word.  `memory` is as the walk left it."""
    told = {each.rule: each for each in findings}
    line, changed = told.get("command-line-as-given"), told.get("destinations-complete")
    if line is None or changed is None or changed.at is None:
        return list(findings)
    word = changed.at
    if word.size != SIZE or not JUMP_BACK.fullmatch(bytes(memory.read(word))):
        return list(findings)
    written = Extent(word.start, word.end + 1)  # and the zero that ends the line
    return [
        replace(each, advice=True)
        if each in (line, changed)
        or (each.rule == "stores-owned" and each.at is not None and written.covers(each.at))
        else each
        for each in findings
    ]
