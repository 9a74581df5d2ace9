"""What `load` asks for: a command line's words as a load, rehearsed or not, and the same again.

    options --opened--> Loading --as_kept--> Kept, in /run --again--> the same options and bytes

Rules: nothing is changed here but by what `again` gives.  Only the standard library is imported on
the way: this runs in an initramfs.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from tightrope.errors import BadInput, MissingPart

if TYPE_CHECKING:
    from tightrope.deeds.loading import Digests, Files, Loading, Planner
    from tightrope.model import OnDamage, Verdict
    from tightrope.perform.linux.kdump import Again
    from tightrope.perform.linux.kept import Kept
    from tightrope.perform.linux.kexec import LinuxKexec
    from tightrope.perform.linux.state import State
    from tightrope.perform.load_file import Load
    from tightrope.report.progress import Bar


def opened(options: Namespace, state: State, survey: Rehearsing) -> AbstractContextManager[Loading]:
    """What the options ask to be loaded, rehearsed where they ask for that."""
    from tightrope.deeds import loading

    return loading.opened(
        options.kernel,
        options.initrd,
        line(options),
        crash=options.crash,
        via=loading.Via(options.via),
        state=state,
        rehearsed=not options.no_rehearsal,
        planner=survey.planner(state),
        rehearser=None if options.no_rehearsal else survey.walk,
    )


def as_kept(options: Namespace, what: Loading, outcome: str | None) -> Kept:
    """What it takes to ask for the same load again."""
    from time import time

    from tightrope.perform.linux.kept import Kept

    return Kept(
        crash=what.request.crash,
        call=what.via.value,
        files=tuple((os.path.abspath(name), digest, size) for name, digest, size in what.digests),
        written=what.written,
        command_line=line(options),
        unpack=options.unpack,
        on_damage=None if options.no_verify else options.on_damage,
        rehearsed=outcome,
        uid=os.getuid(),
        at=int(time()),
    )


def again(was: Kept, kexec: LinuxKexec, state: State) -> Again:
    """The same load once more, of the same bytes, rehearsed as it was."""
    from tightrope.perform.linux.kdump import Again
    from tightrope.perform.load_file import HOLDS

    def load() -> None:
        paths = [path for path, _, _ in was.files]
        options = Namespace(
            kernel=paths[0],
            initrd=paths[1] if len(paths) > 1 else None,
            append=was.command_line,
            reuse_cmdline=False,
            crash=was.crash and not was.written,
            unpack=was.unpack,
            no_verify=was.on_damage is None,
            on_damage=was.on_damage,
            via=was.call,
            no_rehearsal=was.rehearsed != HOLDS,
        )
        with opened(options, state, Rehearsing(options)) as what:
            for (path, digest, _), (_, now, _) in zip(was.files, what.digests, strict=True):
                if now != digest:
                    raise BadInput(f"is not what was loaded, sha256 {digest}", source=path)
            kexec.ask(what.load)
            log("crash image", what.digests)

    return Again(name=was.files[0][0], load=load)


class Rehearsing:
    """The survey and rehearsal of one load; `load` is the planner that `deeds.loading` asks."""

    def __init__(self, options: Namespace) -> None:
        self._options = options
        self.verdict: Verdict | None = None

    def planner(self, state: State) -> Planner | None:
        """Who finds the places for kexec_load; None where Linux is to.

        Without a rehearsal a crash kernel's are left to Linux, which describes the old one's memory
        and CPUs better than we do, unless they are asked of us; a 32-bit machine is not described.
        """
        narrow = state.architecture in ("i686", "i386")
        left = self._options.crash and self._options.via != "kexec_load"
        if self._options.no_rehearsal and (narrow or left):
            return None
        return partial(self._planned, state)

    def _planned(self, state: State, files: Files) -> Load:
        if files.crash and state.ram and state.crash_region is None:
            raise BadInput(
                "no crash region is reserved: boot with crashkernel=", source="this machine"
            )
        if not self._options.no_rehearsal:
            return self.load(files)
        from tightrope.deeds import unrehearsed
        from tightrope.perform.linux.state import machine_file

        options = self._options
        return unrehearsed.load(
            files, state, machine_file, unpack=options.unpack, verify=damage(options)
        )

    def load(self, files: Files) -> Load:
        """Survey, plan, rehearse.  Raises TightropeError, BadInput where it falls."""
        with _able() as bar:
            from tightrope.deeds import surveyed

            self.verdict = surveyed.rehearsed(
                files,
                surveyed.survey().host,
                unpack=self._options.unpack,
                verify=damage(self._options),
                progress=bar,
            )
        return surveyed.load_of(self.verdict)

    def walk(self, files: Files) -> None:
        """Survey, and rehearse the places that Linux will find.  Raises as `load`."""
        if self._options.unpack:
            raise BadInput("kexec_file_load takes a bzImage as it is", source="--unpack")
        with _able() as bar:
            from tightrope.deeds import surveyed

            old = surveyed.survey().host
            self.verdict = surveyed.rehearsed_as_linux_places(files, old, progress=bar)
        surveyed.refuse_fallen(self.verdict)

    @property
    def outcome(self) -> str | None:
        """What the rehearsal said, None where there was none."""
        return None if self.verdict is None else self.verdict.outcome.value

    def told(self) -> Iterator[str]:
        """What the rehearsal said, a line or two."""
        if self.verdict is None:
            return
        verdict = self.verdict
        yield (
            f"rehearsed: {verdict.outcome.value}, {verdict.run.instructions:,} instructions through"
            f" {verdict.handover.design}, {len(verdict.rules)} rules asked"
        )
        if loaded := verdict.handover.plan.loaded:
            yield f"  places as {loaded.by} finds them, and its purgatory"
        for fact in verdict.assumed:
            yield f"  assumed: {fact.source}"


@contextmanager
def _able() -> Iterator[Bar]:
    """A bar for a rehearsal.  Raises MissingPart where none can run here, with the way without."""
    try:
        from contextlib import closing

        from tightrope.report.progress import Bar

        with closing(Bar()) as bar:
            yield bar
    except (MissingPart, ImportError) as err:
        what = f"needs {err.name}" if isinstance(err, ImportError) else str(err)
        raise MissingPart(
            f"a rehearsal cannot run here ({what}): install tightrope[rehearse], or say"
            " --no-rehearsal"
        ) from err


def damage(options: Namespace) -> OnDamage | None:
    from tightrope.model import OnDamage

    return None if options.no_verify else OnDamage(options.on_damage)


def line(options: Namespace) -> str:
    """The new kernel's command line."""
    if not options.reuse_cmdline:
        return str(options.append)
    from tightrope.cli import files
    from tightrope.deeds.loading import COMMAND_LINE, reused_command_line

    running = files.text_or_none(COMMAND_LINE)
    if running is None:
        raise BadInput("cannot be read", source=COMMAND_LINE)
    return reused_command_line(running.encode("latin-1").decode("utf-8", "surrogateescape"))


def log(kind: str, digests: Digests) -> None:
    """A line to the system's log for each file: who loaded which digest; never the command line."""
    for name, digest, size in digests:
        logged(f"{kind} loaded by uid {os.getuid()}: {digest} {size} {name!r}")


def logged(what: str) -> None:
    """A line to the system's log (syslog, which journald reads as well), under our name."""
    import syslog

    # Without a name Python takes the script's, and `python -m tightrope` would be "__main__.py".
    syslog.openlog("tightrope", syslog.LOG_PID, syslog.LOG_USER)
    syslog.syslog(what)
