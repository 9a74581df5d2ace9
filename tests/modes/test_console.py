"""What a new kernel says after a 32-bit entry: exceptions through gates of eight bytes, long mode later.

+0x000  the code, entered in 32 bits
+0x200  the idt: 15 gates, those of #UD and #PF filled
+0x280  the operand of lidt, a gdt with 64-bit code, its operand
"""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from tests.machine.kernels import FOREVER, HLT, STI, UD2, say
from tests.makers.hosts import GIB, MIB, mode_host, read_image
from tests.modes.runs import LEGACY, request
from tests.rehearse.runs import mode_host as example_of
from tests.rehearse.runs import shipped_kernel, shipped_request
from tightrope.deeds.rehearse import build, prepare, rehearse
from tightrope.deeds.until import Spoken
from tightrope.errors import MachineError
from tightrope.machine.port import Ends, first_line
from tightrope.machine.unicorn import Emulator
from tightrope.machine.unicorn.widen import widened
from tightrope.memory import Extent, MemoryMap, Region, RegionKind
from tightrope.model import Console, Handover, Host, Outcome, Paging, Protocol, Stop

LOAD = 16 * MIB
IDT, OPERAND, GDT, GDT_OPERAND = 0x200, 0x280, 0x290, 0x2B0
TABLES = LOAD + 0x1000
"""Zeros of init_size: where the long-mode kernel puts its tables."""
LIDT = b"\x0f\x01\x1d" + (LOAD + OPERAND).to_bytes(4, "little")


def handover(code: bytes, old: Host, *, handler: int = 0) -> Handover:
    """A sound handover to a kernel whose 32-bit entry is `code`; `handler` is an offset into it."""
    image = bytearray(0x2C0)
    image[: len(code)] = code
    assert len(code) <= IDT
    gate = struct.pack("<HHBBH", (LOAD + handler) & 0xFFFF, 0x10, 0, 0x8E, LOAD + handler >> 16)
    for vector in (6, 14):
        image[IDT + 8 * vector : IDT + 8 * vector + 8] = gate if handler else bytes(8)
    image[OPERAND : OPERAND + 6] = struct.pack("<HI", 15 * 8 - 1, LOAD + IDT)
    image[GDT : GDT + 32] = struct.pack("<4Q", 0, 0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF)
    image[GDT_OPERAND : GDT_OPERAND + 6] = struct.pack("<HI", 31, LOAD + GDT)
    new = read_image(code32=bytes(image), code64=bytes(image[0x200:]), payload=b"")
    the_plan = prepare(new, old, replace(request(), protocol=Protocol.LINUX_32))
    assert the_plan.kernel_entry == LOAD
    return build(the_plan, design="two-tables")


def listen(built: Handover, *, ends: Ends = first_line) -> Console:
    emulator = Emulator()
    run = emulator.run(built)
    assert run.stop is Stop.ENTRY, run.fault
    return emulator.console(seconds=60, ends=ends)


@pytest.fixture(params=list(Paging))
def old(request: pytest.FixtureRequest) -> Host:
    """An old kernel of each mode; all reach the 32-bit entry."""
    return mode_host(request.param)


def test_a_line_is_heard(old: Host) -> None:
    heard = listen(handover(say("hello\n") + HLT, old))
    assert (heard.lines, heard.stopped) == (("hello",), "the first line is whole")


def test_a_halt_ends_it(old: Host) -> None:
    code = say("no line") + HLT
    heard = listen(handover(code, old))
    assert heard.stopped == f"halted at {LOAD + len(code):#x}"


def test_the_state_of_the_entry_is_what_the_new_kernel_finds(old: Host) -> None:
    """Each condition, or a halt: esi = boot_params, CR0 without PG, CR4 = 0, CS and DS."""
    built = handover(HLT, old)
    checks = (
        b"\x81\xfe" + built.intent.boot_params.to_bytes(4, "little"),  # cmp $boot_params, %esi
        b"\x0f\x20\xc0\xa9\0\0\0\x80",  # mov %cr0, %eax; test $PG, %eax
        b"\x0f\x20\xe0\x85\xc0",  # mov %cr4, %eax; test %eax, %eax
        b"\x8c\xc8\x83\xf8\x10",  # mov %cs, %eax; cmp $0x10, %eax
        b"\x8c\xd8\x83\xf8\x18",  # mov %ds, %eax; cmp $0x18, %eax
        b"\x85\xed",  # test %ebp, %ebp
        # push $0x18; pop %es: the descriptor is in the gdt that was handed over.
        b"\x6a\x18\x07\x31\xc0",
    )
    code = b"".join(each + b"\x74\x01" + HLT for each in checks) + say("right\n") + HLT
    again = handover(code, old)
    assert again.intent.boot_params == built.intent.boot_params
    assert listen(again).lines == ("right",)


def test_an_exception_without_a_handler_is_told(old: Host) -> None:
    heard = listen(handover(LIDT + UD2, old))
    assert heard.stopped == (
        f"exception 6 at {LOAD + len(LIDT):#x}, and the new kernel has no handler for it"
    )


def test_an_exception_is_delivered_in_32_bits_and_returned_from(old: Host) -> None:
    """The frame is EIP, CS, EFLAGS in words of 4 bytes; interrupts are off in the handler."""
    told = b"\x9c\x58\xc1\xe8\x09\x24\x01\x04\x30"  # pushf; pop; shr $9; and $1; add $'0', %al
    tell = told + b"\xba\xf8\x03\0\0\xee"
    main = LIDT + STI + UD2 + UD2 + tell + say("\n") + HLT
    # addl $2, (%esp); iret: behind the ud2.
    built = handover(main + tell + b"\x83\x04\x24\x02\xcf", old, handler=len(main))
    assert listen(built).lines == ("001",)


def test_page_faults_are_delivered_with_their_error_code(old: Host) -> None:
    """With 32-bit paging of 4 MiB pages: writes to a page that is not there, twice."""
    stub = handover(HLT, old).intent.entry & -0x40_0000  # the gdt is there

    def maps(at: int) -> bytes:
        """movl $at | PS RW P, 4 * (at >> 22)(%edi): 4 MiB to themselves."""
        slot = 4 * (at >> 22)
        return b"\xc7\x87" + slot.to_bytes(4, "little") + (at | 0x83).to_bytes(4, "little")

    paging_on = (
        b"\xbf"
        + TABLES.to_bytes(4, "little")
        + maps(LOAD) + maps(stub)
        + b"\xbc" + (LOAD + 0x3000).to_bytes(4, "little")  # mov $stack, %esp
        + b"\x0f\x20\xe0\x0c\x10\x0f\x22\xe0"  # CR4.PSE
        + b"\x0f\x22\xdf"  # mov %edi, %cr3
        + b"\x0f\x20\xc0\x0d\0\0\0\x80\x0f\x22\xc0"  # CR0.PG
    )  # fmt: skip
    fault = b"\xbb\0\0\0\x40\x88\x03"  # mov $0x40000000, %ebx; mov %al, (%ebx)
    main = LIDT + paging_on + fault + fault + say("\n") + HLT
    # pop %eax; add $'0', %al; mov $COM1, %edx; out; mov %cr2, %eax; cmp %ebx, %eax; je; hlt;
    # addl $2, (%esp); iret
    handler = (
        b"\x58\x04\x30\xba\xf8\x03\0\0\xee\x0f\x20\xd0\x39\xd8\x74\x01\xf4\x83\x04\x24\x02\xcf"
    )
    assert listen(handover(main + handler, old, handler=len(main))).lines == ("22",)


def into_long_mode(then: bytes) -> bytes:
    """Identity tables of one 1 GiB page, long mode, a far return to 64-bit code."""
    head = (
        b"\x0f\x01\x15" + (LOAD + GDT_OPERAND).to_bytes(4, "little")  # lgdt
        + b"\xc7\x05" + TABLES.to_bytes(4, "little") + (TABLES + 0x1000 | 3).to_bytes(4, "little")
        + b"\xc7\x05" + (TABLES + 0x1000).to_bytes(4, "little") + (0x83).to_bytes(4, "little")
        + b"\xb8" + TABLES.to_bytes(4, "little") + b"\x0f\x22\xd8"
        + b"\xb8\x20\0\0\0\x0f\x22\xe0"  # CR4.PAE
        + b"\xb9\x80\0\0\xc0\x0f\x32\x0f\xba\xe8\x08\x0f\x30"  # EFER.LME
        + b"\x0f\x20\xc0\x0d\0\0\0\x80\x0f\x22\xc0"  # CR0.PG
        + b"\xbc" + (LOAD + 0x3000).to_bytes(4, "little")  # mov $stack, %esp
    )  # fmt: skip
    # push $0x10; push $next; lret
    return head + b"\x6a\x10\x68" + (LOAD + len(head) + 8).to_bytes(4, "little") + b"\xcb" + then


def test_a_kernel_that_goes_on_to_long_mode_is_heard(old: Host) -> None:
    # A REX prefix: shr $32 of a 64-bit register. mov $'4', %al where rax's high half is there.
    wide = b"\x48\xb8" + (ord("6") << 32).to_bytes(8, "little") + b"\x48\xc1\xe8\x20"
    code = into_long_mode(wide + b"\xba\xf8\x03\0\0\xee" + say("4\n") + HLT)
    assert listen(handover(code, old)).lines == ("64",)


@pytest.mark.parametrize("paging", LEGACY)
def test_ram_above_one_tebibyte_leaves_the_mmu_to_us_and_its_tables_whole(paging: Paging) -> None:
    """Accessed and dirty are set in entries of the format's own size."""
    old = mode_host(paging)
    huge = Extent.sized(1025 * GIB, 64 * MIB)
    old = replace(old, memory=MemoryMap((*old.memory.regions, Region(huge, RegionKind.RAM))))
    entry = LOAD | 0x83
    at = TABLES + 4 * (LOAD >> 22)
    code = (
        b"\xc7\x05" + at.to_bytes(4, "little") + entry.to_bytes(4, "little")
        + b"\xc7\x05" + (at + 4).to_bytes(4, "little") + (0x4000_0000).to_bytes(4, "little")
        + b"\x0f\x20\xe0\x0c\x10\x0f\x22\xe0"
        + b"\xb8" + TABLES.to_bytes(4, "little") + b"\x0f\x22\xd8"
        + b"\x0f\x20\xc0\x0d\0\0\0\x80\x0f\x22\xc0"
        + b"\xa2" + (LOAD + 0x3000).to_bytes(4, "little")  # mov %al, LOAD + 0x3000
        + say("ok\n") + HLT
    )  # fmt: skip
    emulator = Emulator()
    run = emulator.run(handover(code, old))
    assert emulator.console(seconds=60).lines == ("ok",)
    words = struct.unpack("<II", run.memory.read(Extent.sized(at, 8)))
    assert words == (entry | 0x60, 0x4000_0000)


def test_the_silence_of_a_kernel_is_no_verdict(old: Host) -> None:
    got = rehearse(
        read_image(code32=FOREVER),
        old,
        replace(request(), protocol=Protocol.LINUX_32),
        until=Spoken(seconds=0.3),
        machine=Emulator(),
    )
    assert got.outcome is Outcome.UNKNOWN


def test_the_switch_of_engines_leaves_memory_and_the_cpu_as_they_were(old: Host) -> None:
    emulator = Emulator()
    run = emulator.run(handover(HLT, old))
    bench = emulator._bench
    assert bench is not None
    low = Extent(0, 0x9F000)
    before, memory = bench.engine.registers(), bytes(run.memory.read(low))
    wide = widened(bench.engine)
    assert wide.bits == 64
    assert replace(wide.registers(), efer=before.efer) == before
    assert bytes(run.memory.read(low)) == memory


def test_only_an_entry_without_paging_is_handed_over() -> None:
    emulator = Emulator()
    built = handover(HLT, mode_host(Paging.PAE))
    emulator.run(built)
    bench = emulator._bench
    assert bench is not None
    bench.engine.write("cr0", 0x8000_0033)
    with pytest.raises(MachineError, match="only the state of a 32-bit entry"):
        widened(bench.engine)


@pytest.mark.parametrize("paging", LEGACY)
def test_the_shipped_kernel_says_that_it_has_no_32_bit_entry(paging: Paging) -> None:
    got = rehearse(
        shipped_kernel(),
        example_of(paging),
        shipped_request(),
        until=Spoken(),
        machine=Emulator(),
    )
    assert [each.rule for each in got.findings] == ["new-kernel-says"]
    assert "32-bit, but this kernel has only a 64-bit one" in got.findings[0].message
