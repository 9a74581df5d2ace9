"""Where a walk ends in the emulator when it does not end well, and what it says about it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.machine.walks import (
    GIB,
    HLT,
    INT3,
    JMP_RAX,
    LOOP_FOREVER,
    MIB,
    NOP,
    PAGE,
    PUSH_RAX,
    RET,
    STACK_ON_CONTROL_PAGE,
    TABLE_A_TO_CR3,
    TO_CR4,
    UD2,
    built,
    fault_of,
    kernel,
    made,
    moving,
    old_kernel,
    plan,
    put,
    sound,
    to_identity,
    with_registers,
)
from tests.makers.hosts import make_host, small_host, table_b
from tests.stand_ins.played import Fake
from tightrope import routines
from tightrope.errors import MachineError
from tightrope.machine.port import first_line, no_progress
from tightrope.machine.unicorn import Emulator
from tightrope.memory import Extent, Phys, Virt
from tightrope.model import Code, Handover, LowMapping, Piece, PieceRole, Run, Step, Stop
from tightrope.observe.decode import Operation
from tightrope.observe.mmu import WatchedMmu
from tightrope.observe.watch import Watch
from tightrope.x86.walk import Access

EMULATOR = Emulator()
V = plan().relocation


def run(code: bytes) -> Run:
    return EMULATOR.run(made(code))


# ------------------------------------------------------------------------------------- how it ends


@pytest.mark.parametrize(
    ("code", "vector", "text"),
    [
        (NOP + UD2, 6, "ud2"),
        (NOP + b"\x06", 6, "(bad)"),
        (NOP + INT3, 3, "int3"),
        (NOP + b"\xcd\x21", 0x21, "int $0x21"),
    ],
)
def test_an_exception_names_its_own_instruction(code: bytes, vector: int, text: str) -> None:
    fault = fault_of(run(code + HLT))
    assert (fault.vector, fault.rip, fault.text, fault.instruction) == (vector, V + 1, text, 1)
    assert fault.error_code is None
    assert fault.access is None
    assert fault.step is Step.CALL


def test_a_division_by_zero_is_the_cpu_s_own_word() -> None:
    fault = fault_of(run(put("rax", 0) + b"\xf7\xf0" + HLT))
    assert (fault.vector, fault.rip) == (0, V + 10)
    assert fault.reason == "raised by the CPU while it executed the instruction"


def test_a_halt_is_a_halt() -> None:
    got = run(NOP + HLT)
    assert (got.stop, got.fault, got.instructions) == (Stop.HALT, None, 2)
    assert got.trace.tolist() == [V, V + 1]
    assert [each.virt & -PAGE for each in got.translations] == [V]


def test_a_halt_after_the_switch_is_one_too() -> None:
    got = run(TABLE_A_TO_CR3 + HLT)
    assert (got.stop, got.fault) == (Stop.HALT, None)


@pytest.mark.parametrize("limit", [1, 10, 1000])
def test_a_walk_in_circles_ends_at_the_limit(limit: int) -> None:
    got = Emulator(instruction_limit=limit).run(made(NOP + LOOP_FOREVER))
    assert (got.stop, got.fault) == (Stop.LIMIT, None)
    assert got.instructions == limit + 1


def test_a_walk_that_needs_just_the_limit_is_not_cut() -> None:
    handover = sound(moving())
    needs = Emulator().run(handover).instructions
    assert Emulator(instruction_limit=needs).run(handover).stop is Stop.ENTRY
    assert Emulator(instruction_limit=needs - 1).run(handover).stop is Stop.LIMIT


# ------------------------------------------------------------------------------------ page faults


def test_v_left_out_of_page_table_a_faults_at_the_fetch_behind_the_switch() -> None:
    handover = made(TABLE_A_TO_CR3 + HLT)
    handover = with_registers(handover, general={"rcx": 9 * MIB})
    fault = fault_of(Emulator().run(handover))
    assert (fault.vector, fault.access, fault.rip) == (14, Access.FETCH, V + 3)
    assert fault.address == V + 3
    assert fault.error_code == 0x10
    assert fault.step is Step.TABLE_A
    assert fault.visits[-1].level == "PML4"


@pytest.mark.parametrize(
    ("code", "access", "error_code"),
    [(b"\x48\x8b\x03", Access.READ, 0), (b"\x48\x89\x03", Access.WRITE, 2)],
)
def test_the_exact_address_of_an_access_is_told(
    code: bytes, access: Access, error_code: int
) -> None:
    fault = fault_of(run(put("rbx", 0x1234_5678) + code + HLT))
    assert (fault.vector, fault.access, fault.error_code) == (14, access, error_code)
    assert (fault.address, fault.rip) == (0x1234_5678, V + 10)


def test_of_an_access_across_two_pages_the_missing_one_is_told() -> None:
    direct = old_kernel().direct_map.virt
    last = direct + 32 * MIB - 4
    fault = fault_of(run(put("rbx", last) + b"\x48\x8b\x03" + HLT))
    assert fault.address == direct + 32 * MIB


def test_a_write_to_read_only_text_is_refused_with_that_reason() -> None:
    fault = fault_of(run(put("rbx", V) + b"\x48\x89\x03" + HLT))
    assert (fault.address, fault.error_code) == (V, 3)
    assert fault.reason == "the page is read-only"


def test_a_non_canonical_address_is_no_page_fault() -> None:
    fault = fault_of(run(put("rbx", 1 << 50) + b"\x48\x8b\x03" + HLT))
    assert (fault.vector, fault.error_code, fault.address) == (13, 0, None)
    assert "not canonical" in fault.reason


def test_a_jump_to_nowhere_faults_there() -> None:
    fault = fault_of(run(put("rax", 0x40_0123) + JMP_RAX))
    assert (fault.vector, fault.access) == (14, Access.FETCH)
    assert fault.address == fault.rip == 0x40_0123


def test_the_stack_of_the_old_kernel_is_gone_after_the_switch() -> None:
    handover = made(TABLE_A_TO_CR3 + PUSH_RAX + HLT)
    fault = fault_of(EMULATOR.run(handover))
    assert (fault.access, fault.rip) == (Access.WRITE, V + 3)
    assert fault.address == handover.registers.general["rsp"] - 8


def test_a_push_below_the_control_page_faults() -> None:
    # lea (%rsi), %rsp instead of its end: the stack has no room at all.
    handover = made(TABLE_A_TO_CR3 + b"\x48\x8d\x26" + PUSH_RAX + HLT)
    fault = fault_of(EMULATOR.run(handover))
    assert (fault.vector, fault.access, fault.rip) == (14, Access.WRITE, V + 6)
    assert fault.address == handover.intent.control_page - 8
    assert fault.step is Step.STATE


def test_a_push_on_the_control_page_is_stored_there() -> None:
    handover = made(TABLE_A_TO_CR3 + STACK_ON_CONTROL_PAGE + put("rax", 0x77) + PUSH_RAX + HLT)
    got = EMULATOR.run(handover)
    top = handover.intent.control_page + PAGE
    assert got.stores.tolist() == [[3, Step.STATE, top - 8, 8]]
    assert bytes(got.memory.read(Extent(top - 8, top))) == (0x77).to_bytes(8, "little")


def test_a_word_above_the_stack_is_the_next_page_and_not_there() -> None:
    """Linux 6.14 to 6.16-rc6 left no word above the return address, and purgatories read it.

    With the stack's top at the page's end, `0(%rsp)` at the entry is the first word of whatever
    page lies behind the control page: under page_table_a it faults.
    """
    # lea PAGE(%rsi), %rsp; push %rdx; pop %rdx; mov (%rsp), %rax
    code = TABLE_A_TO_CR3 + STACK_ON_CONTROL_PAGE + b"\x52\x5a" + b"\x48\x8b\x04\x24" + HLT
    handover = made(code)
    fault = fault_of(EMULATOR.run(handover))
    assert (fault.access, fault.rip) == (Access.READ, V + 12)
    assert fault.address == handover.intent.control_page + PAGE


def test_with_a_word_pushed_first_it_is_there_and_zero() -> None:
    # As before, with push $0 ahead of push %rdx.
    code = TABLE_A_TO_CR3 + STACK_ON_CONTROL_PAGE + b"\x6a\x00\x52\x5a" + b"\x48\x8b\x04\x24" + HLT
    got = EMULATOR.run(made(code))
    assert got.stop is Stop.HALT
    assert got.registers.general["rax"] == 0


# ------------------------------------------------------------------------------------------- holes


def hole_at_identity(access: bytes) -> Handover:
    """At P under page_table_b, with a leaf that points beyond the RAM."""
    the_plan = plan()
    code = (
        to_identity(the_plan.host)
        + b"\x41\x0f\x22\xd8"  # mov %r8, %cr3
        + put("rbx", the_plan.segments[0].destination.start + 0x123)
        + access
        + HLT
    )
    handover = made(code, the_plan)
    table = table_b(handover)
    pages = {frame: bytearray(page) for frame, page in table.pages.items()}
    start = the_plan.segments[0].destination.start
    at = table.root
    for shift in (39, 30, 21):
        word = int.from_bytes(pages[at][8 * (start >> shift & 511) :][:8], "little")
        if shift == 21 and word & 0x80:
            break
        at = Phys(word & 0x000F_FFFF_FFFF_F000)
    slot = 8 * (start >> 12 & 511)
    entry = int.from_bytes(pages[at][slot : slot + 8], "little")
    pages[at][slot : slot + 8] = (entry & 0xFFF | 40 * MIB).to_bytes(8, "little")
    tables = replace(table, pages={frame: memoryview(bytes(page)) for frame, page in pages.items()})
    return replace(handover, page_table_b=tables)


@pytest.mark.parametrize("access", [b"\x48\x8b\x03", b"\x48\x89\x03"])
def test_an_access_to_a_physical_hole_is_told_with_the_physical_address(access: bytes) -> None:
    handover = hole_at_identity(access)
    fault = fault_of(EMULATOR.run(handover))
    assert fault.vector == 18
    assert fault.reason == f"no memory answers at physical {40 * MIB + 0x123:#x}"
    assert fault.text.startswith("mov %rax,(%rbx)" if access[1] == 0x89 else "mov (%rbx),%rax")
    assert handover.intent.control_page <= fault.rip < handover.intent.control_page + PAGE


def test_a_string_move_into_a_hole_is_told_too() -> None:
    # mov %rbx, %rdi; mov %rdx, %rsi; mov $8, %ecx; rep movsb
    handover = hole_at_identity(b"\x48\x89\xdf\x48\x89\xd6\xb9\x08\x00\x00\x00\xf3\xa4")
    fault = fault_of(EMULATOR.run(handover))
    assert fault.reason == f"no memory answers at physical {40 * MIB + 0x123:#x}"


def test_a_jump_into_a_hole_ends_the_walk() -> None:
    handover = hole_at_identity(b"\xff\xe3")
    fault = fault_of(EMULATOR.run(handover))
    assert f"no memory answers at physical {40 * MIB + 0x123:#x}" in fault.reason


# ---------------------------------------------------------------------------------- own code changes


def test_code_that_overwrites_its_own_next_instruction_is_decoded_anew() -> None:
    """At P: movb $0xf4, over(%rip); over: nop; ud2 - the nop has become a hlt."""
    the_plan = plan()
    head = to_identity(the_plan.host)
    code = head + b"\xc6\x05\x00\x00\x00\x00\xf4" + NOP + UD2
    got = EMULATOR.run(made(code, the_plan))
    at = the_plan.control_page + len(head)
    assert got.stop is Stop.HALT
    assert got.texts[at + 7] == "hlt"
    assert got.texts[at].startswith("movb $0xF4")


def test_code_that_runs_is_overwritten_and_runs_again_is_decoded_anew() -> None:
    """At P: here: nop; movb $0x0f, here; movb $0x0b, here+1; jmp here - the nop has become ud2."""
    the_plan = plan()
    head = to_identity(the_plan.host)
    code = (
        head
        + NOP
        + NOP
        + b"\xc6\x05"
        + (-9 % (1 << 32)).to_bytes(4, "little")
        + b"\x0f"
        + b"\xc6\x05"
        + (-15 % (1 << 32)).to_bytes(4, "little")
        + b"\x0b"
        + b"\xeb\xee"
    )
    fault = fault_of(EMULATOR.run(made(code, the_plan)))
    assert (fault.vector, fault.text) == (6, "ud2")
    assert fault.rip == the_plan.control_page + len(head)


def test_code_that_is_overwritten_by_a_string_move_is_decoded_anew() -> None:
    """At P: rep stosb of hlt over the instructions behind it."""
    the_plan = plan()
    head = to_identity(the_plan.host)
    # lea 2+5+2(%rip), %rdi -> what lies behind rep stosb; mov $0xf4, %al; mov $3, %ecx; rep stosb
    code = head + b"\x48\x8d\x3d\x09\x00\x00\x00" + b"\xb0\xf4" + b"\xb9\x03\x00\x00\x00"
    code += b"\xf3\xaa" + UD2 + NOP
    got = EMULATOR.run(made(code, the_plan))
    assert got.stop is Stop.HALT
    assert got.texts[the_plan.control_page + len(code) - 3] == "hlt"


def test_a_routine_that_ran_is_another_one_after_a_string_move_over_it() -> None:
    """Copy `nop; jmp *%rbx` to a page of its own and run it; put hlt over the nop and run it again."""
    the_plan = plan()
    there = the_plan.segments[1].destination.start
    before = to_identity(the_plan.host) + b"\x41\x0f\x22\xd8" + put("rdi", there)
    copy = put("rcx", 3) + b"\xf3\xa4" + put("rax", there)  # rep movsb
    again = put("rdi", there) + put("rcx", 1) + b"\xb0\xf4\xf3\xaa" + put("rax", there) + JMP_RAX
    # lea routine(%rip), %rsi and lea back(%rip), %rbx
    to_back = (2).to_bytes(4, "little")
    to_routine = (len(copy) + 7 + 2 + len(again)).to_bytes(4, "little")
    code = before + b"\x48\x8d\x35" + to_routine + copy + b"\x48\x8d\x1d" + to_back + JMP_RAX
    code += again + NOP + b"\xff\xe3"
    got = Emulator(instruction_limit=200).run(made(code, the_plan))
    assert got.trace.tolist().count(there) == 2
    assert (got.stop, got.fault) == (Stop.HALT, None)
    assert got.texts[there] == "nop"  # as it was when first executed


# -------------------------------------------------------------------- each right is asked for itself


def test_a_page_that_was_read_is_not_therefore_writable() -> None:
    there = V + PAGE  # text that nobody has fetched
    fault = fault_of(run(put("rbx", there) + b"\x48\x8b\x03\x48\x89\x03" + HLT))
    assert (fault.address, fault.error_code, fault.rip) == (there, 3, V + 13)


def test_a_page_that_was_written_is_not_therefore_executable() -> None:
    there = old_kernel().direct_map.virt + 9 * MIB
    fault = fault_of(run(put("rax", there) + b"\x48\x89\x00" + JMP_RAX))
    assert (fault.address, fault.access, fault.reason) == (
        there,
        Access.FETCH,
        "the page is not executable (NX)",
    )


def test_without_nxe_the_nx_bit_is_reserved() -> None:
    there = old_kernel().direct_map.virt + 9 * MIB
    # wrmsr of EFER without NXE, then a read through an entry with NX.
    code = put("rcx", 0xC000_0080) + put("rax", 0x501) + put("rdx", 0) + b"\x0f\x30"
    fault = fault_of(run(code + put("rbx", there) + b"\x48\x8b\x03" + HLT))
    assert (fault.vector, fault.error_code, fault.address) == (14, 9, there)


def test_a_stale_translation_is_that_of_the_tables_before_somebody_wrote_into_them() -> None:
    """The old kernel had a global mapping at P; its pgd was overwritten before the walk."""
    the_plan = plan()
    old = the_plan.host
    mapping = LowMapping(
        virt=Virt(the_plan.control_page), phys=old.text.phys, size=PAGE, is_global=True
    )
    the_plan = replace(the_plan, host=replace(old, low_mappings=(mapping,)))
    handover = made(TABLE_A_TO_CR3 + STACK_ON_CONTROL_PAGE + PUSH_RAX + HLT, the_plan)
    pgd = handover.world.pgd
    empty = bytes(PAGE // 2) + bytes(handover.world.tables[pgd])[PAGE // 2 :]
    gone = Piece(phys=pgd, data=empty, role=PieceRole.OTHER, which="an empty low half")
    got = Emulator().run(replace(handover, extra=(*handover.extra, gone)))
    assert got.stop is Stop.HALT
    (push,) = [each for each in got.translations if each.access is Access.WRITE]
    assert [each.phys & -PAGE for each in push.stale] == [old.text.phys]


# -------------------------------------------------------------------------------------- what is seen


def test_invlpg_reaches_the_worst_case_tlb(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = WatchedMmu.invlpg

    def invlpg(mmu: WatchedMmu, virt: int) -> None:
        seen.append(virt)
        real(mmu, virt)

    monkeypatch.setattr(WatchedMmu, "invlpg", invlpg)
    assert run(put("rbx", 0x1234_5678) + b"\x0f\x01\x3b" + HLT).stop is Stop.HALT
    assert seen == [0x1234_5678]


def test_debug_registers_and_flags_are_recorded() -> None:
    got = run(put("rax", 0x400) + b"\x0f\x23\xf8" + b"\xfa" + b"\xfb" + HLT)
    rows = [(each.register, each.before, each.after) for each in got.register_writes]
    assert rows == [("dr7", 0, 0x400), ("rflags", 0x202, 2), ("rflags", 2, 0x202)]


def test_a_write_of_rsp_is_recorded_with_what_it_became() -> None:
    got = run(b"\x48\x89\xf4" + NOP + HLT)  # mov %rsi, %rsp
    (write,) = got.register_writes
    handover = made(HLT)
    assert (write.register, write.before) == ("rsp", handover.registers.general["rsp"])
    assert write.after == handover.registers.general["rsi"]


def test_loads_are_recorded_with_physical_addresses() -> None:
    handover = made(b"\x58" + HLT)  # pop %rax
    got = EMULATOR.run(handover)
    direct = handover.host.direct_map.virt
    rsp = handover.registers.general["rsp"]
    assert got.loads.tolist() == [[0, Step.CALL, rsp - direct, 8]]
    assert got.registers.general["rax"] == old_kernel().text.virt + PAGE


def test_the_old_kernel_s_global_entries_are_stale_where_pge_stays() -> None:
    # After table_a, V leads to the control page: the same bytes, so the stale fetch is harmless.
    handover = made(TABLE_A_TO_CR3 + HLT)
    got = EMULATOR.run(handover)
    last = got.translations[-1]
    assert last.virt & -PAGE == V
    assert [(each.phys & -PAGE, each.harmless) for each in last.stale] == [
        (handover.world.code_phys, True)
    ]
    flushed = TABLE_A_TO_CR3 + put("rax", handover.registers.cr4 & ~0x80) + TO_CR4 + HLT
    assert run(flushed).translations[-1].stale == ()


def test_the_descriptors_of_the_selectors_are_read() -> None:
    got = run(HLT)
    assert set(got.descriptors) == {"cs", "ss"}
    assert got.descriptors["cs"] >> 53 & 1


# ---------------------------------------------------------------------------------- 6 TiB of memory


def test_a_host_with_its_memory_above_one_tebibyte_is_walked() -> None:
    high = Extent(4 * GIB, 6144 * GIB)
    low = Extent(MIB, 64 * MIB)
    old = make_host(
        [Extent(0, 0x9FC00), low, high],
        text=2 * MIB,
        private=Extent.sized(4 * MIB, 4 * MIB),
        busy=[Extent(8 * MIB, 64 * MIB), Extent(4 * GIB, 2048 * GIB)],
        direct_page=2 * MIB,
        gbpages=True,
    )
    old = replace(old, direct_map=replace(old.direct_map, page_size=1 << 30))
    the_plan = plan(old, kernel(), initrd=b"high" * 5000, scatter=3)
    handover = sound(the_plan)
    got = EMULATOR.run(handover)
    assert got.stop is Stop.ENTRY, got.fault
    assert the_plan.control_page > 1 << 40
    assert int(the_plan.sources.max()) << 12 > 1 << 40
    assert len(got.copies)
    assert got.copies[:, 2].max() > 1 << 40
    other = Fake().run(handover)
    assert other.stop is Stop.ENTRY
    for segment in handover.segments[:-1]:
        extent = segment.destination.page_aligned()
        wanted = bytes(segment.data).ljust(extent.size, b"\0")
        assert bytes(got.memory.read(extent)) == wanted, segment.name
        assert bytes(other.memory.read(extent)) == wanted, segment.name


# --------------------------------------------------------------------------- our own mistakes surface


class Ours(Exception):
    """Something that only these tests raise."""


@pytest.mark.parametrize(
    "method", ["instruction", "access", "translation", "exception", "invalid", "hole"]
)
def test_an_exception_inside_a_hook_surfaces_as_itself(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def broken(*_: Any) -> None:
        raise Ours(method)

    codes = {"exception": INT3, "invalid": UD2}
    handover = (
        hole_at_identity(b"\x48\x8b\x03")
        if method == "hole"
        else made(codes.get(method, PUSH_RAX + HLT))
    )
    emulator = Emulator()
    with monkeypatch.context() as patch:
        patch.setattr(Watch, method, broken)
        with pytest.raises(Ours, match=method):
            emulator.run(handover)
    # And it does not haunt the next run.
    assert emulator.run(made(HLT)).stop is Stop.HALT


def test_an_interrupt_from_the_keyboard_inside_a_hook_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_watch: Watch, _operation: Operation) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Watch, "_special", broken)
    with pytest.raises(KeyboardInterrupt):
        Emulator().run(sound(moving()))


# -------------------------------------------------------------------------------------- what it can't


def unheld() -> Handover:
    """Registers of a 32-bit kernel, for the engine of a 64-bit one: Unicorn's begins in long mode."""
    return with_registers(made(HLT), efer=0x801)


def test_a_state_that_the_emulated_cpu_cannot_hold_is_said() -> None:
    with pytest.raises(MachineError, match="cannot hold EFER"):
        EMULATOR.run(unheld())
    assert EMULATOR.run(made(HLT)).stop is Stop.HALT


def test_there_is_no_console_before_a_walk_or_after_a_fall() -> None:
    emulator = Emulator()
    with pytest.raises(MachineError, match="did not get there"):
        emulator.console(seconds=1)
    emulator.run(sound(moving()))
    emulator.run(made(UD2))
    with pytest.raises(MachineError, match="did not get there"):
        emulator.console(seconds=1)
    emulator.run(sound(moving()))
    with pytest.raises(MachineError, match="cannot hold EFER"):
        emulator.run(unheld())
    with pytest.raises(MachineError, match="did not get there"):
        emulator.console(seconds=1)


def test_the_fake_has_no_console_and_says_what_it_cannot_see() -> None:
    fake = Fake()
    assert "relocation code" in fake.run(sound(moving())).blind[0]
    with pytest.raises(MachineError, match="runs no code"):
        fake.console(seconds=1, ends=first_line, progress=no_progress)


def test_a_routine_that_goes_straight_to_the_entry_is_at_the_entry() -> None:
    the_plan = plan()
    code = to_identity(the_plan.host) + b"\x41\x0f\x22\xd8" + b"\x52" + RET
    got = EMULATOR.run(made(code, the_plan))
    assert got.stop is Stop.ENTRY
    assert [step for _, step in got.step_starts] == list(Step)[1:]


def test_a_piece_in_a_reserved_place_is_refused() -> None:
    handover = made(HLT)
    piece = Piece(phys=Phys(0xF0000), data=b"x", role=PieceRole.OTHER, which="rom")
    with pytest.raises(MachineError, match="not memory of this machine"):
        EMULATOR.run(replace(handover, extra=(piece,)))


def test_another_host_gets_another_memory() -> None:
    emulator = Emulator()
    small = emulator.run(sound(moving()))
    other = emulator.run(sound(plan(small_host(64), kernel())))
    assert other.stop is Stop.ENTRY
    assert bytes(other.memory.read(Extent.sized(40 * MIB, 4))) == bytes(4)
    with pytest.raises(MachineError):
        small.memory.read(Extent.sized(40 * MIB, 4))


def test_two_emulators_do_not_see_one_another() -> None:
    one, other = Emulator(), Emulator()
    handover = sound(moving())
    first = one.run(handover)
    before = bytes(first.memory.read(Extent(16 * MIB, 17 * MIB)))
    second = other.run(made(put("rax", 1) + UD2))
    assert fault_of(second).vector == 6
    assert bytes(first.memory.read(Extent(16 * MIB, 17 * MIB))) == before
    again = other.run(handover)
    assert np.array_equal(first.trace, again.trace)
    assert first.registers == again.registers


def test_the_shipped_routine_is_what_runs() -> None:
    code = routines.read(routines.RELOCATE_X86_64)
    shorter = Code(name="cut", data=code.data[:3], symbols={})
    assert EMULATOR.run(built(moving(), shorter)).stop is not Stop.ENTRY
