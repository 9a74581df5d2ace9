"""Where in a source an instruction stands: the line table of an object file (DWARF, section
.debug_line).

Rules: a convenience for messages.  A table that is missing, broken or of another section gives no
lines and never an error; nothing is proved from it.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

STANDARD_INPUT = "{standard input}"
"""What GNU as calls a source that it reads from a pipe."""
LARGEST_TABLE = 1 << 20
"""Bytes of debug sections that are looked at: a control page has few instructions."""


@dataclass(frozen=True, slots=True)
class Lines:
    """`starts` are (offset in .text, file, line), sorted; `text` is the source's,
    where it was read.
    """

    starts: Sequence[tuple[int, str, int]] = ()
    text: Sequence[str] = field(default=())

    def at(self, offset: int) -> str:
        """ "FILE:LINE `source text`", or "" where that is not known."""
        index = bisect_right(self.starts, (offset, "\U0010ffff", 0)) - 1
        if index < 0:
            return ""
        _, file, number = self.starts[index]
        text = self.text[number - 1] if 0 < number <= len(self.text) else ""
        said = " ".join(text.split("/*")[0].split())
        return f"{file}:{number}" + (f" `{said}`" if said else "")


def lines_of(raw: bytes, name: str = "", source: bytes = b"") -> Lines:
    """The lines of an object file;
    `name` and `source` are those of a text that came from a pipe.
    """
    from elftools.elf.elffile import ELFFile

    try:
        elf = ELFFile(io.BytesIO(raw))
        size = sum(s.data_size for s in elf.iter_sections() if s.name.startswith(".debug"))
        if size > LARGEST_TABLE or not elf.has_dwarf_info():
            return Lines()
        found: dict[int, tuple[str, int]] = {}
        dwarf = elf.get_dwarf_info()
        for unit in dwarf.iter_CUs():
            program = dwarf.line_program_for_CU(unit)
            if program is None:
                continue
            base = 0 if program.header.version >= 5 else 1
            for entry in program.get_entries():
                state = entry.state
                if state is not None and not state.end_sequence:
                    file = program.header.file_entry[state.file - base].name.decode()
                    found[state.address] = (file, state.line)
    except Exception:  # whatever pyelftools says of broken debug sections: then there are no lines
        return Lines()
    text = source.decode(errors="replace").splitlines()
    return Lines(
        starts=sorted(
            (offset, name if file == STANDARD_INPUT and name else file, line)
            for offset, (file, line) in found.items()
        ),
        text=text if {file for file, _ in found.values()} == {STANDARD_INPUT} else (),
    )
