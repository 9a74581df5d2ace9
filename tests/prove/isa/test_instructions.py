"""The instruction model against CPUs: every form that the routines use, on 10,000 states each.

    routine bytes --sweep--> forms --states--> model over numpy | Unicorn --> the same, bit for bit
                                                                | KVM, fewer states, 64-bit forms

What the manual leaves undefined (AF after a logical instruction) is not compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.prove.isa import batch
from tests.prove.isa.batch import MIDDLE, SLOT, SLOTS, Batch, Words
from tightrope import routines
from tightrope.machine.kvm import Kvm
from tightrope.machine.kvm.device import Device
from tightrope.machine.kvm.watchdog import Watchdog
from tightrope.memory import PAGE_SIZE
from tightrope.prove.isa.algebra import Numbers, Truths
from tightrope.prove.isa.decode import Instruction, Mem, Reg, decode, sweep
from tightrope.prove.isa.instructions import execute
from tightrope.prove.isa.semantics import Model, Refused
from tightrope.prove.isa.state import FLAG_BITS, Flow, State
from tightrope.x86 import cpu as x86
from tightrope.x86.cpu import EFER_NXE, EFER_SCE, MSR_EFER

STATES = 10_000
KVM_STATES = 200
"""Fewer: where KVM runs in a virtual machine itself, each privileged instruction is emulated."""
KVM_CONTROL = {
    "cr0": (batch.CR0_IN_KVM, 0x3_0022 & ~(1 << 17)),
    "cr3": (batch.TABLES, 0),
    "cr4": (x86.CR4_PAE, x86.CR4_PSE | x86.CR4_PGE),
}
"""What has to stay as it is while the batch runs, and the bits that are tried."""
CORNERS = [
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0xFFF,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    1 << 63,
    2**64 - 1,
]
CONTROL_BITS = {"cr0": 0x33, "cr4": 0x6D0, "cr3": 0xFFFF_F000, "dr7": 0}
"""The bits that are tried in each: Unicorn runs on without paging, whatever is written there."""
SETS_IF_TAKEN = b"\xb0\x5a"
"""mov $0x5a, %al: what a branch of a batch jumps over."""


@cache
def forms() -> dict[tuple[str, int], bytes]:
    """(text, bits) -> bytes of every instruction of every routine, once."""
    out: dict[tuple[str, int], bytes] = {}
    for name, bits, first, end in (
        (routines.RELOCATE_X86_64, 64, None, "gdt"),
        (routines.RELOCATE_I386, 32, None, "gdt"),
        (routines.ENTER_64, 64, None, "gdt"),
        (routines.ENTER_32, 32, None, "gdt"),
        (routines.ENTER_32_FROM_64, 64, None, "compatibility"),
        (routines.ENTER_32_FROM_64, 32, "compatibility", "gdt"),
    ):
        code = routines.read(name)
        start = code.symbols[first] if first else 0
        for at in sweep(code.data, code.symbols[end], bits, start):
            text = at.text.split()[0] if at.target is not None else at.text
            out.setdefault((text, bits), code.data[at.offset : at.offset + at.size])
    return out


OTHERS = {
    64: ("4801c8", "29d0", "4839d9", "f7d0", "48f7d8", "48c1e10c", "48c1e90c", "d1e0", "d1e8", "48ffc1",
         "ffc9", "0fbae807", "480fbaf03f", "0fbae005", "87d1", "4887d1", "00c8", "28e1", "08c4", "6601c8",
         "8d448a05", "488d440b10", "f8", "f9", "fd"),
    32: ("01c8", "29d0", "39d9", "f7d0", "f7d8", "c1e10c", "c1e90c", "41", "49", "87d1", "00e8", "660fbae805"),
}  # fmt: skip
"""More forms that somebody else's code may use, as bytes."""


class Slots:
    """The port over numbers: memory is each state's slot, control registers just hold."""

    def __init__(self, slots: NDArray[np.uint8]) -> None:
        self.slots = slots.copy()
        self.base = SLOTS + SLOT * np.arange(len(slots), dtype=np.uint64)

    def _offset(self, address: Words) -> int:
        offsets = np.unique(address - self.base)
        assert len(offsets) == 1
        assert offsets[0] < SLOT
        return int(offsets[0])

    def load(
        self, state: State[Words, Truths], at: Instruction, address: Words, width: int
    ) -> Words:
        first = self._offset(address)
        out = np.zeros(len(self.slots), np.uint64)
        for n in range(width // 8):
            out |= self.slots[:, first + n].astype(np.uint64) << np.uint64(8 * n)
        return out

    def store(
        self, state: State[Words, Truths], at: Instruction, address: Words, width: int, value: Words
    ) -> None:
        first = self._offset(address)
        for n in range(width // 8):
            self.slots[:, first + n] = (value >> np.uint64(8 * n)) & np.uint64(0xFF)

    def control(
        self, state: State[Words, Truths], at: Instruction, register: str, written: Words
    ) -> None:
        state.control[register] = written

    def _is_efer(self, number: Words) -> None:
        if not (number == np.uint64(MSR_EFER)).all():
            raise Refused("a model-specific register other than EFER")

    def read_msr(
        self, state: State[Words, Truths], at: Instruction, number: Words
    ) -> tuple[Words, Words]:
        self._is_efer(number)
        efer = state.control["efer"]
        return efer & np.uint64(0xFFFF_FFFF), efer >> np.uint64(32)

    def write_msr(
        self, state: State[Words, Truths], at: Instruction, number: Words, low: Words, high: Words
    ) -> None:
        self._is_efer(number)
        state.control["efer"] = low | high << np.uint64(32)

    def segment(
        self, state: State[Words, Truths], at: Instruction, register: str, selector: Words
    ) -> None:
        state.segments[register] = selector

    def table(
        self, state: State[Words, Truths], at: Instruction, name: str, base: Words, limit: Words
    ) -> None:
        state.tables[name] = (base, limit)

    def copy(self, state: State[Words, Truths], at: Instruction) -> None:
        raise AssertionError("moves of whole pages have a test of their own")

    def serialize(self, state: State[Words, Truths]) -> None:
        pass


@dataclass
class Case:
    """A form with what it takes to see its effect: bytes behind it that the model does not run."""

    at: Instruction
    raw: bytes
    bits: int
    observer: bytes = b""
    fixed: dict[str, list[int]] = field(default_factory=dict)
    """Registers that may only have some values."""


def case_of(raw: bytes, bits: int) -> Case:
    at = decode(raw, 0, bits)
    first = at.operands[0] if at.operands else None
    case = Case(at, raw, bits)
    if at.mnemonic == "mov" and isinstance(first, Reg) and first.width in (0, 16):
        source = at.operands[1]
        assert isinstance(source, Reg)
        if first.name[:2] in ("cr", "dr"):
            # mov %crN, %rdx behind it
            number, opcode = int(first.name[2:]), 0x20 if first.name[0] == "c" else 0x21
            case.observer = bytes([0x0F, opcode, 0xC2 | number << 3])
            keep = CONTROL_BITS[first.name]
            always = {"cr0": 0x11, "cr4": 0x20 if bits == 64 else 0}.get(first.name, 0)
            case.fixed[source.name] = [always | (n * 0x9E37_79B9 & keep) for n in range(64)]
        elif first.name in ("ds", "es", "ss", "fs", "gs"):
            number = ("es", "cs", "ss", "ds", "fs", "gs").index(first.name)
            case.observer = bytes([0x8C, 0xC2 | number << 3])  # mov %sreg, %edx
            case.fixed[source.name] = [0x18]
    if at.mnemonic in ("lgdt", "lidt"):
        modrm = b"\x44\x24" if first is not None else b""
        case.observer = b"\x0f\x01" + bytes(
            [modrm[0] | (8 if at.mnemonic == "lidt" else 0), 0x24, 20]
        )
    if at.mnemonic in ("rdmsr", "wrmsr"):
        case.fixed["rcx"] = [MSR_EFER]
    if at.mnemonic == "wrmsr":
        case.observer = b"\x0f\x32"  # rdmsr
        case.fixed |= {"rax": [0, EFER_SCE, EFER_NXE, EFER_SCE | EFER_NXE], "rdx": [0]}
    if at.mnemonic == "call":
        case.raw = raw[:1] + bytes(4)
        case.at = decode(case.raw, 0, bits)
    elif at.target is not None:
        case.raw = raw[: -(1 if len(raw) == 2 else 4)] + (
            b"\x02" if len(raw) == 2 else b"\x02\0\0\0"
        )
        case.at = decode(case.raw, 0, bits)
        case.observer = SETS_IF_TAKEN
    return case


def states(case: Case, seed: int, count: int = STATES) -> Batch:
    """Random words, one in four a corner; what addresses memory points into its slot."""
    random = np.random.default_rng(seed)
    low = np.uint64((1 << case.bits) - 1)
    registers: dict[str, Words] = {}
    for name in batch.names(case.bits):
        words = random.integers(0, 1 << 64, count, np.uint64, endpoint=False)
        corner = random.choice(np.array(CORNERS, np.uint64), count)
        registers[name] = np.where(random.random(count) < 0.25, corner, words) & low
    for name, values in case.fixed.items():
        registers[name] = random.choice(np.array(values, np.uint64), count)
    middle = (SLOTS + SLOT * np.arange(count) + MIDDLE).astype(np.uint64)
    registers["rsp"] = middle
    slots = random.integers(0, 256, (count, SLOT), np.uint8)
    for operand in case.at.operands:
        if (
            isinstance(operand, Mem)
            and case.at.mnemonic != "lea"
            and operand.base not in (None, "rip")
        ):
            registers[operand.base or ""] = middle - np.uint64(
                0 if operand.displacement < 24 else operand.displacement
            )
    flags = np.full(count, 2, np.uint64)
    for name, number in FLAG_BITS.items():
        if name not in ("TF", "IOPL0", "IOPL1", "NT"):
            flags |= random.integers(0, 2, count, np.uint64) << np.uint64(number)
    return_to = batch.body_address(case.bits) + len(case.raw)
    size = case.bits // 8
    if case.at.mnemonic in ("ret", "retf"):
        popped = [return_to]
        if case.at.mnemonic == "retf":
            popped.append(0x10 if case.bits == 64 else 0x20)
        where = b"".join(word.to_bytes(size, "little") for word in popped)
        slots[:, MIDDLE : MIDDLE + len(where)] = np.frombuffer(where, np.uint8)
    if case.at.mnemonic.startswith("popf"):
        # A single step would end the batch; VM, RF and the virtual flags are not POPF's to set.
        slots[:, MIDDLE + 1] &= 0xFE
        slots[:, MIDDLE + 2] &= 0x24
        slots[:, MIDDLE + 3 : MIDDLE + size] = 0
    return Batch(registers=registers, flags=flags, slots=slots)


def modelled(
    case: Case, before: Batch, control: Mapping[str, int]
) -> tuple[State[Words, Truths], Slots, Flow[Words, Truths]]:
    """What the model makes of the states."""
    numbers = Numbers(len(before.flags))
    held = {"dr7": 0, "efer": 0, **control}
    port = Slots(before.slots)
    state = State(
        bits=case.bits,
        registers=dict(before.registers),
        flags={
            name: before.flags >> np.uint64(n) & np.uint64(1) != 0 for name, n in FLAG_BITS.items()
        },
        control={name: numbers.const(value, case.bits) for name, value in held.items()},
        segments={name: numbers.const(0x18, 16) for name in ("ds", "es", "ss", "fs", "gs", "cs")},
        tables={},
        rip=numbers.const(batch.body_address(case.bits), case.bits),
    )
    model = Model(numbers, port)
    flow = execute(model, state, case.at)
    for name in FLAG_BITS:
        state.flags[name] = state.flag(name)
    return state, port, flow


def compare(case: Case, seed: int) -> list[str]:
    """Everything in which model and Unicorn differ, in words."""
    before = states(case, seed)
    return differences(case, before, batch.run(case.raw + case.observer, before, case.bits))


def differences(case: Case, before: Batch, seen: Batch) -> list[str]:
    """Everything in which the model and what was seen differ, in words."""
    state, port, flow = modelled(case, before, seen.control)
    numbers = Numbers(len(before.flags))
    # What the observer adds.
    first = case.at.operands[0] if case.at.operands else None
    if case.observer == SETS_IF_TAKEN:
        taken = numbers.truth(True) if flow.condition is None else flow.condition
        low = state.registers["rax"] & np.uint64((1 << case.bits) - 256) | np.uint64(0x5A)
        state.registers["rax"] = np.where(taken, state.registers["rax"], low)
    elif isinstance(first, Reg) and first.name in state.control and case.observer:
        reads = np.uint64(0x400 if first.name == "dr7" else 0)  # bit 10 of DR7 reads as 1
        state.registers["rdx"] = state.control[first.name] | reads
    elif isinstance(first, Reg) and first.name in state.segments and case.observer:
        state.registers["rdx"] = state.segments[first.name]
    if case.at.mnemonic == "wrmsr":
        state.registers["rax"], state.registers["rdx"] = port.read_msr(
            state, case.at, state.registers["rcx"]
        )
    for base, limit in state.tables.values():
        port.store(state, case.at, state.registers["rsp"] + np.uint64(20), 16, limit)
        port.store(state, case.at, state.registers["rsp"] + np.uint64(22), case.bits, base)
    out = [
        f"{name}: {np.flatnonzero(words != seen.registers[name])[:3]}"
        for name, words in state.registers.items()
        if not np.array_equal(words, seen.registers[name])
    ]
    for name, number in FLAG_BITS.items():
        flag = state.flag(name)
        got = seen.flags >> np.uint64(number) & np.uint64(1) != 0
        if flag is not None and not np.array_equal(flag, got):
            out.append(f"{name}: {np.flatnonzero(flag != got)[:3]}")
    if not np.array_equal(port.slots, seen.slots):
        out.append("memory")
    if flow.address is not None:
        back = batch.body_address(case.bits) + len(case.raw)
        out += [] if (flow.address == np.uint64(back)).all() else ["where it goes"]
    return out


def compared(only: int | None = None) -> list[tuple[str, int]]:
    """The forms (of one width) that a batch can show; moves of whole pages have a test of their
    own.

    Operands beside the code lie in no slot: what they are is decided by LEA, which is compared.
    """

    def beside_the_code(at: Instruction) -> bool:
        return at.mnemonic != "lea" and any(
            isinstance(operand, Mem) and operand.base == "rip" for operand in at.operands
        )

    return [
        (text, bits)
        for (text, bits), raw in forms().items()
        if only in (None, bits)
        and not (at := decode(raw, 0, bits)).rep
        and not beside_the_code(at)
        and at.mnemonic != "nop"
    ]


@pytest.mark.parametrize("form", compared(), ids=lambda form: f"{form[0]} in {form[1]}-bit code")
def test_the_model_does_what_the_cpu_does(form: tuple[str, int]) -> None:
    case = case_of(forms()[form], form[1])
    assert compare(case, seed=len(form[0])) == []


@pytest.fixture(scope="module")
def door(kvm: Kvm) -> Iterator[tuple[Device, Watchdog]]:
    """This computer's KVM, raw: `kvm` skips where there is none for long mode."""
    device, watchdog = Device(), Watchdog()
    yield device, watchdog
    device.close()
    watchdog.close()


def for_kvm(case: Case) -> tuple[Case, Batch]:
    """The case with states that a CPU with paging on can bear."""
    first = case.at.operands[0] if case.at.operands else None
    if isinstance(first, Reg) and first.name in KVM_CONTROL:
        source = case.at.operands[1]
        assert isinstance(source, Reg)
        always, keep = KVM_CONTROL[first.name]
        case.fixed[source.name] = [always | (n * 0x9E37_79B9 & keep) for n in range(64)]
    before = states(case, len(case.at.text), KVM_STATES)
    if case.at.mnemonic in ("lgdt", "lidt"):
        # The base has to be canonical (SDM volume 2, LGDT): its upper bytes lie there.
        (operand,) = case.at.operands
        assert isinstance(operand, Mem)
        high = MIDDLE + operand.displacement + 7
        before.slots[:, high : high + 3] = 0
    return case, before


@pytest.mark.parametrize(
    "raw",
    [*(forms()[form] for form in compared(64)), *map(bytes.fromhex, OTHERS[64])],
    ids=bytes.hex,
)
def test_the_model_does_what_this_computers_cpu_does(
    raw: bytes, door: tuple[Device, Watchdog]
) -> None:
    case, before = for_kvm(case_of(raw, 64))
    seen = batch.run_on_kvm(*door, case.raw + case.observer, before)
    assert differences(case, before, seen) == []


def test_a_wrong_model_would_be_seen_on_this_computers_cpu(door: tuple[Device, Watchdog]) -> None:
    case, before = for_kvm(case_of(bytes.fromhex("4801c8"), 64))
    case.at = decode(bytes.fromhex("01c8"), 0, 64)
    assert differences(case, before, batch.run_on_kvm(*door, case.raw, before)) != []


@pytest.mark.parametrize(("bits", "raw"), [(bits, raw) for bits in OTHERS for raw in OTHERS[bits]])
def test_and_in_forms_that_only_somebody_elses_code_has(bits: int, raw: str) -> None:
    assert compare(case_of(bytes.fromhex(raw), bits), seed=3) == []


@pytest.mark.parametrize(
    ("raw", "wrong"),
    [("01c8", "29c8"), ("4801c8", "01c8"), ("48ffc1", "4883c101"), ("d1e8", "d1f8")],
)
def test_a_wrong_model_would_be_seen(raw: str, wrong: str) -> None:
    """The CPU runs one instruction, the model another that is nearly the same."""
    case = case_of(bytes.fromhex(raw), 64)
    other = case_of(bytes.fromhex(wrong), 64)
    other.at, case.at = case.at, other.at
    if wrong == "d1f8":
        with pytest.raises(Refused):
            compare(case, seed=1)
    else:
        assert compare(case, seed=1) != []


@pytest.mark.parametrize(
    ("bits", "raw"), [(64, "f348a5"), (64, "f3a4"), (32, "f3a5"), (64, "f3a5")]
)
def test_moving_a_page_is_one_page_copy(bits: int, raw: str) -> None:
    """Theorem 4's lemma on the CPU: 10,000 moves among 64 pages,
    each source and destination random.
    """
    random = np.random.default_rng(9)
    at = decode(bytes.fromhex(raw), 0, bits)
    before = states(Case(at, bytes.fromhex(raw), bits), 9)
    pages = random.integers(0, 256, (64, PAGE_SIZE), np.uint8)
    to, of = random.integers(0, 64, (2, STATES))
    zero = np.uint64(0)
    before.registers["rdi"] = (batch.PAGES + to * PAGE_SIZE).astype(np.uint64)
    before.registers["rsi"] = (batch.PAGES + of * PAGE_SIZE).astype(np.uint64)
    before.registers["rcx"] = np.full(STATES, PAGE_SIZE // (at.width // 8), np.uint64)
    flags = before.flags & ~np.uint64(1 << 10)
    seen = batch.run(bytes.fromhex(raw), replace(before, flags=flags, memory=pages.tobytes()), bits)
    for destination, source in zip(to, of, strict=True):
        pages[destination] = pages[source]
    assert seen.memory == pages.tobytes()
    assert (seen.registers["rcx"] == zero).all()
    for name in ("rdi", "rsi"):
        assert (seen.registers[name] == before.registers[name] + np.uint64(PAGE_SIZE)).all()


def test_what_the_model_does_not_know_is_refused() -> None:
    for raw in ("0fa2", "0f31", "f3aa", "a5", "48d3e0", "cf", "0f0b", "8ec8"):
        case = case_of(bytes.fromhex(raw), 64) if raw != "8ec8" else None
        if case is not None:
            with pytest.raises(Refused):
                modelled(case, states(case, 1), {"cr0": 0, "cr3": 0, "cr4": 0})


@pytest.mark.parametrize("raw", ["0f30", "0f32"])
def test_a_model_specific_register_other_than_efer_is_refused(raw: str) -> None:
    case = case_of(bytes.fromhex(raw), 64)
    before = states(case, 1)
    before.registers["rcx"] = before.registers["rcx"] + np.uint64(1)
    with pytest.raises(Refused):
        modelled(case, before, {"cr0": 0, "cr3": 0, "cr4": 0})


def test_every_form_of_every_routine_is_compared() -> None:
    left = set(forms()) - set(compared())
    assert {text.split()[0] for text, _ in left} <= {"rep", "nopl", "nopw", "mov", "pushq", "xchg"}
    assert len(compared()) > 130
