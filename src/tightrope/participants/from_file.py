"""A user's own relocation code: a file becomes the bytes of a control page, under a contract.

    FILE.S   --GNU as--> object file        FILE.o  --pyelftools--> .text        FILE.bin  as it is

Rules: any bytes in, code or a typed error out.  The code is called at its first byte, as the
contract says; whether it keeps that is for the rules to find, and nothing of it is decided here.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tightrope.errors import BadInput, MissingPart
from tightrope.memory import PAGE_SIZE
from tightrope.model import Code, Paging, Participant
from tightrope.participants.relocation import DESIGNS

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import Section, SymbolTableSection

LARGEST = PAGE_SIZE - 256
"""Bytes of code: the control page also holds the stack."""
LARGEST_FILE = 4 << 20
"""Bytes of a source or an object file, comments and debugging information with it."""
ASSEMBLER_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Code out of a file; `bits` is what the file itself says of it, None for raw bytes."""

    source: str
    data: bytes
    bits: int | None
    symbols: Mapping[str, int] = field(default_factory=dict)
    """Offsets into `data`."""
    made: bytes = b""
    """The object file that it came out of, the assembler's where the file was a source."""


def contracts(paging: Paging) -> Mapping[str, Participant]:
    """What a file can be held to, by name: each design whose code at V is the control page's."""
    every = {name: design(paging) for name, design in DESIGNS.items()}
    return {name: each for name, each in every.items() if not each.contract.stays_at_v}


def relocation(written: Written, contract: str, paging: Paging) -> Participant:
    """The file's code in place of the contract's own.

    Raises BadInput for a contract that is none, and for code of another width than the mode's.
    """
    known = contracts(paging)
    if contract not in known:
        raise BadInput(
            f"{contract!r} is not a contract; there are {', '.join(known)}", source="--contract"
        )
    if written.bits not in (None, 64 if paging.long_mode else 32):
        raise BadInput(
            f"its code is {written.bits}-bit, and {paging.value} is not", source=written.source
        )
    code = Code(name=written.source, data=written.data, symbols=written.symbols)
    name = f"{contract} by {Path(written.source).name}"
    return replace(known[contract], name=name, code=code, file=written.source)


def read(path: Path, mode: Paging | None) -> Written:
    """The code in a file.  Raises BadInput, and MissingPart where there is no GNU as."""
    source = str(path)
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except OSError as err:
        raise BadInput(err.strerror or "cannot be read", source=source) from err
    if len(raw) > LARGEST_FILE:
        raise BadInput(
            "is too large a file for code of one page", source=source, limit=LARGEST_FILE
        )
    if path.suffix in (".S", ".s"):
        bits = 32 if mode and not mode.long_mode else 64
        found = code_of(assemble(raw, source, bits), source)
    elif path.suffix == ".o" or raw[:4] == b"\x7fELF":
        found = code_of(raw, source)
    else:
        found = Written(source=source, data=raw, bits=None)
    if not found.data:
        raise BadInput("there is no code in it", source=source)
    if len(found.data) > LARGEST:
        raise BadInput(
            f"{len(found.data)} bytes of code do not fit on a control page beside their stack",
            source=source,
            limit=LARGEST,
        )
    return found


def assemble(text: bytes, source: str, bits: int) -> bytes:
    """An object file of an AT&T syntax source.  Raises MissingPart, and BadInput with as's
    words."""
    tool = shutil.which("as")
    if tool is None:
        raise MissingPart(
            f"{source} needs GNU as, which is not here: install binutils, or give an object file"
        )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "code.o")
        try:
            done = subprocess.run(
                [tool, f"--{bits}", "--gdwarf-4", "--fatal-warnings", "-o", out, "-"],
                input=text,
                capture_output=True,
                timeout=ASSEMBLER_SECONDS,
            )
        except subprocess.TimeoutExpired as err:
            raise BadInput("GNU as has not finished in time", source=source) from err
        if done.returncode:
            lines = done.stderr.decode(errors="replace").splitlines()
            said = [line for line in lines if "Error" in line or "Warning" in line] or lines
            what = said[0].replace("{standard input}:", "line ") if said else "no reason given"
            raise BadInput(f"GNU as refuses it: {what.strip()}", source=source)
        return out.read_bytes()


def code_of(raw: bytes, source: str) -> Written:
    """The .text of an x86 object file that needs no linker."""
    try:
        from elftools.common.exceptions import ELFError
        from elftools.elf.elffile import ELFFile
        from elftools.elf.sections import SymbolTableSection as Symbols
    except ImportError as err:
        raise MissingPart("object files need pyelftools: install tightrope[inspect]") from err
    try:
        elf = ELFFile(io.BytesIO(raw))
        machine = elf["e_machine"]
        section = elf.get_section_by_name(".text")
        data = b"" if section is None else bytes(section.data())
        table = elf.get_section_by_name(".symtab")
        symbols = _labels(elf, section, table) if section and isinstance(table, Symbols) else {}
        relocated = any(
            elf.get_section_by_name(name) is not None for name in (".rela.text", ".rel.text")
        )
    except (ELFError, ValueError, KeyError, AssertionError, UnicodeError, OverflowError) as err:
        raise BadInput(f"not an object file: {err}", source=source) from err
    except Exception as err:  # pyelftools raises construct's own errors on some broken headers
        raise BadInput(f"not an object file: {type(err).__name__}", source=source) from err
    bits = {"EM_386": 32, "EM_X86_64": 64}.get(machine)
    if bits is None:
        raise BadInput(f"machine {machine} is not x86", source=source, field="e_machine")
    if relocated:
        raise BadInput(
            "its .text has relocations: code on a control page has no linker; keep symbols local",
            source=source,
            field=".text",
        )
    return Written(source=source, data=data, bits=bits, symbols=symbols, made=raw)


def _labels(elf: ELFFile, section: Section, table: SymbolTableSection) -> dict[str, int]:
    """The labels of a section, by their offsets."""
    number = elf.get_section_index(section.name)
    return {
        each.name: each["st_value"]
        for each in table.iter_symbols()
        if each.name and each["st_shndx"] == number and each["st_value"] <= section.data_size
    }
