"""A crash image that a failed load has dropped: who can bring it back.

    a crash load fails -> the image that was there is gone -> what tightrope had loaded (kept.py)
                                                           -> else the distribution's own loader

Linux drops the old crash image before it looks at the new one (do_kexec_load in kernel/kexec.c, and
kexec_file_load in kernel/kexec_file.c: kimage_free(xchg(&kexec_crash_image, NULL))), and nobody
can read an image back: the crash region is taken out of the direct map
(arch_kexec_protect_crashkres), so neither /proc/kcore nor /dev/mem has it.  What can be done is
what put it there.

Rules: a program is run by its words and never by a shell; that it brought the image back is what
the kernel's file says afterwards, not its exit status.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tightrope.errors import TightropeError
from tightrope.perform.linux.calls import CallFailed
from tightrope.perform.linux.state import Files


@dataclass(frozen=True, kw_only=True, slots=True)
class Loader:
    """A program that loads a distribution's crash kernel."""

    path: str
    words: tuple[str, ...]


LOADERS = (
    Loader(path="/usr/sbin/kdump-config", words=("/usr/sbin/kdump-config", "load")),
    Loader(path="/usr/bin/kdumpctl", words=("/usr/bin/kdumpctl", "restart")),
    Loader(path="/usr/lib/kdump/load.sh", words=("/usr/lib/kdump/load.sh",)),
)
"""Debian's and Ubuntu's kdump-tools; Fedora's and Red Hat's kdump-utils; SUSE's kdump."""

Run = Callable[[Sequence[str]], int]
"""Runs a program to its end and gives its exit status."""


def loader(files: Files) -> Loader | None:
    """The crash loader that this machine has."""
    return next((each for each in LOADERS if files(each.path) is not None), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Again:
    """A crash image that tightrope itself loaded, and how it is loaded once more."""

    name: str
    """What people call it: the path of its kernel."""
    load: Callable[[], None]
    """Raises TightropeError or CallFailed with the reason why not."""


def put_back(
    files: Files, run: Run, loaded: Callable[[], bool | None], again: Again | None = None
) -> str:
    """Try to bring a crash image back, and say in a clause what came of it."""
    tried = []
    if again is not None:
        try:
            again.load()
        except (TightropeError, CallFailed) as err:
            tried.append(f"{again.name}, which tightrope had loaded, is not loaded again: {err}")
        else:
            if loaded() is not False:
                return (
                    f"the crash image that was loaded was dropped, and {again.name}, which"
                    " tightrope had loaded, is loaded again"
                )
            tried.append(f"{again.name} was loaded again and the kernel says that it is not there")
    found = loader(files)
    if found is None:
        tried.append("load it again (none of kdump-config, kdumpctl and kdump's load.sh is here)")
    else:
        words = " ".join(found.words)
        status = run(found.words)
        if loaded():
            return "; ".join(
                [
                    "the crash image that was loaded was dropped,"
                    f" and `{words}` has loaded its own again",
                    *tried,
                ]
            )
        tried.append(f"`{words}` ended with {status} and nothing is loaded")
    return "the crash image that was loaded is gone, this machine has no kdump now: " + "; ".join(
        tried
    )
