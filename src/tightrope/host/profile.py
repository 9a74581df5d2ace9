"""A host description: TOML text in, a checked `Host` out, and the other way round.

    text  --tomllib-->  dict  --schema-->  Document  --host_of-->  Host
    text  <--written--------------------  Document  <--document_of--'

Rules: the one reader and the one writer of host files.  What a field has to be is in `document`,
what holds between fields in `consistency`; whatever is wrong raises `HostError` with the field's
path.  What is written is read back as the same host.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace

from tightrope.errors import HostError
from tightrope.host.consistency import check
from tightrope.host.document import (
    HANDED_OVER,
    CpuTable,
    DirectMapTable,
    Document,
    FactTable,
    MappingTable,
    MemoryTable,
    NamedTable,
    PlaceTable,
    RegistersTable,
    TextTable,
)
from tightrope.host.efi import efi_of, table_of
from tightrope.host.schema import (
    At,
    Comments,
    declares,
    either,
    json_schema,
    read_table,
    write_table,
)
from tightrope.memory import Extent, MemoryMap, Phys, Region, Virt
from tightrope.model import (
    Basis,
    Cpu,
    DirectMap,
    Fact,
    Host,
    KernelText,
    LowMapping,
    Named,
)
from tightrope.model.modes import MODES, text_page_size
from tightrope.x86 import cpu as x86

EVERYTHING_MAPPED = 1 << 52
AS_ANY_GUEST = "tables and memory of a {kind} guest are as in any other guest"
SHARING = "the guest's own kernel: no file tells how it shares"
"""`direct_map.size` of a kernel that maps all of RAM."""


def read(text: str, source: str) -> Host:
    """A `Host` from TOML text; `source` names the file in errors.  Raises HostError."""
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as err:
        # A plain ValueError is Python's own limit on the digits of a number.
        raise HostError(f"not TOML: {err}", source=source) from err
    return host_of(read_table(Document, table, At(source)), source)


def host_of(document: Document, source: str) -> Host:
    """The host that a document describes, checked.  Raises HostError."""
    host = Host(
        source=source,
        paging=document.paging,
        cpu=Cpu(**asdict(document.cpu), guest=document.confidential),
        **asdict(document.registers),
        memory=_memory_map(document, source),
        text=KernelText(
            virt=Virt(document.text.virt), phys=Phys(document.text.phys), size=document.text.size
        ),
        relocation=None if document.relocation is None else Virt(document.relocation),
        direct_map=DirectMap(
            virt=Virt(document.direct_map.virt),
            page_size=document.direct_map.page_size,
            size=document.direct_map.size or EVERYTHING_MAPPED,
        ),
        private=document.private.extent,
        busy=_named(each for each in document.busy if not _handed_over(each)),
        crash_region=None if document.crash_region is None else document.crash_region.extent,
        firmware=_named(document.firmware),
        rsdp=None if document.rsdp is None else Phys(document.rsdp),
        low_mappings=tuple(
            LowMapping(
                virt=Virt(each.virt),
                phys=Phys(each.phys),
                size=each.size,
                is_global=each.global_,
            )
            for each in document.mapping
        ),
        crash_notes=_named(document.crash_note),
        crash_memory=_named(document.crash_memory),
        preserved=_named([*document.preserved, *filter(_handed_over, document.busy)]),
        screen=bytes.fromhex(document.screen_info or ""),
        efi=None if document.efi is None else efi_of(document.efi),
        facts=tuple(_facts(document, At(source, "facts"))),
    )
    if document.xen is not None:
        # Frames of a p2m are numpy's; nobody captures a machine with this table.
        from tightrope.host.xen.profile import xen_of

        host = replace(host, xen=xen_of(document.xen, host))
    check(host)
    return host


def _memory_map(document: Document, source: str) -> MemoryMap:
    regions: list[Region] = []
    beyond = 1 << document.cpu.physical_bits
    for number, row in enumerate(document.memory):
        at, extent = At(source, f"memory[{number}]"), Extent.sized(row.start, row.size)
        if regions and extent.start < regions[-1].extent.end:
            (at / "start").refuse(f"{row.start:#x} is below the end of the entry before it")
        if extent.end > beyond:
            (at / "size").refuse(f"{extent} is beyond cpu.physical_bits", beyond)
        regions.append(Region(extent, row.kind))
    return MemoryMap(tuple(regions))


def _named(rows: Iterable[NamedTable]) -> tuple[Named, ...]:
    return tuple(Named(extent=Extent.sized(e.start, e.size), what=e.what) for e in rows)


def _handed_over(row: NamedTable) -> bool:
    return row.what.startswith(HANDED_OVER)


def _facts(document: Document, at: At) -> Iterator[Fact]:
    for key, row in document.facts.items():
        if not declares(Document, key):
            (at / key).refuse("a host file has no such field")
        [(basis, source)] = [
            (basis, said) for basis in Basis if (said := getattr(row, basis.value)) is not None
        ]
        yield Fact(field=key, basis=basis, source=source, settle=row.settle or "")
    if document.confidential is not None and "confidential" not in document.facts:
        # Whoever wrote it knows that it is one; how such a guest shares its memory no field can
        # say.
        yield Fact(
            field="confidential",
            basis=Basis.ASSUMED,
            source=AS_ANY_GUEST.format(kind=document.confidential.value),
            settle=SHARING,
        )


# ---------------------------------------------------------------------------------------- writing


def write(host: Host, title: Iterable[str]) -> str:
    """The host as a commented TOML document that `read` takes; `title` are the lines at its
    head."""
    return written(document_of(host), title)


def written(
    document: Document,
    title: Iterable[str],
    *,
    said: Comments | None = None,
    samples: Document | None = None,
) -> str:
    """A document as commented TOML.

    A field's comment is what `said` has, or where its fact comes from, or what the declaration
    says.  What the document lacks and `samples` has is written as a comment.
    """
    head = [f"# {line}".rstrip() for line in title]
    body = write_table(document, "", _comments(document, said or Comments()), samples)
    return "\n".join([*head, *_one_gap(body)]) + "\n"


def _one_gap(lines: Iterable[str]) -> Iterator[str]:
    """Without a second empty line behind the first, and with one at the start."""
    before = "x"
    for line in ("", *lines):
        if line or before:
            yield line
        before = line


def document_of(host: Host) -> Document:
    """The host as its file has it."""
    xen = None
    if host.xen is not None:
        from tightrope.host.xen.profile import table_of as xen_table_of

        xen = xen_table_of(host.xen)
    size = host.direct_map.size
    return Document(
        paging=host.paging,
        relocation=host.relocation,
        rsdp=host.rsdp,
        cpu=CpuTable(**{key: value for key, value in asdict(host.cpu).items() if key != "guest"}),
        registers=RegistersTable(cr0=host.cr0, cr4=host.cr4, efer=host.efer),
        text=TextTable(**asdict(host.text)),
        direct_map=DirectMapTable(
            virt=host.direct_map.virt,
            page_size=host.direct_map.page_size,
            size=None if size == EVERYTHING_MAPPED else size,
        ),
        private=_place(host.private),
        crash_region=None if host.crash_region is None else _place(host.crash_region),
        crash_note=_rows(host.crash_notes),
        crash_memory=_rows(host.crash_memory),
        preserved=_rows(host.preserved),
        confidential=host.confidential,
        screen_info=host.screen.hex() or None,
        memory=tuple(
            MemoryTable(start=each.extent.start, size=each.extent.size, kind=each.kind)
            for each in host.memory
        ),
        busy=_rows(host.busy),
        firmware=_rows(host.firmware),
        mapping=tuple(
            MappingTable(virt=e.virt, phys=e.phys, size=e.size, global_=e.is_global)
            for e in host.low_mappings
        ),
        efi=None if host.efi is None else table_of(host.efi),
        xen=xen,
        facts={
            each.field: FactTable(**{each.basis.value: each.source}, settle=each.settle or None)
            for each in host.facts
        },
    )


def _place(extent: Extent) -> PlaceTable:
    return PlaceTable(start=extent.start, size=extent.size)


def _rows(named: Iterable[Named]) -> tuple[NamedTable, ...]:
    return tuple(NamedTable(start=e.extent.start, size=e.extent.size, what=e.what) for e in named)


def _comments(document: Document, given: Comments) -> Comments:
    """What is true of this document and not of every one."""
    mode, registers = MODES[document.paging], document.registers
    large = text_page_size(document.paging, pse=document.cpu.pse)
    sizes = mode.format.page_sizes(gbpages=document.cpu.gbpages)
    pages = f"{large >> 20} MiB" if large >> 20 else "4 KiB"
    beside = {
        "registers.cr0": _bits(registers.cr0, x86.CR0_NAMES),
        "registers.cr4": _bits(registers.cr4, x86.CR4_NAMES),
        "registers.efer": _bits(registers.efer, x86.EFER_NAMES),
        "text": f"the old kernel's image: {pages} global pages, {pages} aligned",
        "direct_map": "all RAM at virt + physical address"
        if document.paging.long_mode
        else "RAM below size, which is lowmem, at virt + physical address",
        "direct_map.page_size": either(f"{size:#_x}" for size in sorted(sizes)),
    }
    for field, each in document.facts.items():
        beside[field] = (
            f"assumed: {each.assumed}" if each.assumed else each.read or each.derived or ""
        )
    above = {
        "paging": "The page-table format that the old kernel runs on:"
        f' "{document.paging.value}" ({len(mode.format.levels)} levels).'
    }
    return Comments(beside=beside | dict(given.beside), above=above | dict(given.above))


def _bits(value: int, names: Mapping[str, int]) -> str:
    """The names of the bits that are set, the highest first."""
    shown = [name for name, mask in names.items() if value & mask]
    return " ".join(sorted(shown, key=lambda name: -names[name])) or "no bit is set"


def schema() -> dict[str, object]:
    """A host file as JSON Schema (draft 2020-12), for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A host of Tightrope",
        **json_schema(Document),
    }
