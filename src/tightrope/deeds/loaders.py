"""Segments by whoever is asked to place them, for a deed that walks many jumps.

    tightrope     None: the plan places them
    kexec-tools   the kexec that is installed, or another one, asked under the recorder
    file-load     what kexec_file_load of the old kernel would place

Rules: a deed.  Images and initrds are named by the files that they were read from, since kexec
opens them.
"""

from __future__ import annotations

from dataclasses import dataclass

from tightrope.deeds import file_load, kexec_tools
from tightrope.model import Buffer, Host, Image, Loaded, Loader
from tightrope.plan import Request


@dataclass(frozen=True, kw_only=True, slots=True)
class By:
    """Who places."""

    loader: Loader = Loader.TIGHTROPE
    program: str | None = None
    """The kexec to ask, None for the installed one."""

    def load(
        self, old: Buffer, source: str, image: Image, request: Request, host: Host
    ) -> Loaded | None:
        """The segments for a jump out of the kernel in `old`, None for the plan's own.

        Raises BadInput, ImageError, MissingPart, PlanError.
        """
        initrd = request.initrd
        if self.loader is Loader.KEXEC_TOOLS:
            return kexec_tools.load(
                image.source,
                None if initrd is None else request.initrd_source,
                request.command_line,
                host,
                crash=request.crash,
                program=self.program,
            )
        if self.loader is Loader.FILE_LOAD:
            return file_load.load(
                old, source, image, initrd, request.command_line, host, crash=request.crash
            )
        return None
