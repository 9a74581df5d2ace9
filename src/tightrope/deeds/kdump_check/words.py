"""The command line that a crash kernel is tried with: what it would be given, made to be heard.

    quiet, loglevel=, splash, console=   go: what it says is the verdict
    console=ttyS0 loglevel=7             come, before a `--`, behind which words are init's
    rdinit=                              the witness, which then becomes what stood there

Rules: text in, text out.
"""

from __future__ import annotations

from dataclasses import dataclass

from tightrope.kdump import witness

_GO = ("quiet", "splash", "rhgb")
_GO_WITH_VALUE = ("loglevel=", "console=", "rdinit=", "initcall_blacklist=serial")
HEARD = "console=ttyS0,115200 loglevel=7"


@dataclass(frozen=True, slots=True)
class Words:
    """The line, and the program that the witness becomes."""

    line: str
    init: str


def tried(line: str, *, witnessed: bool) -> Words:
    """The command line with which a crash kernel is tried."""
    own, dashes, rest = line.partition(" -- ")
    init = "/init"
    kept = []
    for word in own.split():
        if word.startswith("rdinit="):
            init = word.removeprefix("rdinit=")
        if word not in _GO and not word.startswith(_GO_WITH_VALUE):
            kept.append(word)
    kept.append(HEARD)
    if witnessed:
        kept.append(f"rdinit={witness.PATH}")
    return Words(f"{' '.join(kept)}{dashes}{rest}", init)
