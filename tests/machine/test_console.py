"""What a new kernel says after its entry, and how listening ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import debian_kernel
from tests.machine.kernels import (
    COM1,
    ENTRY,
    FOREVER,
    HLT,
    LIDT,
    LINE_CONTROL,
    LINE_STATUS,
    LOAD,
    OUT_AL,
    STI,
    UD2,
    UNMAPPED,
    handover,
    load_rbx,
    out,
    port,
    say,
    with_leaf,
)
from tests.machine.walks import GIB, MIB, PAGE, fault_of, made, old_kernel, plan, sound
from tests.makers.hosts import make_host, table_b
from tightrope import host as host_room
from tightrope import image as image_room
from tightrope import shipped
from tightrope.deeds.rehearse import CONSOLE_WORDS
from tightrope.machine.port import Ends, first_line, never
from tightrope.machine.unicorn import Emulator, ticker
from tightrope.machine.unicorn.console import _Listener
from tightrope.machine.unicorn.cpuid import cpuid
from tightrope.machine.unicorn.engine import Engine
from tightrope.memory import Extent
from tightrope.model import Console, Ending, Handover, Host, Stop
from tightrope.observe.physical import Ram
from tightrope.plan import Request, prepare


def large_host() -> Host:
    """RAM above 1 TiB, which Unicorn's own MMU cannot reach: ours serves the new kernel too."""
    old = make_host(
        [Extent(0, 0x9FC00), Extent(MIB, 64 * MIB), Extent(4 * GIB, 1026 * GIB)],
        text=2 * MIB,
        private=Extent.sized(4 * MIB, 4 * MIB),
    )
    return replace(old, direct_map=replace(old.direct_map, page_size=GIB))


HOSTS = {"unicorn's MMU": old_kernel(), "our MMU": large_host()}


@pytest.fixture(params=HOSTS, scope="module")
def old(request: pytest.FixtureRequest) -> Host:
    """Each kind of MMU."""
    return HOSTS[request.param]


def listen(built: Handover, *, seconds: float = 60, ends: Ends = first_line) -> Console:
    emulator = Emulator()
    run = emulator.run(built)
    assert run.stop is Stop.ENTRY, run.fault
    return emulator.console(seconds=seconds, ends=ends)


# --------------------------------------------------------------------------------- lines and ends


def test_the_first_whole_line_ends_it(old: Host) -> None:
    heard = listen(handover(say("hello\nmore\n") + HLT, old=old))
    assert heard.lines == ("hello",)
    assert heard.stopped == "the first line is whole"
    assert heard.seconds >= 0


def test_with_whole_all_is_heard_until_the_halt() -> None:
    code = say("hello\r\n\n more\nlast") + HLT
    heard = listen(handover(code), ends=never)
    assert heard.lines == ("hello", " more", "last")
    assert heard.stopped == f"halted at {ENTRY + len(code):#x}"


def test_empty_lines_are_not_a_first_line() -> None:
    assert listen(handover(say("\r\n\n \nyes\n") + HLT)).lines == ("yes",)


def test_a_halt_before_a_line_keeps_what_was_said() -> None:
    heard = listen(handover(say("half") + HLT))
    assert heard.lines == ("half",)
    assert heard.stopped.startswith("halted at ")


def test_a_halt_with_interrupts_on_is_not_the_end() -> None:
    assert listen(handover(STI + HLT + say("woke\n") + HLT)).lines == ("woke",)


def test_the_time_limit_is_said_as_what_it_is(old: Host) -> None:
    heard = listen(handover(say("half a li") + FOREVER, old=old), seconds=1)
    assert heard.stopped.startswith("no such line within 1 s; the CPU is at 0x")
    assert heard.lines == ("half a li",)
    assert heard.seconds >= 1


def test_progress_is_told_while_it_runs() -> None:
    seen: list[tuple[str, int, int]] = []
    emulator = Emulator()
    emulator.run(handover(FOREVER))
    emulator.console(seconds=1, progress=lambda *what: seen.append(what))
    assert seen
    assert {what for what, _, _ in seen} == {"the new kernel runs"}
    assert {total for _, _, total in seen} == {1}


# -------------------------------------------------------------------------------------- exceptions


def test_an_exception_without_an_idt_is_told(old: Host) -> None:
    heard = listen(handover(say("hm") + UD2, old=old))
    at = ENTRY + len(say("hm"))
    assert heard.stopped == f"exception 6 at {at:#x}, and the new kernel has no handler for it"
    assert heard.lines == ("hm",)


def test_a_page_fault_without_an_idt_is_told_with_its_address(old: Host) -> None:
    code = load_rbx(UNMAPPED + 0x123) + b"\x8a\x03" + HLT  # mov (%rbx), %al
    heard = listen(handover(code, old=old))
    assert heard.stopped == (
        f"exception 14 at {ENTRY + 5:#x}, address {UNMAPPED + 0x123:#x},"
        " and the new kernel has no handler for it"
    )


def test_a_jump_to_nowhere_is_told_with_its_address(old: Host) -> None:
    heard = listen(handover(load_rbx(UNMAPPED + 0x124) + b"\xff\xe3", old=old))
    where = f"{UNMAPPED + 0x124:#x}"
    assert heard.stopped.startswith(f"exception 14 at {where}, address {where}, and")


def test_an_exception_whose_gate_is_empty_has_no_handler() -> None:
    heard = listen(handover(LIDT + b"\xf7\xf1", handler=0))  # div %ecx, which is 0
    assert heard.stopped == (
        f"exception 0 at {ENTRY + len(LIDT):#x}, and the new kernel has no handler for it"
    )


def test_an_exception_without_an_error_code_pushes_none(old: Host) -> None:
    main = LIDT + UD2 + say("back\n") + HLT
    # addq $2, (%rsp); iretq
    built = handover(main + b"\x48\x83\x04\x24\x02\x48\xcf", handler=len(main), old=old)
    assert listen(built).lines == ("back",)


@pytest.mark.parametrize("down", [0, 1, 8, 15])
def test_a_frame_is_pushed_from_a_multiple_of_16(down: int, old: Host) -> None:
    """SDM 6.14.2: wherever the stack is, rsp ends on 8 after five words."""
    # sub $down, %rsp; ud2, whose handler says rsp % 16 as a letter from A on
    main = LIDT + b"\x48\x83\xec" + bytes([down]) + UD2
    handler = b"\x89\xe0\x24\x0f\x04\x41"  # mov %esp, %eax; and $15, %al; add $'A', %al
    built = handover(
        main + handler + port(COM1) + OUT_AL + say("\n") + HLT, handler=len(main), old=old
    )
    assert listen(built).lines == ("I",)


SKIP = b"\x48\x83\xc4\x08" + b"\x48\x83\x04\x24\x02" + b"\x48\xcf"
"""add $8, %rsp (the error code); addq $2, (%rsp) (behind a faulting instruction of two bytes); iretq"""
TELL_CODE = port(COM1) + b"\x8a\x04\x24" + b"\x04\x30" + OUT_AL
"""mov (%rsp), %al; add $'0', %al; out: the error code as a digit."""
CHECK_CR2 = b"\x0f\x20\xd0" + b"\x48\x39\xd8" + b"\x74\x01" + HLT
"""mov %cr2, %rax; cmp %rbx, %rax; je over; hlt."""
READ, WRITE = b"\x8a\x03", b"\x88\x03"
"""mov (%rbx), %al; mov %al, (%rbx)."""


def faulting(body: bytes, old: Host | None) -> Handover:
    """A kernel that takes its page faults and skips the instruction, then runs on."""
    main = LIDT + body + say("\n") + HLT
    return handover(main + CHECK_CR2 + TELL_CODE + SKIP, handler=len(main), old=old)


def test_page_faults_are_delivered_and_returned_from(old: Host) -> None:
    # More than one: Unicorn by itself would make the second a double fault.
    body = b"".join(
        load_rbx(UNMAPPED + at) + what
        for at, what in ((0x10, READ), (0x5000, WRITE), (0x5008, READ), (0xFFFF, WRITE))
    )
    heard = listen(faulting(body * 5, old))
    assert heard.lines == ("0202" * 5,)
    assert heard.stopped == "the first line is whole"


def test_a_write_to_a_read_only_page_has_its_error_code(old: Host) -> None:
    # CR0.WP is off at the entry, so it is set first: mov %cr0, %rax; bts $16, %rax; mov %rax, %cr0.
    body = b"\x0f\x20\xc0\x48\x0f\xba\xe8\x10\x0f\x22\xc0" + load_rbx(LOAD + PAGE) + READ + WRITE
    built = with_leaf(faulting(body, old), LOAD + PAGE, None, clear=2)
    assert listen(built).lines == ("3",)


def test_interrupts_are_off_in_the_handler_and_as_before_behind_it(old: Host) -> None:
    # pushfq; pop %rax; shr $9, %eax; and $1, %al; add $'0', %al; out
    tell_if = port(COM1) + b"\x9c\x58\xc1\xe8\x09\x24\x01\x04\x30" + OUT_AL
    main = LIDT + STI + load_rbx(UNMAPPED) + READ + tell_if + say("\n") + HLT
    built = handover(main + tell_if + SKIP, handler=len(main), old=old)
    assert listen(built).lines == ("01",)


def test_a_general_protection_fault_is_delivered_with_its_error_code() -> None:
    # mov $0x38, %eax; mov %eax, %ds: beyond the gdt, error code 0x38 = 'h' - '0'.
    main = LIDT + b"\xb8\x38\x00\x00\x00" + b"\x8e\xd8" + say("\n") + HLT
    built = handover(main + TELL_CODE + SKIP, handler=len(main))
    assert listen(built).lines == ("h",)


def test_a_fault_with_no_stack_is_told(old: Host) -> None:
    # mov $UNMAPPED, %esp; push %rax
    code = LIDT + b"\xbc" + UNMAPPED.to_bytes(4, "little") + b"\x50" + HLT
    heard = listen(handover(code, handler=len(code) - 1, old=old))
    assert heard.stopped == (
        f"exception 14 at {ENTRY + len(LIDT) + 5:#x}, address {UNMAPPED - 8:#x}: no stack at {UNMAPPED - 8:#x}"
    )


# --------------------------------------------------------------------------------- ports and the bus


def test_the_divisor_latch_is_not_text() -> None:
    setup = out(LINE_CONTROL, 0x83) + out(COM1, ord("X")) + out(COM1 + 1, ord("Y"))
    heard = listen(handover(setup + out(LINE_CONTROL, 3) + say("8N1\n") + HLT))
    assert heard.lines == ("8N1",)


def test_other_ports_are_not_text() -> None:
    heard = listen(handover(out(0x80, ord("P")) + out(0x2F8, ord("Q")) + say("R\n") + HLT))
    assert heard.lines == ("R",)


def tell_port(number: int) -> bytes:
    """in (%dx), %al; then say it."""
    return port(number) + b"\xec" + port(COM1) + OUT_AL


def test_the_transmitter_is_always_empty() -> None:
    heard = listen(handover(tell_port(LINE_STATUS) + say("\n") + HLT))
    assert heard.lines == ("\x60",)


def test_the_timer_counts_down() -> None:
    # in $0x40, %al; mov %al, %bl; in $0x40, %al; sub %al, %bl; mov %bl, %al; add $15, %al; out
    code = b"\xe4\x40\x88\xc3\xe4\x40\x28\xc3\x88\xd8\x04\x0f" + port(COM1) + OUT_AL
    assert listen(handover(code + say("\n") + HLT)).lines == (chr(50 + 15),)


def test_a_read_of_a_physical_hole_is_ones(old: Host) -> None:
    body = load_rbx(LOAD + PAGE + 5) + READ + port(COM1) + OUT_AL + say("\n") + HLT
    built = with_leaf(handover(body, old=old), LOAD + PAGE, 100 * MIB)
    assert listen(built).lines == ("\xff",)


def test_memory_above_one_tebibyte_is_the_new_kernel_s_too() -> None:
    # movb $'Z', (%rbx); xor %eax, %eax; mov (%rbx), %al; then say it.
    body = load_rbx(LOAD + PAGE + 5) + b"\xc6\x03Z\x31\xc0" + READ + port(COM1) + OUT_AL
    high = 1025 * GIB
    built = handover(body + say("\n") + HLT, old=HOSTS["our MMU"])
    emulator = Emulator()
    run = emulator.run(with_leaf(built, LOAD + PAGE, high))
    assert emulator.console(seconds=60).lines == ("Z",)
    assert bytes(run.memory.read(Extent.sized(high + 5, 1))) == b"Z"


def test_our_mmu_sets_accessed_and_dirty_as_a_cpu_does() -> None:
    # Read one page, write the next.
    body = load_rbx(LOAD + PAGE) + READ + load_rbx(LOAD + 2 * PAGE) + WRITE + say("\n.\n") + HLT
    built = handover(body, old=HOSTS["our MMU"])
    for page in (1, 2):
        built = with_leaf(built, LOAD + page * PAGE, None, clear=0x60)
    emulator = Emulator()
    run = emulator.run(built)
    assert emulator.console(seconds=60).lines == (".",)
    tables = table_b(built).pages
    bits = []
    for page in (1, 2):
        virt = LOAD + page * PAGE
        at = next(
            frame + 8 * (virt >> 12 & 511)
            for frame, row in tables.items()
            if int.from_bytes(row[8 * (virt >> 12 & 511) :][:8], "little") & ~0xFFF == virt
        )
        bits.append(int.from_bytes(run.memory.read(Extent.sized(at, 8)), "little") & 0x60)
    assert bits == [0x20, 0x60]


@settings(max_examples=15)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=80))
def test_any_line_is_heard_as_it_was_said(text: str) -> None:
    heard = listen(handover(say(text + "\n") + HLT))
    assert heard.lines == ((text,) if text.strip() else ())


def test_what_a_terminal_would_obey_is_made_visible() -> None:
    heard = listen(handover(say("\x1b[2J\x1b]0;owned\x07h\x9bi\n") + HLT))
    assert heard.lines == ("\\x1b[2J\\x1b]0;owned\\x07h\\x9bi",)


# -------------------------------------------------------------------------------------- how it ended

JUMP_BACK = b"\xeb\xfb"
"""To the `sti; hlt; nop` in front of it."""


@pytest.mark.parametrize(
    ("code", "ending", "says", "at"),
    [
        (say("a\n"), Ending.HEARD, "the first line is whole", None),
        (say("half") + HLT, Ending.HALTED, "halted at", len(say("half") + HLT)),
        (say("a") + UD2, Ending.FELL, "no handler for it", len(say("a"))),
        (STI + HLT + b"\x90" + JUMP_BACK, Ending.WAITS, "waits for an interrupt at", 2),
    ],
    ids=["a line", "a halt", "an exception", "a wait for an interrupt"],
)
def test_an_end_is_told_with_its_kind_and_its_place(
    code: bytes, ending: Ending, says: str, at: int | None
) -> None:
    heard = listen(handover(code))
    assert heard.ending is ending
    assert says in heard.stopped
    assert at is None or heard.rip == ENTRY + at
    fell = f"exception 6 at {ENTRY + (at or 0):#x}" if ending is Ending.FELL else None
    assert heard.exception == fell


@pytest.mark.parametrize(
    ("code", "ending"),
    [
        (b"\xf3\x90\xeb\xfc", Ending.WAITS),  # pause, and again
        (port(0x80) + OUT_AL + b"\xeb\xfd", Ending.WAITS),  # the same to a port at each turn
        (b"\x66\xba\x08\x06\xed\xeb\xfd", Ending.WAITS),  # a timer's port, which never changes
        (port(COM1) + OUT_AL + b"\xeb\xfd", Ending.TIME),  # one letter after the other
    ],
    ids=["nothing new is touched", "a port is written", "a port is polled", "it speaks"],
)
def test_a_kernel_that_waits_is_not_listened_to_until_the_limit(
    code: bytes, ending: Ending, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ticker, "IDLE_SECONDS", 0.3)
    heard = listen(handover(code), seconds=1 if ending is Ending.TIME else 600)
    assert heard.ending is ending
    assert f"{heard.rip or 0:#x}" in heard.stopped


# ------------------------------------------------------------------------------------ what it executes

BIT_OF_EBX = b"\x89\xd8\xc1\xe8%b\x83\xe0\x01\x04\x30"
"""mov %ebx, %eax; shr $n, %eax; and $1, %eax; add $'0', %al"""


@pytest.mark.parametrize(("bit", "said"), [(3, "1"), (8, "0"), (19, "0"), (20, "1")])
def test_cpuid_does_not_promise_what_cannot_be_executed(bit: int, said: str) -> None:
    """BMI1 and SMAP are there; SHLX and ADCX do not run while CR4.OSFXSR is 0."""
    ask = b"\xb8\x07\0\0\0\x31\xc9\x0f\xa2" + BIT_OF_EBX % bytes([bit])
    assert listen(handover(ask + port(COM1) + OUT_AL + say("\n") + HLT)).lines == (said,)


@given(st.sampled_from([0, 1, 7, 0xD, 0x8000_0001, 0x8000_0008]), st.integers(0, 3))
def test_cpuid_only_withdraws(leaf: int, subleaf: int) -> None:
    engine = Engine(Ram((Extent(0, PAGE),)))
    engine.own_mmu(False)
    engine.ram.write(0, b"\x0f\xa2")
    engine.write("rax", leaf)
    engine.write("rcx", subleaf)
    engine.start(0, count=1)
    own = [engine.read(name) for name in ("rax", "rbx", "rcx", "rdx")]
    said = cpuid(leaf, subleaf)
    assert [a | b for a, b in zip(own, said, strict=True)] == own
    assert (own == list(said)) == (leaf != 1 and (leaf, subleaf) != (7, 0))


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("c4e271f7c1", "shlx"),
        ("660f38f6c1", "adcx"),
        ("660f38f008", "movbe"),
        ("f20f38f0c1", None),
        ("c4e272f7c1", None),
    ],
    ids=["shlx", "adcx", "movbe", "crc32", "sarx"],
)
def test_an_instruction_that_the_emulator_lacks_is_no_fault_of_the_kernel(
    code: str, text: str | None
) -> None:
    heard = listen(handover(bytes.fromhex(code) + say("done\n") + HLT))
    if text is None:
        assert heard.lines == ("done",)
    else:
        assert (heard.ending, heard.exception) == (Ending.UNABLE, None)
        assert f"`{text} " in heard.stopped


def test_an_sse_instruction_before_osfxsr_is_the_kernels_own_fault() -> None:
    heard = listen(handover(b"\x0f\x28\xc1" + HLT))  # movaps %xmm1, %xmm0
    assert (heard.ending, heard.exception) == (Ending.FELL, f"exception 6 at {ENTRY:#x}")


def written_and_run(*letters: str) -> bytes:
    """Writes `mov $letter, %al; jmp *%rcx` into a page of its own, goes there, says %al; for each."""
    code = load_rbx(LOAD + PAGE)
    for at, byte in enumerate(b"\xb0\0\xff\xe1"):
        code += b"\xc6\x43" + bytes([at, byte])
    code += port(COM1)
    for letter in letters:
        code += b"\xc6\x43\x01" + letter.encode()
        back = ENTRY + len(code) + 7
        code += b"\xb9" + back.to_bytes(4, "little") + b"\xff\xe3" + OUT_AL
    return code + say("\n") + HLT


def test_code_that_was_data_before_and_is_written_again_runs_as_it_is() -> None:
    assert listen(handover(written_and_run("a", "b", "c"))).lines == ("abc",)


# ------------------------------------------------------------------------------------------- after it


def test_after_listening_the_same_emulator_walks_and_listens_again() -> None:
    emulator = Emulator()
    for word in ("one", "two", "three"):
        built = handover(say(word + "\n") + HLT)
        first = emulator.run(built)
        assert first.stop is Stop.ENTRY
        assert emulator.console(seconds=60).lines == (word,)
        assert fault_of(emulator.run(made(UD2))).vector == 6


def test_an_exception_of_ours_surfaces_and_the_emulator_can_walk_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    emulator = Emulator()
    emulator.run(handover(say("x\n") + HLT))
    with monkeypatch.context() as patch:
        patch.setattr(_Listener, "_port_out", broken)
        with pytest.raises(ZeroDivisionError):
            emulator.console(seconds=60)
    emulator.run(handover(say("again\n") + HLT))
    assert emulator.console(seconds=60).lines == ("again",)


# --------------------------------------------------------------------------------------- real kernels


def test_the_shipped_kernel_speaks_and_halts() -> None:
    image = image_room.read(shipped.read(), "shipped")
    built = sound(plan(None, image, initrd=b"an initrd", command_line="console=ttyS0"))
    heard = listen(built, ends=never)
    assert heard.lines[-1].startswith("tightrope: the new kernel stands")
    assert not any("BAD" in line for line in heard.lines)
    assert heard.stopped.startswith("halted at ")


def linux_says(path: Path) -> tuple[str, ...]:
    image = image_room.read(path.read_bytes(), path.name)
    old = host_room.read(host_room.example(), "example")
    request = Request(initrd=bytes(5000), command_line=CONSOLE_WORDS)
    return listen(
        sound(prepare(image, old, request)), seconds=250, ends=lambda line: "Linux version" in line
    ).lines


def test_debian_s_cloud_kernel_says_its_version(debian_cloud: Path) -> None:
    assert "Linux version" in linux_says(debian_cloud)[-1]


@pytest.mark.parametrize("flavour", ["cloud-amd64-6.12", "amd64-7.3"])
def test_a_zstd_kernel_says_its_version_through_its_own_decompressor(flavour: str) -> None:
    path = debian_kernel(flavour)
    assert f"Linux version {path.name.removeprefix('vmlinuz-')}" in linux_says(path)[-1]
