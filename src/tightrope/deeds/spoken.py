"""Who speaks after the entry, and what that says of the walk.

    decompressor   whatever a Linux kernel prints before its banner: "KASLR disabled", "Decompressing
                   Linux", a register dump, "XZ-compressed data is corrupt"
    kernel         Linux by its banner, any other kernel by its first word: zeros, and what only a
                   terminal obeys, are none

Rules: a console is judged here and nowhere else.  What a new kernel that fell or gave up said last
is a finding; one that nobody heard is no verdict.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from tightrope.deeds.unpacking import is_linux, speaks_for_itself
from tightrope.machine.port import Ends, never
from tightrope.model import Console, Ending, Finding, Image, Speaker, Step

BANNER = "Linux version "
"""How linux_banner begins (Linux init/version.c); printed first of all by start_kernel()."""
_UNSPOKEN = re.compile(r"\\x1b\[[0-?]*[ -/]*[@-~]|\\x1b[ -/]*[0-~]|\\x[0-9a-f]{2}")
"""Control sequences and control characters (ECMA-48, 5.4), as `machine.heard` shows them."""
LAST_WORDS = " -- System halted"
"""What Linux's decompressor says after an error (arch/x86/boot/compressed/error.c)."""


def ends_for(image: Image) -> Ends:
    """Which line of an image's console is the last one that is waited for."""
    if speaks_for_itself(image):
        return never
    return _is_banner if is_linux(image) else _has_a_word


def _is_banner(line: str) -> bool:
    return BANNER in line


def _has_a_word(line: str) -> bool:
    return bool(_UNSPOKEN.sub("", line).strip())


def attributed(console: Console, image: Image) -> Console:
    """The same, with who spoke."""
    ends = ends_for(image)
    if not any(map(_has_a_word, console.lines)):
        speaker = Speaker.NOBODY
    elif ends is _is_banner and not any(map(_is_banner, console.lines)):
        speaker = Speaker.DECOMPRESSOR
    else:
        speaker = Speaker.KERNEL
    return replace(console, speaker=speaker)


def judged(console: Console, image: Image) -> Iterator[Finding]:
    """What is wrong, of a console whose speaker is known."""
    if speaks_for_itself(image):
        yield from _own_word(console)
    if console.ending is Ending.FELL:
        yield Finding(
            rule="new-kernel-falls",
            step=Step.COPY,
            message=f"the new kernel was entered, and fell: {console.stopped}",
            evidence=_evidence(console),
            mend="see what it needs at its entry, and what it said last",
        )
    elif console.ending is Ending.HALTED and console.speaker is Speaker.DECOMPRESSOR:
        words = [line for line in console.lines if line.strip() != LAST_WORDS.strip()]
        yield Finding(
            rule="decompressor-gives-up",
            step=Step.COPY,
            message=f"the new kernel's decompressor gives up: {words[-1].strip() if words else 'halted'}",
            evidence=_evidence(console),
            mend="get the kernel's file anew: what it unpacks is not what it was built with",
        )


def _evidence(console: Console) -> dict[str, str]:
    """Where it ended, why, and the last lines."""
    out = {} if console.rip is None else {"rip": f"{console.rip:#x}"}
    if console.exception is not None:
        out["exception"] = console.exception
    first = max(len(console.lines) - 4, 1)
    return out | {f"line {number}": line for number, line in enumerate(console.lines[-5:], first)}


def _own_word(console: Console) -> Iterator[Finding]:
    """The shipped kernel's own word is a finding when it is not good."""
    bad = [line for line in console.lines if line.startswith("tightrope: BAD")]
    stands = any(line.startswith("tightrope: the new kernel stands") for line in console.lines)
    if bad or not stands:
        silent = f"the new kernel did not say that it stands: {console.stopped}"
        yield Finding(
            rule="new-kernel-says",
            step=Step.COPY,
            message=bad[0] if bad else silent,
            evidence={f"line {n}": line for n, line in enumerate(bad[1:], 2)},
            mend="see the findings above it: the new kernel only reports what it was handed",
        )


def reached(console: Console, token: str) -> Iterator[Finding]:
    """The new kernel's own init has the last word."""
    if console.stopped != token:
        last = dict(enumerate(console.lines[-5:], max(len(console.lines) - 4, 1)))
        yield Finding(
            rule="userspace-reached",
            step=Step.COPY,
            message=f"the new kernel's init did not say its word: {console.stopped}",
            evidence={f"line {number}": line for number, line in last.items()},
            mend="give it a console (console=ttyS0) and an init that says tightrope.token's word",
        )
