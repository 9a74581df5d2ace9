"""Right code of kinds that our own routines have none of: it neither falls nor ends in an error."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.machine import walks
from tests.machine.walks import HLT, LRETQ, PAGE, made, old_kernel, plan, put, sound
from tests.makers.hosts import mode_host
from tests.modes.runs import kernel, request
from tightrope import check
from tightrope.deeds.rehearse import build
from tightrope.machine.kvm import Kvm
from tightrope.machine.unicorn import Emulator
from tightrope.machine.unicorn.alone import Alone
from tightrope.memory import Extent
from tightrope.model import Handover, Host, Paging, PieceRole, Run, Stop
from tightrope.plan import prepare
from tightrope.x86 import cpu as x86
from tightrope.x86.cpu import flat_descriptor

V = int(plan().relocation)
CODE, DATA, NEW = 0x10, 0x18, 0x40
PUSH_RAX, FAR_JUMP = b"\x50", b"\x48\xff\x2c\x24"
"""push %rax; rex.W ljmp *(%rsp)"""
READ_CR4, READ_EFER = b"\x0f\x20\xe0", b"\xb9\x80\x00\x00\xc0\x0f\x32"
"""mov %cr4, %rax; mov $0xc0000080, %ecx and rdmsr"""


def with_slot(built: Handover, selector: int, descriptor: int) -> Handover:
    """A descriptor in the old kernel's gdt."""
    pieces = []
    for piece in built.world.laid:
        if piece.phys == built.plan.host.private.start:
            data = bytearray(piece.data)
            data[selector : selector + 8] = descriptor.to_bytes(8, "little")
            piece = replace(piece, data=bytes(data))
        pieces.append(piece)
    return replace(built, world=replace(built.world, laid=tuple(pieces)))


def far(selector: int, *, jump: bool) -> bytes:
    """Go to the next instruction through a far jump or return in memory; then halt."""
    last = FAR_JUMP if jump else LRETQ
    length = 2 * (len(put("rax", 0)) + 1) + len(last)
    code = put("rax", selector) + PUSH_RAX + put("rax", V + length) + PUSH_RAX + last
    assert len(code) == length
    return code + HLT


@pytest.mark.parametrize("jump", [True, False], ids=["jump", "return"])
def test_a_far_transfer_through_memory_loads_cs(jump: bool) -> None:
    run = Emulator().run(made(far(CODE, jump=jump)))
    assert (run.stop, run.registers.segments["cs"]) == (Stop.HALT, CODE)
    assert [each.register for each in run.register_writes if each.register == "cs"] == ["cs"]


@pytest.mark.parametrize("jump", [True, False], ids=["jump", "return"])
def test_a_far_transfer_to_a_data_segment_is_refused(jump: bool) -> None:
    fault = walks.fault_of(Emulator().run(made(far(DATA, jump=jump))))
    assert (fault.vector, fault.error_code) == (13, DATA)
    assert "is not a code segment" in fault.reason


def touched_access_byte(run: Run, built: Handover) -> tuple[int, int]:
    """The access byte in memory, and how many stores hit it."""
    at = built.plan.host.private.start + NEW + 5
    view = run.memory.read(Extent.sized(at, 1))
    return view[0] & 1, int((run.stores[:, 2] == at).sum())


@pytest.mark.parametrize("jump", [True, False], ids=["jump", "return"])
@pytest.mark.parametrize("preset", [True, False])
def test_the_accessed_bit_of_a_descriptor_is_written_as_a_cpu_does(
    preset: bool, jump: bool
) -> None:
    descriptor = flat_descriptor(code=True, bits=64) & ~(0 if preset else 1 << 40)
    built = with_slot(made(far(NEW, jump=jump)), NEW, descriptor)
    run = Emulator().run(built)
    assert run.stop is Stop.HALT
    assert touched_access_byte(run, built) == (1, 0 if preset else 1)


def test_kvm_writes_it_by_itself(kvm: Kvm) -> None:
    descriptor = flat_descriptor(code=True, bits=64) & ~(1 << 40)
    built = with_slot(made(far(NEW, jump=False)), NEW, descriptor)
    run = kvm.run(built)
    assert run.stop is Stop.HALT
    assert touched_access_byte(run, built) == (1, 1)


READABLE = 1 << 41


@pytest.mark.parametrize("paging", [Paging.I386, Paging.PAE, Paging.X86_64])
def test_code_that_can_be_executed_and_not_read_may_make_the_call(paging: Paging) -> None:
    """SDM volume 3, table 3-1: type 9; a CPU takes it, and Unicorn does not."""
    host = mode_host(paging, megabytes=32)
    built = build(prepare(kernel(), host, request()), design="two-tables")
    cs = built.registers.segments["cs"]
    gdt = next(each for each in built.world.laid if each.role is PieceRole.GDT)
    descriptor = int.from_bytes(bytes(gdt.data)[cs : cs + 8], "little")
    assert descriptor & READABLE
    sound, closed = built, with_slot(built, cs, descriptor & ~READABLE)
    for machine in (Emulator(), Alone()):
        runs = [machine.run(each) for each in (sound, closed)]
        assert [each.stop for each in runs] == [Stop.ENTRY, Stop.ENTRY]
        assert runs[0].registers == runs[1].registers
    assert not check.check(closed, Emulator().run(closed))


# ------------------------------------------------------------------------------ a gdt that is gone


def nothing(built: Handover) -> Handover:
    """Called as Linux calls V: with segments that were loaded, and no gdt any more."""
    return replace(built, registers=replace(built.registers, gdt=(0, 0)))


def test_a_routine_that_loads_its_own_gdt_first_needs_none_at_the_call() -> None:
    with_one, without = (Emulator().run(each) for each in (sound(plan()), nothing(sound(plan()))))
    assert with_one.stop is without.stop is Stop.ENTRY
    assert without.registers == with_one.registers


def test_kvm_is_called_without_a_gdt_as_well(kvm: Kvm) -> None:
    assert kvm.run(nothing(sound(plan()))).registers == Emulator().run(sound(plan())).registers


def test_a_segment_that_is_loaded_from_no_gdt_falls() -> None:
    fault = walks.fault_of(Emulator().run(nothing(made(far(CODE, jump=False)))))
    assert (fault.vector, fault.error_code) == (13, CODE)
    assert "beyond the gdt's limit" in fault.reason


def test_memory_is_the_same_after_setting_up_without_a_gdt() -> None:
    pages = [
        bytes(Emulator().run(each).memory.read(Extent.sized(0, PAGE)))
        for each in (nothing(made(HLT)), made(HLT))
    ]
    assert pages[0] == pages[1]


# ------------------------------------------------------- bits that the emulated CPU has no room for


def with_bits(cr4: int, efer: int) -> Host:
    host = old_kernel()
    return replace(host, cr4=host.cr4 | cr4, efer=host.efer | efer)


FRED, AIBRSE = x86.CR4_FRED, x86.EFER_NAMES["AIBRSE"]


@pytest.mark.parametrize("cr4", [0, FRED, x86.CR4_LASS | FRED])
@pytest.mark.parametrize("efer", [0, AIBRSE])
def test_bits_of_newer_cpus_are_read_as_they_were_set(cr4: int, efer: int) -> None:
    host = with_bits(cr4, efer)
    for read, value in ((READ_CR4, host.cr4), (READ_EFER, host.efer)):
        run = Emulator().run(made(read + HLT, plan(host)))
        assert run.stop is Stop.HALT
        got = run.registers.general["rax"]
        if read is READ_EFER:
            got |= run.registers.general["rdx"] << 32
        assert got == value
        assert (run.registers.cr4, run.registers.efer) == (host.cr4, host.efer)


def test_a_kernel_with_them_is_entered_as_one_without() -> None:
    runs = [Emulator().run(sound(plan(with_bits(bits, 0)))) for bits in (0, FRED | x86.CR4_LASS)]
    assert [run.stop for run in runs] == [Stop.ENTRY] * 2
    assert runs[0].registers == runs[1].registers
