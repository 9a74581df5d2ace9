"""A machine's files, each parsed once, and the reasons why some say nothing.

Rules: what a file says is its parser's; that it hides its addresses, or cannot be read, becomes a
note.
"""

from __future__ import annotations

from collections.abc import Mapping

from tightrope.errors import HostError
from tightrope.host.capture import cpuinfo, iomem, kernel, kexec
from tightrope.host.capture.iomem import HIDDEN, Resource
from tightrope.host.capture.origins import Origins
from tightrope.host.capture.tree import BOOT_PARAMS, OSRELEASE, Files
from tightrope.host.capture.zero_page import zero_page

SYMBOLS = (
    "_text",
    "_stext",
    "_end",
    "relocate_kernel",
    "__relocate_kernel_start",
    "kexec_va_control_page",
)


class Sources:
    """What the files say.  Raises HostError where they are not those of an x86_64 Linux."""

    def __init__(self, files: Files, origins: Origins) -> None:
        self.files = files
        self._origins = origins
        text = self.text("/proc/cpuinfo")
        self.flags = None if text is None else cpuinfo.cpu_flags(text)
        if text is not None and (self.flags is None or "lm" not in self.flags):
            raise HostError("no x86_64 CPU", source="/proc/cpuinfo", field="flags")
        self.cpuinfo = text or ""
        self.iomem = self._resources()
        params = self.text(BOOT_PARAMS)
        self.params = None if params is None else zero_page(params)
        self.meminfo = cpuinfo.meminfo(self.text("/proc/meminfo") or "")
        self.kcore = kernel.kcore(self.text("/proc/kcore") or "")
        self.release = kernel.version(self.word(OSRELEASE))
        self.symbols = self._symbols()
        self.letters = kernel.letters(self.text("/proc/kallsyms", quiet=True) or "", SYMBOLS)

    def text(self, path: str, *, quiet: bool = False) -> str | None:
        """A file's text; when there is none, the reason becomes a note unless `quiet`."""
        got = self.files.get(path)
        if isinstance(got, str):
            return got
        reason = "not among the files" if got is None else got.strerror or str(got)
        if not quiet:
            self._origins.note(f"could not read {path}: {reason}")
        return None

    def word(self, *paths: str) -> str:
        """The text of the first of these short files that is there, without its line break, or
        ""."""
        for path in paths:
            got = self.text(path, quiet=True)
            if got is not None:
                return got.strip()
        return ""

    def texts(self) -> Mapping[str, str]:
        """Every file that could be read."""
        return {path: got for path, got in self.files.items() if isinstance(got, str)}

    def kexec(self, name: str) -> str:
        """One of the files that say what kexec's state is, by its new name or its old."""
        return self.word(*kexec.state(name))

    def hidden(self, path: str) -> None:
        """Note that a file has zeros for addresses."""
        self._origins.note(f"{path} shows zeros: its addresses are hidden from all but root")

    def _resources(self) -> tuple[Resource, ...]:
        text = self.text("/proc/iomem")
        found = None if text is None else iomem.iomem(text)
        if found is HIDDEN:
            self.hidden("/proc/iomem")
        return found if isinstance(found, tuple) else ()

    def _symbols(self) -> dict[str, int]:
        found = kernel.symbols(self.text("/proc/kallsyms") or "", SYMBOLS)
        if isinstance(found, dict):
            return found
        self.hidden("/proc/kallsyms")
        return {}
