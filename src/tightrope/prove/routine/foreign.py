"""Somebody else's relocation code: a file becomes the bytes of a control page.

    FILE.S   --GNU as--> object file        FILE.o  --pyelftools--> .text        FILE.bin  as it is

Rules: any bytes in, an image or a typed error out.  The code is called at its first byte with the
registers that our own routines are called with (handover/build.py); whether it is any good is not
decided here.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

from tightrope.errors import BadInput, MissingPart
from tightrope.memory import PAGE_SIZE
from tightrope.model import Paging
from tightrope.prove.isa.decode import Mem, Reg, sweep
from tightrope.prove.routine.source_lines import Lines, lines_of

LARGEST = PAGE_SIZE - 256
"""Bytes of code: the control page also holds the stack."""
ASSEMBLER_SECONDS = 60
CONTRACTS = ("two-tables",)
CALLED = {
    64: "head in rdi, P in rsi, start in rdx, page_table_a in rcx, page_table_b in r8",
    32: "head in edi, P in esi, start in edx, page_table_a in ecx",
}


@dataclass(frozen=True, slots=True)
class Foreign:
    """`bits` is what the file itself says of its code, None for raw bytes."""

    source: str
    data: bytes
    bits: int | None
    lines: Lines = field(default=Lines(), compare=False)


def read(path: Path, mode: Paging | None) -> Foreign:
    """The code in a file.  Raises BadInput, and MissingPart where there is no GNU as."""
    source = str(path)
    try:
        raw = path.read_bytes()
    except OSError as err:
        raise BadInput(err.strerror or "cannot be read", source=source) from err
    if path.suffix in (".S", ".s"):
        made = assemble(raw, source, 32 if mode and not mode.long_mode else 64)
        found = replace(code_of(made, source), lines=lines_of(made, path.name, raw))
    elif path.suffix == ".o" or raw[:4] == b"\x7fELF":
        found = code_of(raw, source)
        found = replace(found, lines=lines_of(raw))
    else:
        found = Foreign(source, raw, None)
    if not found.data:
        raise BadInput("there is no code in it", source=source)
    if len(found.data) > LARGEST:
        raise BadInput(
            f"{len(found.data)} bytes of code do not fit on a control page beside their stack",
            source=source,
            limit=LARGEST,
        )
    return found


def misfit(data: bytes, bits: int) -> str:
    """Why the code seems to be written for another contract than two-tables; "" where it does not.

    Before the first load of CR3 two-tables code has nothing but registers: rsi is a physical address,
    and the stack is the old kernel's.  Linux's relocate_kernel reads page_list through rsi there, its
    32-bit one arguments from the stack (arch/x86/kernel/relocate_kernel_64.S, relocate_kernel_32.S).
    """
    known = {"rsi", "rsp"}
    for at in sweep(data, len(data), bits):
        into = at.operands[0] if at.operands else None
        if at.mnemonic == "mov" and isinstance(into, Reg) and into.name == "cr3":
            return ""
        read = [op for op in at.operands[1:] if isinstance(op, Mem) and op.base in known]
        if read and at.mnemonic != "lea":
            what = (
                "through rsi, as Linux's relocate_kernel reads its page_list"
                if read[0].base == "rsi" and bits == 64
                else f"through {read[0].base if bits == 64 else 'e' + str(read[0].base)[1:]}"
            )
            return (
                f"`{at.text}` at {at.offset:#x} reads {what}, before it loads CR3: it seems to be written"
                " for another contract. --contract two-tables does not fit then: the code is called at V"
                f" with {CALLED[bits]}, and has no stack and no memory until page_table_a is loaded"
            )
        if isinstance(into, Reg):
            known.discard(into.name)
    return ""


def assemble(text: bytes, source: str, bits: int) -> bytes:
    """An object file of an AT&T syntax source.  Raises MissingPart, and BadInput with as's words."""
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
            raise BadInput("GNU as does not come to an end", source=source) from err
        if done.returncode:
            lines = done.stderr.decode(errors="replace").splitlines()
            said = [line for line in lines if "Error" in line or "Warning" in line] or lines
            what = said[0].replace("{standard input}:", "line ") if said else "no reason given"
            raise BadInput(f"GNU as refuses it: {what.strip()}", source=source)
        return out.read_bytes()


def code_of(raw: bytes, source: str) -> Foreign:
    """The .text of an x86 object file that needs no linker."""
    try:
        from elftools.common.exceptions import ELFError
        from elftools.elf.elffile import ELFFile
    except ImportError as err:
        raise MissingPart("object files need pyelftools: install tightrope[inspect]") from err
    try:
        elf = ELFFile(io.BytesIO(raw))
        machine = elf["e_machine"]
        section = elf.get_section_by_name(".text")
        data = b"" if section is None else bytes(section.data())
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
    return Foreign(source, data, bits)
