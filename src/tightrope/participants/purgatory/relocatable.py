"""A purgatory as it is kept inside a loader: a relocatable ELF object, laid at an address.

    .text .rodata ... .data          one behind the other, each at its alignment
    zeros up to .bss' alignment
    .bss                             a stack lies here

kexec-tools (elf_rel_load() in kexec/kexec-elf-rel.c) and Linux (kexec_purgatory_setup_sechdrs() in
kernel/kexec_file.c) place the sections alike, and both write absolute and pc-relative words alone
(kexec/arch/x86_64/kexec-elf-rel-x86_64.c; arch_kexec_apply_relocations_add() in
arch/x86/kernel/machine_kexec_64.c).

Rules: any bytes in, an object or an ImageError; nothing is known here of what a symbol means.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tightrope.errors import ImageError, MissingPart
from tightrope.memory import Extent, align_up
from tightrope.model import Buffer

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

_ALLOC, _WRITE, _EXECUTE = 2, 1, 4
"""SHF_ALLOC, SHF_WRITE, SHF_EXECINSTR."""
_MOST = 1 << 20
_ABSOLUTE, _SIGNED, _RELATIVE = "absolute", "signed", "relative"
_KINDS: Mapping[tuple[int, int], tuple[str, int]] = {
    (64, 1): (_ABSOLUTE, 8),  # R_X86_64_64
    (64, 2): (_RELATIVE, 4),  # PC32
    (64, 4): (_RELATIVE, 4),  # PLT32
    (64, 10): (_ABSOLUTE, 4),  # 32
    (64, 11): (_SIGNED, 4),  # 32S
    (64, 24): (_RELATIVE, 8),  # PC64
    (32, 1): (_ABSOLUTE, 4),  # R_386_32
    (32, 2): (_RELATIVE, 4),  # PC32
    (32, 4): (_RELATIVE, 4),  # PLT32
}
"""(bits, relocation type): what is written, and how many bytes."""
_FORMATS = {8: "<Q", 4: "<I"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the object that takes memory; `offset` is from where the object is laid."""

    name: str
    offset: int
    size: int
    data: bytes
    writable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A word that depends on where the object is laid."""

    offset: int
    kind: str
    size: int
    symbol: str
    target: int | None
    """The symbol's offset; None where it is absolute."""
    addend: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Relocatable:
    """An object whose parts have their places; everything is an offset from where it is laid."""

    source: str
    bits: int
    sections: tuple[Section, ...]
    symbols: Mapping[str, int]
    """A global one where there are several of a name."""
    labels: tuple[tuple[str, int], ...]
    """All of them, by their offsets."""
    words: tuple[Word, ...]
    entry: int
    filled: int
    """Bytes that a loader hands over; what follows is zeros."""
    size: int

    @property
    def writable(self) -> tuple[Extent, ...]:
        """What its own code may write."""
        return tuple(
            Extent.sized(each.offset, each.size) for each in self.sections if each.writable
        )

    def laid(self, base: int) -> bytes:
        """Its bytes at an address.  Raises ImageError where a word cannot hold what it should."""
        out = bytearray(self.filled)
        for section in self.sections:
            out[section.offset : section.offset + len(section.data)] = section.data
        for word in self.words:
            value = word.addend + (0 if word.target is None else base + word.target)
            if word.kind == _RELATIVE:
                value -= base + word.offset
            if not _fits(value, word):
                raise ImageError(
                    f"{value:#x} does not fit into the {word.size} bytes of {word.symbol} at"
                    f" {word.offset:#x}, laid at {base:#x}",
                    source=self.source,
                    field="relocations",
                )
            struct.pack_into(
                _FORMATS[word.size], out, word.offset, value & (1 << 8 * word.size) - 1
            )
        return bytes(out)


def _fits(value: int, word: Word) -> bool:
    width = 8 * word.size
    if word.size == 8:
        return True
    if word.kind == _ABSOLUTE:
        return 0 <= value < 1 << width
    return -(1 << width - 1) <= value < 1 << width - 1


def read(data: Buffer, source: str) -> Relocatable:
    """The object.  Raises ImageError for what is none, MissingPart without pyelftools."""
    try:
        from elftools.elf.elffile import ELFFile
    except ImportError as err:
        raise MissingPart("a purgatory needs pyelftools: install tightrope[inspect]") from err
    try:
        return _read(ELFFile(io.BytesIO(bytes(data))), source)
    except ImageError:
        raise
    except Exception as err:  # pyelftools raises construct's own errors on some broken headers
        raise ImageError(
            f"is not a relocatable object: {type(err).__name__}", source=source, field="purgatory"
        ) from err


def _read(elf: ELFFile, source: str) -> Relocatable:
    if elf["e_type"] != "ET_REL" or elf["e_machine"] not in ("EM_X86_64", "EM_386"):
        raise ImageError("is not a relocatable x86 object", source=source, field="purgatory")
    every = list(elf.iter_sections())
    places, filled, size = _places(every)
    if size > _MOST:
        raise ImageError(
            "takes more memory than a purgatory", source=source, field="purgatory", limit=_MOST
        )
    sections = [
        Section(
            name=every[number].name,
            offset=offset,
            size=every[number]["sh_size"],
            data=b"" if every[number]["sh_type"] == "SHT_NOBITS" else every[number].data(),
            writable=bool(every[number]["sh_flags"] & _WRITE),
        )
        for number, offset in places.items()
    ]
    table: Any = elf.get_section_by_name(".symtab")
    symbols = list(table.iter_symbols())
    named: dict[str, int] = {}
    labels: list[tuple[str, int]] = []
    for each in symbols:
        where = _offset(each, places)
        # A global one is the one that a loader asks for; local ones of a name may be several.
        if each.name and where is not None:
            labels.append((each.name, where))
            shared = each["st_info"]["bind"] != "STB_LOCAL"
            if shared or each.name not in named:
                named[each.name] = where
    bits = elf.elfclass
    return Relocatable(
        source=source,
        bits=bits,
        sections=tuple(sections),
        symbols=named,
        labels=tuple(sorted(labels, key=lambda row: row[1])),
        words=tuple(_words(every, places, symbols, bits, sections, source)),
        entry=_entry(elf["e_entry"], every, places),
        filled=filled,
        size=size,
    )


def _places(every: Sequence[Any]) -> tuple[dict[int, int], int, int]:
    """Section number -> offset; bytes that are filled, bytes in all."""
    places: dict[int, int] = {}
    at, bss_alignment = 0, 1
    taking = [(n, each) for n, each in enumerate(every) if each["sh_flags"] & _ALLOC]
    for number, each in taking:
        alignment = max(each["sh_addralign"], 1)
        if each["sh_type"] == "SHT_NOBITS":
            bss_alignment = max(bss_alignment, alignment)
            continue
        at = align_up(at, alignment)
        places[number] = at
        at += each["sh_size"]
    filled = at
    at = align_up(at, bss_alignment)
    for number, each in taking:
        if each["sh_type"] == "SHT_NOBITS":
            at = align_up(at, max(each["sh_addralign"], 1))
            places[number] = at
            at += each["sh_size"]
    return places, filled, at


def _offset(symbol: Any, places: Mapping[int, int]) -> int | None:
    """Where a symbol lies, None for one that is in no part that takes memory."""
    start = places.get(symbol["st_shndx"]) if isinstance(symbol["st_shndx"], int) else None
    return None if start is None else start + int(symbol["st_value"])


def _words(
    every: Sequence[Any],
    places: Mapping[int, int],
    symbols: Sequence[Any],
    bits: int,
    sections: Sequence[Section],
    source: str,
) -> Iterator[Word]:
    data = {each.offset: each.data for each in sections}
    for table in every:
        if table["sh_type"] not in ("SHT_RELA", "SHT_REL") or table["sh_info"] not in places:
            continue
        base = places[table["sh_info"]]
        for each in table.iter_relocations():
            symbol = symbols[each["r_info_sym"]]
            kind, at = each["r_info_type"], int(each["r_offset"])
            known = _KINDS.get((bits, kind))
            absolute = symbol["st_shndx"] == "SHN_ABS"
            target = _offset(symbol, places)
            if kind == 0:
                continue
            if known is None or (target is None and not absolute):
                raise ImageError(
                    f"relocation type {kind} against {symbol.name!r} is none that a loader writes",
                    source=source,
                    field="relocations",
                )
            written, size = known
            own = data[base][at : at + size]
            if len(own) < size:
                raise ImageError(
                    f"a relocation at {at:#x} lies outside its section",
                    source=source,
                    field="relocations",
                )
            addend = (
                each["r_addend"] if each.is_RELA() else int.from_bytes(own, "little", signed=True)
            )
            yield Word(
                offset=base + at,
                kind=written,
                size=size,
                symbol=symbol.name,
                target=target,
                addend=addend + (int(symbol["st_value"]) if absolute else 0),
            )


def _entry(entry: int, every: Sequence[Any], places: Mapping[int, int]) -> int:
    """e_entry counts from the executable section that it lies in (kernel/kexec_file.c)."""
    for number, offset in places.items():
        each = every[number]
        start, size = each["sh_addr"], each["sh_size"]
        if each["sh_flags"] & _EXECUTE and start <= entry < start + size:
            return int(offset + entry - start)
    return 0
