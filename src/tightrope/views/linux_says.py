"""What a Linux says of kexec: the shapes of `tightrope status`, `refusals`, `load`, `exec` and
`unload` with `--json`.

Rules: `perform` makes these facts with nothing but Python at hand; the shapes are written down
here, so that they are exported with the others.
"""

from __future__ import annotations

from typing import TypedDict

from tightrope.views.xen_says import SaidExtentFacts


class LimitsFacts(TypedDict):
    reboot: int | None
    crash: int | None


class LoadedFileFacts(TypedDict):
    name: str
    sha256: str
    bytes: int


class LastFacts(TypedDict):
    """What tightrope itself loaded last, of each kind, as it was told to the system's log."""

    crash: bool
    call: str
    files: list[LoadedFileFacts]
    rehearsed: str | None
    uid: int
    at: int
    """Seconds since 1970."""


class StatusFacts(TypedDict):
    """Everything that `tightrope status --json` prints; null where no file says it."""

    release: str | None
    architecture: str | None
    loaded: bool | None
    crash_loaded: bool | None
    disabled: bool | None
    limits: LimitsFacts
    lockdown: str | None
    secure_boot: bool | None
    crash_size: int | None
    ram: list[SaidExtentFacts]
    crash_regions: list[SaidExtentFacts]
    xen_pv: bool
    last: list[LastFacts]


class RefusalFacts(TypedDict):
    call: str
    answer: str
    number: int | None
    found: str
    mend: str


class RefusalsFacts(TypedDict):
    """Everything that `tightrope refusals --json` prints."""

    call: str
    refusals: list[RefusalFacts]


class LoadedSegmentFacts(SaidExtentFacts):
    name: str
    bytes: int


class LoadFacts(TypedDict):
    """Everything that `tightrope load --json` prints; `done` is whether it was loaded."""

    call: str
    crash: bool
    files: list[LoadedFileFacts]
    segments: list[LoadedSegmentFacts]
    entry: int
    rehearsed: str | None
    """What the rehearsal said: the one that this command made, else the one that a written plan
    remembers; null where there was none."""
    done: bool


class ExecFacts(TypedDict):
    """Everything that `tightrope exec --json` prints, before it jumps."""

    way: str
    """How the jump is asked for."""
    cautions: list[str]
    jumping: bool


class UnloadFacts(TypedDict):
    """Everything that `tightrope unload --json` prints; `done` is whether it was unloaded."""

    crash: bool
    done: bool


SHAPES: dict[str, tuple[int, type]] = {
    "status": (1, StatusFacts),
    "refusals": (1, RefusalsFacts),
    "load": (1, LoadFacts),
    "exec": (1, ExecFacts),
    "unload": (1, UnloadFacts),
}
"""Name -> version and shape."""
