"""The hypervisor's world: its tables, dom0's, the fixmaps, the gdt, and what the call hands over."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from tests.rehearse.runs import shipped_kernel
from tests.xen.runs import (
    KINDS,
    NEW_WAYS,
    OLD_WAYS,
    WAYS,
    Way,
    handed_over,
    hypervisor,
    identifier,
    request,
    walk,
)
from tightrope.deeds.rehearse import build
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model import Handover, Paging, World, XenCrash
from tightrope.plan import prepare
from tightrope.x86.survey import Mappings, survey
from tightrope.x86.walk import Access, Mmu, Translated
from tightrope.x86.walk import walk as walk_tables

SMEP, SMAP = 1 << 20, 1 << 21
"""Off for a look at a guest's pages, which the hypervisor itself must not touch by accident."""


def built(way: Way, kind: XenCrash | None = None) -> Handover:
    plan = prepare(shipped_kernel(), hypervisor(way), request(way, kind))
    return build(plan, design="two-tables")


def mmu(world: World, root: int) -> Mmu:
    host, registers = world.host, world.registers
    return Mmu(
        cr0=registers.cr0,
        cr3=root,
        cr4=registers.cr4 & ~(SMEP | SMAP),
        efer=registers.efer,
        physical_bits=host.cpu.physical_bits,
        gbpages=host.cpu.gbpages,
    )


def mapped(world: World, root: int) -> Mappings:
    return survey(world.tables.get, mmu(world, root))


def leads(world: World, virt: int, access: Access = Access.READ) -> Translated:
    def read(phys: int, size: int) -> int | None:
        page = world.tables.get(phys & -PAGE_SIZE)
        at = phys % PAGE_SIZE
        return None if page is None else int.from_bytes(page[at : at + size], "little")

    got = walk_tables(read, mmu(world, world.registers.cr3), virt, access)
    assert isinstance(got, Translated), got
    return got


@pytest.mark.parametrize("way", WAYS, ids=identifier)
def test_a_hypercall_runs_on_dom0s_tables_and_a_crash_of_xen_on_its_own(way: Way) -> None:
    dom0 = hypervisor(way).xen
    assert dom0 is not None
    asked, panicked, crashed = (built(way, kind).world for kind in KINDS)
    private = hypervisor(way).private
    for world in (asked, panicked):
        assert world.pgd == world.registers.cr3
        assert world.pgd not in private
        assert world.pgd >> 12 in dom0.dom0.p2m.owned
    assert crashed.pgd == crashed.registers.cr3
    assert crashed.pgd in private


@pytest.mark.parametrize("way", WAYS, ids=identifier)
def test_dom0s_kernel_lies_where_its_p2m_has_it_and_nowhere_in_order(way: Way) -> None:
    world = built(way).world
    xen = hypervisor(way).xen
    assert xen is not None
    dom0 = xen.dom0
    pages = dom0.text_size // PAGE_SIZE
    seen = [leads(world, dom0.text + n * PAGE_SIZE).phys >> 12 for n in range(pages)]
    first = dom0.text_start >> 12
    assert seen == dom0.p2m.frames[first : first + pages].tolist()
    assert 1 not in np.abs(np.diff(seen))
    assert leads(world, dom0.text).user == (dom0.bits == 64)


@pytest.mark.parametrize("way", WAYS, ids=identifier)
def test_both_roots_map_the_hypervisor_alike_and_dom0_is_only_in_its_own(way: Way) -> None:
    """Only dom0's kernel is in the difference, whatever else the hypervisor maps."""
    asked, crashed = built(way).world, built(way, XenCrash.HYPERVISOR).world
    xen = hypervisor(way).xen
    assert xen is not None
    text = Extent.sized(xen.dom0.text, xen.dom0.text_size)

    def rows(world: World) -> set[tuple[int, int, int]]:
        got = mapped(world, world.pgd)
        columns = (got.virt.tolist(), got.phys.tolist(), got.size.tolist())
        fixmaps = Extent.sized(xen.fixmap - 16 * PAGE_SIZE, 17 * PAGE_SIZE)
        return {row for row in zip(*columns, strict=True) if row[0] not in fixmaps}

    ours, theirs = rows(asked), rows(crashed)
    assert theirs < ours
    assert all(virt in text for virt, _phys, _size in ours - theirs)


@pytest.mark.parametrize("way", OLD_WAYS, ids=identifier)
@pytest.mark.parametrize("kind", KINDS, ids=identifier)
def test_a_fixmap_leads_to_each_page_of_the_list(way: Way, kind: XenCrash | None) -> None:
    handover = built(way, kind)
    load = handed_over(handover.intent)
    assert len(load.pages) == {Paging.I386: 4, Paging.PAE: 6, Paging.X86_64: 9}[way[0]]
    for page in load.pages:
        if page.fixmap is None:
            assert page.slot == 16
            continue
        for access in (Access.WRITE, Access.FETCH):
            assert leads(handover.world, page.fixmap, access).phys == page.machine
    assert handover.registers.rip == load.pages[0].fixmap == handover.intent.relocation


@pytest.mark.parametrize("way", OLD_WAYS, ids=identifier)
def test_page_list_is_handed_over_as_the_header_says(way: Way) -> None:
    """Read by hand, as a C function would: in registers, or from its stack."""
    handover = built(way)
    plan, world, general = handover.plan, handover.world, handover.registers.general

    def at(virt: int, words: int, code: str) -> tuple[int, ...]:
        phys = leads(world, virt).phys
        piece = next(p for p in reversed(world.pieces) if phys in p.extent)
        return struct.unpack_from(f"<{words}{code}", piece.data, phys - piece.phys)

    if way[0] is Paging.X86_64:
        head, page_list, start, code = general["rdi"], general["rsi"], general["rdx"], "Q"
    else:
        back, head, page_list, start, has_pae = at(general["rsp"], 5, "I")
        assert back in Extent.sized(plan.host.text.virt, plan.host.text.size)
        assert has_pae == (way[0] is Paging.PAE)
        code = "I"
    *slots, indirection, entry = at(page_list, 19, code)
    assert (head, start) == (indirection, entry) == (plan.head, plan.entry)
    wanted = [0] * 17
    for page in handed_over(plan).pages:
        wanted[page.slot] = page.machine
        if page.fixmap is not None:
            wanted[page.slot + 1] = page.fixmap
    assert slots == wanted
    assert slots[0] == plan.control_page
    assert slots[2] == handover.page_table_a.root
    if handover.page_table_b is not None:
        assert slots[16] == handover.page_table_b.root


@pytest.mark.parametrize("way", NEW_WAYS, ids=identifier)
def test_v2_is_called_in_the_hypervisors_text_with_machine_addresses(way: Way) -> None:
    handover = built(way)
    general, plan = handover.registers.general, handover.plan
    assert handover.registers.rip in Extent.sized(plan.host.text.virt, plan.host.text.size)
    assert general["rdi"] == plan.control_page < 1 << 32
    assert general["rsi"] == handover.page_table_a.root
    assert general["rdx"] == plan.head & ~0xFFF
    assert general["rdx"] in plan.list_pages
    assert general["rcx"] == plan.entry
    assert general["r8"] == (way[2] == 32)


@pytest.mark.parametrize("way", WAYS, ids=identifier)
def test_the_gdt_has_the_hypervisors_selectors_behind_its_guests(way: Way) -> None:
    registers = built(way).registers
    assert registers.segments["cs"] == 0xE008
    assert registers.segments["ss"] == (0 if way[0] is Paging.X86_64 else 0xE010)
    assert registers.gdt[1] > 0xE010


def notes(data: bytes) -> list[tuple[str, int, bytes]]:
    """Elf_Note by Elf_Note, up to the header of zeros."""
    out, at = [], 0
    while at + 12 <= len(data):
        names, size, kind = struct.unpack_from("<III", data, at)
        if not names:
            break
        name = data[at + 12 : at + 12 + names].rstrip(b"\0").decode()
        start = at + 12 + -(-names // 4) * 4
        out.append((name, kind, data[start : start + size]))
        at = start + -(-size // 4) * 4
    return out


@pytest.mark.parametrize("way", WAYS, ids=identifier)
@pytest.mark.parametrize("kind", XenCrash, ids=identifier)
def test_the_dump_has_xens_own_notes(way: Way, kind: XenCrash) -> None:
    """What the core header points at, as the run left it: registers, control registers, who Xen is."""
    verdict = walk(way, kind)
    plan = verdict.handover.plan
    [header] = [each for each in plan.segments if each.name == "core header"]
    data = bytes(verdict.run.memory.read(header.destination))
    wide = data[4] == 2
    assert wide == (way[0] is not Paging.I386)
    offset, size, places = (64, 56, (8, 32)) if wide else (52, 32, (4, 16))
    count = struct.unpack_from("<H", data, 56 if wide else 44)[0]
    found = []
    for number in range(count):
        row = data[offset + number * size :][:size]
        if struct.unpack_from("<I", row)[0] == 4:
            start, length = (
                struct.unpack_from("<Q" if wide else "<I", row, at)[0] for at in places
            )
            found += notes(bytes(verdict.run.memory.read(Extent.sized(start, length))))
    assert [(name, number) for name, number, _data in found] == [
        ("CORE", 1),
        ("Xen", 0x1000002),
        ("Xen", 0x1000001),
        ("VMCOREINFO_XEN", 0),
    ]
    code = "Q" if way[0] is Paging.X86_64 else "I"
    cr0, _cr2, cr3, cr4 = struct.unpack(f"<4{code}", found[1][2])
    registers = verdict.handover.registers
    assert (cr0, cr3, cr4) == (registers.cr0, registers.cr3, registers.cr4)
    info = struct.unpack(f"<10{code}", found[2][2])
    xen = plan.host.xen
    assert xen is not None
    assert info[:2] == xen.version
    assert info[8] == plan.host.text.phys
    assert b"SYMBOL(pgd_l" in found[3][2]
