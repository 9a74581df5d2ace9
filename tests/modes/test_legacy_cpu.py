"""What a 32-bit CPU does that a 64-bit one does not: PDPTEs, NX, and its own refusals.

Routines are bytes with the instruction beside them; each runs at V under the old kernel's tables.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.machine.walks import fault_of
from tests.makers.hosts import Home, mode_host
from tests.modes.runs import LEGACY, kernel, request, shared
from tightrope import handover, participants
from tightrope import world as world_room
from tightrope.check import check
from tightrope.deeds.rehearse import build, prepare
from tightrope.memory import Extent
from tightrope.model import Code, Handover, Host, Paging, Registers, Step, Stop, with_code
from tightrope.observe.mmu import WatchedMmu
from tightrope.observe.physical import Ram
from tightrope.sabotage.edits import entry_of, virt
from tightrope.x86.cpu import GENERAL
from tightrope.x86.walk import Access, Refused

PAGE = 4096
HLT = b"\xf4"
PE, PG, WP, NW, CD = 1, 1 << 31, 1 << 16, 1 << 29, 1 << 30
PAE, PCIDE = 1 << 5, 1 << 17
CR0 = 0x8005_0033
PRESENT, WRITABLE, ACCESSED, DIRTY = 1, 2, 0x20, 0x40
OPEN = PRESENT | WRITABLE | ACCESSED | DIRTY
NX = 1 << 63


def mov_eax(value: int) -> bytes:
    """mov $value, %eax"""
    return b"\xb8" + value.to_bytes(4, "little")


def to_cr(number: int) -> bytes:
    """mov %eax, %crN"""
    return b"\x0f\x22" + bytes([0xC0 | number << 3])


def routine(old: Host, data: bytes) -> Handover:
    """A handover whose routine is `data`."""
    code = Code(name="made", data=data, symbols={})
    the_plan = prepare(kernel(), old, request())
    world = world_room.lay(old, code, the_plan.relocation)
    chain = with_code(participants.chain(the_plan, participants.OURS), code)
    return handover.build(the_plan, world, chain)


# -------------------------------------------------------------------------------------- refusals

ROWS: dict[str, tuple[str, bytes, bytes]] = {
    "PG without PE": (
        "CR0.PG needs CR0.PE",
        mov_eax(CR0 & ~PE) + to_cr(0),
        mov_eax(CR0) + to_cr(0),
    ),
    "NW without CD": (
        "CR0.NW needs CR0.CD",
        mov_eax(CR0 | NW) + to_cr(0),
        mov_eax(CR0 | NW | CD) + to_cr(0),
    ),
    "CR4 reserved": ("CR4 bits 0x8000 are reserved", mov_eax(1 << 15) + to_cr(4), b"\x90"),
    "PCIDE": ("CR4.PCIDE needs long mode", b"\x0f\x20\xe0\x0d\0\0\x02\0" + to_cr(4), b"\x90"),
    "LME under paging": (
        "EFER.LME cannot be changed while paging is on",
        # mov $0xc0000080, %ecx; xor %edx, %edx; mov $LME, %eax; wrmsr
        b"\xb9\x80\0\0\xc0\x31\xd2" + mov_eax(1 << 8) + b"\x0f\x30",
        b"\xb9\x80\0\0\xc0\x31\xd2" + mov_eax(0) + b"\x0f\x30",
    ),
}


@pytest.mark.parametrize("paging", LEGACY)
@pytest.mark.parametrize("name", ROWS)
def test_what_a_32_bit_cpu_refuses_is_refused(name: str, paging: Paging) -> None:
    reason, bad, good = ROWS[name]
    fault = fault_of(shared().run(routine(mode_host(paging, nx=False), bad + HLT)))
    assert (fault.vector, fault.error_code, fault.reason) == (13, 0, reason)
    assert not fault.triple
    assert shared().run(routine(mode_host(paging, nx=False), good + HLT)).stop is Stop.HALT


@pytest.mark.parametrize("paging", LEGACY)
def test_an_exception_goes_through_gates_of_eight_bytes(paging: Paging) -> None:
    old = mode_host(paging)
    fault = fault_of(shared().run(routine(old, b"\x0f\x0b")))  # ud2
    assert fault.escalation == (
        f"#UD would be taken to {old.text.virt + 2 * PAGE:#x}, a handler of the old kernel",
    )
    # mov %ecx, %cr3; ud2: idt and stack of the old kernel are not mapped any more.
    gone = fault_of(shared().run(routine(old, b"\x0f\x22\xd9\x0f\x0b")))
    assert gone.triple
    assert "the idt at" in gone.escalation[0]


# ----------------------------------------------------------------------------------- the PDPTEs

ELSEWHERE = 0x20_0000
"""A physical address whose page of the direct map nothing else touches."""


def clears_its_pdpte(tail: bytes) -> Handover:
    """V's own PDPTE is cleared in memory, then another page under it is read, then `tail`."""
    old = mode_host(Paging.PAE, 0xC000_0000)
    direct = old.direct_map.virt
    pgd = old.private.start + 6 * PAGE
    # movl $0, PDPTE 3; mov ELSEWHERE, %eax
    data = b"\xc7\x05" + (direct + pgd + 24).to_bytes(4, "little") + bytes(4)
    data += b"\xa1" + (direct + ELSEWHERE).to_bytes(4, "little")
    built = routine(old, data + tail)
    assert built.registers.cr3 == pgd
    return built


def test_a_pdpte_in_memory_does_not_matter_once_it_is_loaded() -> None:
    run = shared().run(clears_its_pdpte(HLT))
    assert run.stop is Stop.HALT
    read = [each for each in run.translations if each.phys == ELSEWHERE]
    assert [each.access for each in read] == [Access.READ]


def test_the_next_load_of_cr3_loads_the_pdptes() -> None:
    # mov %cr3, %eax; mov %eax, %cr3
    fault = fault_of(shared().run(clears_its_pdpte(b"\x0f\x20\xd8" + to_cr(3) + HLT)))
    assert (fault.vector, fault.access) == (14, Access.FETCH)
    assert fault.reason == "the PDPT entry is not present"


class Tree:
    """A PAE tree by hand (SDM figure 4-5): PDPT at 0x1000, one directory, one table."""

    def __init__(self, pdpte: int = PRESENT) -> None:
        self.ram = Ram((Extent(0, 1 << 20),))
        self.put(0x1000 + 8 * 3, 0x2000 | pdpte)
        self.put(0x2000, 0x3000 | OPEN)
        self.put(0x3000, 0x8000 | OPEN)
        self.put(0x3000 + 8, 0x9000 | OPEN)

    def put(self, at: int, value: int) -> None:
        self.ram.write(at, value.to_bytes(8, "little"))

    def mmu(self, *, cr3: int = 0x1000, efer: int = 0x800) -> WatchedMmu:
        cpu = replace(mode_host(Paging.PAE).cpu, physical_bits=40)
        registers = Registers(
            general=dict.fromkeys(GENERAL, 0),
            rip=0,
            rflags=2,
            cr0=CR0,
            cr2=0,
            cr3=cr3,
            cr4=PAE,
            efer=efer,
            segments={},
            gdt=(0, 0),
            idt=(0, 0),
        )
        return WatchedMmu(self.ram, cpu, registers, {})


HERE = 0xC000_0000


def ask(mmu: WatchedMmu, at: int, access: Access = Access.READ) -> int | Refused:
    return mmu.translate(at, access, instruction=0, step=Step.CALL)


def test_late_edits_of_a_pdpte_wait_for_the_next_load() -> None:
    tree = Tree()
    mmu = tree.mmu()
    assert ask(mmu, HERE) == 0x8000
    tree.put(0x1000 + 8 * 3, 0)
    assert ask(mmu, HERE + PAGE) == 0x9000
    mmu.invlpg(HERE)
    assert ask(mmu, HERE) == 0x8000
    mmu.write_cr3(0x1000)
    assert isinstance(ask(mmu, HERE), Refused)
    # Entries further down are read when they are needed.
    tree.put(0x1000 + 8 * 3, 0x2000 | PRESENT)
    mmu.write_cr3(0x1000)
    tree.put(0x3000, 0xA000 | OPEN)
    assert ask(mmu, HERE) == 0xA000


RESERVED = [1, 2, 5, 6, 7, 8, *range(40, 64)]
"""SDM table 4-8: all but P, PWT, PCD, the ignored bits 11:9 and the address."""


@given(bits=st.sets(st.integers(1, 63).filter(lambda n: not 12 <= n < 40), max_size=5))
def test_a_reserved_bit_of_a_present_pdpte_refuses_the_load(bits: set[int]) -> None:
    value = PRESENT | sum(1 << n for n in bits)
    refusal = Tree(value).mmu(cr3=0x8000).pdpte_refusal(cr3=0x1000)
    assert (refusal is not None) == bool(bits & set(RESERVED))
    # What is not present is not looked at.
    assert Tree(value & ~PRESENT).mmu(cr3=0x8000).pdpte_refusal(cr3=0x1000) is None


def test_nx_is_execute_disable_with_nxe_and_reserved_without() -> None:
    tree = Tree()
    tree.put(0x3000, 0x8000 | OPEN | NX)
    with_nxe, without = tree.mmu(), tree.mmu(efer=0)
    assert ask(with_nxe, HERE) == 0x8000
    fetched = ask(with_nxe, HERE, Access.FETCH)
    assert isinstance(fetched, Refused)
    assert (fetched.vector, fetched.error_code) == (14, 0x11)
    read = ask(without, HERE)
    assert isinstance(read, Refused)
    assert (read.vector, read.error_code) == (14, 9)


@pytest.mark.parametrize(
    ("nx", "rules"),
    [(True, ["table-a-rights", "fetch-executable"]), (False, ["reserved-bits", "fault-reserved"])],
)
def test_nx_on_the_control_page_is_found_as_what_it_is(nx: bool, rules: list[str]) -> None:
    old = mode_host(Paging.PAE, home=Home.FIXMAP, nx=nx)
    built = build(prepare(kernel(), old, request()), design="two-tables")
    broken = entry_of(virt, lambda entry: entry | NX)(built)
    findings = check(broken, shared().run(broken))
    assert [(each.rule, each.step) for each in findings] == [(rule, Step.TABLE_A) for rule in rules]
