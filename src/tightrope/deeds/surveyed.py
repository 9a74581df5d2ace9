"""A load for the machine that is asked, in one go: surveyed, planned, rehearsed through its own
kernel's code.

    /proc, /sys ──host.capture──▶ Host ─┐
    kernel, initrd, words ──────────────┴─▶ plan ─▶ rehearsal by the running kernel's
    relocate_kernel ─▶ Load in dom0: what Xen says ─host.xen_file─▶ Host, and the hypervisor's own
    way

What is rehearsed is this plan's segments, entry and tables as that kernel builds them.  Which
frames Linux takes for sources and its control page it decides when it loads; the rehearsal's are
the plan's.

Rules: composes rooms and other deeds; the old kernel's image is the only file that is opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tightrope import host, plan
from tightrope.deeds import defaults, file_load, old_kernel, performable, segments
from tightrope.deeds.loading import Files
from tightrope.deeds.rehearse import rehearse
from tightrope.deeds.unrehearsed import asked
from tightrope.errors import BadInput
from tightrope.machine.port import Progress, no_progress
from tightrope.model import Host, OnDamage, Outcome, Verdict, XenInterface
from tightrope.perform.load_file import Load


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """A machine as its own files describe it."""

    host: Host
    notes: tuple[str, ...]
    """What could not be read, and what is assumed in its place."""


def survey(
    files: Mapping[str, str | OSError] | None = None, source: str = "this machine"
) -> Survey:
    """This machine, or the one whose /proc and /sys `files` are.  Raises HostError."""
    captured = host.capture(host.read_tree() if files is None else files, source)
    return Survey(host=host.read(captured.toml, source), notes=tuple(captured.notes))


def planned(files: Files, old: Host, *, unpack: bool, verify: OnDamage | None = None) -> Load:
    """The load that a plan gives, without a rehearsal.  Raises TightropeError."""
    new, request = asked(files, unpack=unpack)
    request = replace(request, verify=_can(old, verify))
    return performable.of(plan.prepare(new, old, request), "")


def rehearsed(
    files: Files,
    old: Host,
    *,
    unpack: bool,
    verify: OnDamage | None = None,
    code: old_kernel.OldKernel | None = None,
    progress: Progress = no_progress,
) -> Verdict:
    """The verdict of the plan for `old`, by the relocation code of the kernel that runs there.

    `code` is the running kernel's where it is not given; `verify` puts a purgatory first, in long
    mode.  Raises TightropeError when it cannot be told.
    """
    new, request = asked(files, unpack=unpack)
    request = replace(request, verify=_can(old, verify))
    code = code or running()
    return rehearse(
        new,
        code.host(old),
        code.request(request),
        design=code.participant,
        progress=progress,
    )


def rehearsed_as_linux_places(
    files: Files, old: Host, *, progress: Progress = no_progress
) -> Verdict:
    """The verdict of what kexec_file_load of the running kernel would place, its purgatory with it.

    Raises TightropeError when it cannot be told.
    """
    new, request = asked(files, unpack=False)
    data, path = running_image()
    code = old_kernel.read(data, path)
    there = code.host(old)
    loaded = file_load.load(
        data, path, new, files.initrd, files.command_line, there, crash=files.crash
    )
    return rehearse(
        new,
        there,
        segments.request(loaded, code.request(request)),
        design=code.participant,
        progress=progress,
    )


def rehearsed_under_xen(
    files: Files, said: dict[str, object], *, unpack: bool, progress: Progress = no_progress
) -> Verdict:
    """The verdict of a plan for the Xen that says `said` of itself (`perform.xen.facts`), by
    interface v2.

    Raises TightropeError when it cannot be told.
    """
    new, request = asked(files, unpack=unpack)
    source = "this Xen"
    old = host.read(host.xen_file(said, source), source)
    return rehearse(new, old, replace(request, xen=XenInterface.V2), progress=progress)


def running() -> old_kernel.OldKernel:
    """The relocation code of the kernel that runs here.  Raises TightropeError where it is not
    found."""
    return old_kernel.read(*running_image())


def running_image() -> tuple[bytes, str]:
    """The image of the kernel that runs here, and its path.  Raises BadInput."""
    try:
        path = defaults.running_kernel()
    except BadInput as err:
        why = f"{err.problem}, so its code cannot be walked; --no-rehearsal loads without that"
        raise BadInput(why, source="the running kernel") from err
    try:
        return Path(path).read_bytes(), path
    except OSError as err:
        raise BadInput(err.strerror or "cannot be read", source=path) from err


def refuse_fallen(verdict: Verdict) -> None:
    """Raise BadInput where a rehearsal did not hold."""
    if verdict.outcome is not Outcome.HOLDS:
        first = verdict.findings[0] if verdict.findings else None
        why = f": {first.message} ({first.rule}, step {first.step})" if first else ""
        raise BadInput(
            f"the rehearsal says that it {verdict.outcome.value}{why}", source="the load"
        )


def load_of(verdict: Verdict) -> Load:
    """The load of a verdict.  Raises BadInput where it did not hold."""
    refuse_fallen(verdict)
    return performable.of(verdict.handover.plan, verdict.outcome.value)


def _can(old: Host, verify: OnDamage | None) -> OnDamage | None:
    """A purgatory where its 64-bit code can run."""
    return verify if old.paging.long_mode else None
