"""The machines agree on a thousand random handovers, and with one thing broken they do not."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.makers.screens import facts, screen
from tests.qemu.pcs import qemu
from tightrope.cli import main
from tightrope.deeds.agree import Agreement, agree, make
from tightrope.deeds.agree.known import KNOWN
from tightrope.errors import BadInput, MissingPart
from tightrope.machine.kvm import Kvm, Pace
from tightrope.machine.port import Machine
from tightrope.machine.unicorn import Emulator
from tightrope.machine.unicorn.alone import Alone
from tightrope.memory import Phys
from tightrope.model import Fault, Handover, Paging, Run, Stop
from tightrope.views import agreement as report
from tightrope.x86 import cpu as x86
from tightrope.x86.walk import Access, Mmu, ReadEntry, Refused, Translated, walk

SEED = 1
COUNT = 1000
STEPPED = 60
ON_QEMU = 30
CIRCLING = 28
"""The one of these that goes in circles: on a PC it does until its time is over, however long that is."""
LIMIT = 20_000
"""Instructions: of the thousand none needs more than 10,667, and one that goes in circles is soon over.
"""
LIMIT_ALONE = 300_000
"""The same for Unicorn by itself, which counts each turn of a repeated move: 64,000 at the most."""
CIRCLES = 300.0
"""Seconds after which a PC goes in circles: its walks take a fifth of one, on a quiet computer."""


def emulator() -> Emulator:
    return Emulator(instruction_limit=LIMIT)


def alone() -> Alone:
    return Alone(instruction_limit=LIMIT_ALONE)


def run(numbers: range, *on: Machine, seed: int = SEED) -> Agreement:
    return agree(on or (emulator(), alone()), seed=seed, numbers=numbers)


@pytest.fixture(scope="module")
def thousand() -> Iterator[Agreement]:
    """A thousand cases on the emulator, on Unicorn's own MMU, and on KVM where there is one."""
    on: list[Machine] = [emulator(), alone()]
    with suppress(MissingPart):  # the test of KVM says so
        on.append(Kvm(Pace.FREE, seconds=5))
    yield agree(on, seed=SEED, numbers=range(COUNT))
    for each in on:
        each.close()


# -------------------------------------------------------------------------------------- they agree


def test_nothing_is_unexplained_in_a_thousand_cases(thousand: Agreement) -> None:
    assert [report.replay(thousand, each) for each in thousand.unexplained] == []
    assert thousand.compared["unicorn"] == COUNT
    assert 0.3 * COUNT < thousand.holds < 0.7 * COUNT


def test_kvm_walked_its_part_of_them(thousand: Agreement, kvm_free: Kvm) -> None:
    could_not = sum(n for (name, _), n in thousand.could_not.items() if name == "kvm-free")
    assert thousand.compared["kvm-free"] == COUNT - could_not > COUNT / 5
    assert all(
        "this computer's KVM has no" in why or "gave up" in why for _, why in thousand.could_not
    )


def test_kvm_step_by_step_agrees_as_well(kvm: Kvm) -> None:
    got = run(range(STEPPED), emulator(), kvm)
    assert [report.replay(got, each) for each in got.unexplained] == []
    assert got.compared["kvm"] > 0


def test_a_whole_pc_agrees_on_a_few() -> None:
    numbers = [each for each in range(ON_QEMU) if each != CIRCLING]
    compared = 0
    for some, seconds in ((numbers, CIRCLES), ([CIRCLING], 1.0)):
        machine = qemu(walk_seconds=seconds)
        try:
            got = agree((emulator(), machine), seed=SEED, numbers=some)
        finally:
            machine.close()
        assert [report.replay(got, each) for each in got.unexplained] == []
        compared += got.compared["qemu"]
    assert compared > ON_QEMU / 3
    assert emulator().run(make(SEED, CIRCLING).handover).stop is Stop.LIMIT


def test_every_explanation_of_unicorns_is_used(thousand: Agreement) -> None:
    used = {each.explained for each in thousand.differences if each.machine == "unicorn"}
    # test_unicorns_faults has these.
    rare = {
        "Unicorn raises #GP for the stack, not #SS",
        "Unicorn reads a block of instructions ahead, and faults before the first of it has run",
    }
    assert used >= {known.why for known in KNOWN if known.machine == "unicorn"} - rare


def test_explained_differences_are_the_few(thousand: Agreement) -> None:
    cases = {each.number for each in thousand.differences}
    assert 0 < len(cases) < COUNT / 8


# ----------------------------------------------------------------------------------------- the cases


def test_the_cases_are_of_every_mode_and_of_every_kind() -> None:
    told = Counter(word for n in range(300) for word in make(SEED, n).says.split(", "))
    assert all(told[paging.value] > 20 for paging in Paging)
    assert told["sound"] > 50
    assert sum(told[each] for each in told if each.startswith("bit ")) > 50


@settings(max_examples=30)
@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_a_case_is_made_from_its_seed_and_number_alone(seed: int, number: int) -> None:
    one, other = make(seed, number), make(seed, number)
    assert one.says == other.says
    assert one.handover.registers == other.handover.registers
    assert [bytes(p.data) for p in one.handover.pieces] == [
        bytes(p.data) for p in other.handover.pieces
    ]


def test_two_numbers_are_two_cases() -> None:
    registers = [make(SEED, n).handover.registers for n in range(20)]
    assert len({each.cr3 for each in registers} | {each.rip for each in registers}) > 10


# ---------------------------------------------------------------------------- and when they do not

SOME = range(60)


Walk = Callable[[ReadEntry, Mmu, int, Access], Translated | Refused]


def walking(monkeypatch: pytest.MonkeyPatch, walk: Walk) -> None:
    """The emulator's MMU, with another walker."""
    monkeypatch.setattr("tightrope.observe.mmu.walk", walk)


def test_a_walker_that_ignores_nx_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def ignoring(read: ReadEntry, mmu: Mmu, virt: int, access: Access) -> Translated | Refused:
        return walk(read, mmu, virt, Access.READ if access is Access.FETCH else access)

    walking(monkeypatch, ignoring)
    executable = [n for n in range(300) if "nx" in make(SEED, n).says]
    assert agree([emulator(), alone()], seed=SEED, numbers=executable).unexplained != ()


def test_a_walker_that_loses_an_address_bit_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def losing(read: ReadEntry, mmu: Mmu, virt: int, access: Access) -> Translated | Refused:
        got = walk(read, mmu, virt, access)
        if isinstance(got, Refused) or access is Access.FETCH:
            return got
        return got._replace(phys=Phys(got.phys & ~(1 << 13)))

    walking(monkeypatch, losing)
    assert run(SOME).unexplained != ()


def refusing(
    monkeypatch: pytest.MonkeyPatch, answer: tuple[int, str] | None, *registers: str
) -> None:
    """The emulator's legality, with another answer for some registers."""
    real = x86.refused

    def other(now: x86.ControlState, register: str, value: int) -> tuple[int, str] | None:
        return answer if register in registers else real(now, register, value)

    monkeypatch.setattr(x86, "refused", other)


def test_a_legality_check_that_is_too_strict_is_found_out_by_kvm(
    monkeypatch: pytest.MonkeyPatch, kvm_free: Kvm
) -> None:
    refusing(monkeypatch, (13, "made up"), "cr0")
    assert run(SOME, emulator(), kvm_free).unexplained != ()


def test_a_legality_check_that_is_missing_is_found_out_by_kvm(
    monkeypatch: pytest.MonkeyPatch, kvm_free: Kvm
) -> None:
    illegal = [n for n in range(400, 520) if "constant" in make(SEED, n).says]
    refusing(monkeypatch, None, "cr0", "cr4")
    got = agree([emulator(), kvm_free], seed=SEED, numbers=illegal)
    assert got.unexplained != ()


class Liar(Alone):
    """Unicorn, and then one thing told wrong."""

    def __init__(self, change: Callable[[Run], Run]) -> None:
        super().__init__(instruction_limit=LIMIT_ALONE)
        self._change = change

    def run(self, handover: Handover) -> Run:
        return self._change(super().run(handover))


def _fault(got: Run, **changes: object) -> Run:
    assert isinstance(got.fault, Fault | None)
    return got if got.fault is None else replace(got, fault=replace(got.fault, **changes))  # type: ignore[arg-type]


def _byte(got: Run) -> Run:
    """One byte of the first frame in use is another."""
    if got.stop is Stop.ENTRY:
        memory = got.memory
        frame = min(memory.in_use())  # type: ignore[attr-defined]
        memory.write(frame << 12, b"\x77")  # type: ignore[attr-defined]
    return got


LIES: dict[str, tuple[str, Callable[[Run], Run]]] = {
    "vector": ("fault", lambda got: _fault(got, vector=12)),
    "error code": ("fault", lambda got: _fault(got, error_code=0x40)),
    "address": ("fault", lambda got: _fault(got, address=0x1234)),
    "instruction": ("fault", lambda got: _fault(got, rip=0x1234)),
    "a general register": (
        "registers",
        lambda got: replace(
            got, registers=replace(got.registers, general={**got.registers.general, "r9": 5})
        ),
    ),
    "a control register": (
        "registers",
        lambda got: replace(got, registers=replace(got.registers, cr3=0x9000)),
    ),
    "the idt": (
        "registers",
        lambda got: replace(got, registers=replace(got.registers, idt=(0, 9))),
    ),
    "a byte of memory": ("memory", _byte),
    "the verdict": ("verdict", lambda got: replace(got, stop=Stop.HALT)),
}


@pytest.mark.parametrize("what", LIES)
def test_one_thing_that_is_told_wrong_is_found(what: str) -> None:
    kind, lie = LIES[what]
    got = run(range(12), emulator(), Liar(lie))
    assert kind in {each.what for each in got.unexplained}


# --------------------------------------------------------------------------------------- what is said


@cache
def disagreement() -> Agreement:
    return run(range(8), emulator(), Liar(LIES["a control register"][1]))


def test_a_difference_is_printed_with_the_command_that_replays_it() -> None:
    text = screen(report.VIEW, disagreement())
    first = disagreement().unexplained[0]
    assert f"tightrope agree --seed 1 --only {first.number} --on emulator,unicorn" in text
    assert "cr3 0x9000" in text
    assert text.endswith(f"They do not agree: {len(disagreement().unexplained)} differences.")


def test_the_document_has_every_difference_and_survives_json() -> None:
    document = facts(report.VIEW, disagreement())
    assert json.loads(json.dumps(document)) == document
    assert len(document["differences"]) == len(disagreement().differences)


def test_the_command_prints_that_they_agree(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agree", "--count", "5", "--on", "emulator,unicorn"]) == 0
    text = capsys.readouterr().out
    assert re.match(r"5 cases of seed 1 on the emulator: \d hold, \d fall", text)
    assert text.splitlines()[-1] == "They agree."


def test_one_case_is_replayed_alone(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["agree", "--seed", "7", "--only", "3", "--on", "emulator,unicorn", "--json"]
    assert main(line) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["seed"], document["cases"]) == (7, 1)


def test_what_is_asked_in_vain_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agree", "--on", "emulator"]) == 2
    assert "it takes two machines to agree" in capsys.readouterr().err
    assert main(["agree", "--count", "0"]) == 2
    assert "0 is not a number from 1 up" in capsys.readouterr().err


def test_cases_of_which_nothing_can_be_made_are_said_to_be_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_arguments: object) -> None:
        raise BadInput("made up", source="test")

    monkeypatch.setattr("tightrope.deeds.agree.cases._draw", refuse)
    with pytest.raises(BadInput, match="nothing can be made of case 3"):
        make(1, 3)
