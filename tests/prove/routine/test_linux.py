"""Linux's own relocate_kernel under theorem 5: the very bytes of Debian's 6.1 to 7.3, and mistakes in them.

Rules: a mistake is one instruction of the image changed; what it breaks is said in the obligation's words.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from tests.conftest import debian_kernel
from tests.participants.test_linux_walks import old_code
from tightrope.cli import main
from tightrope.model import Code, Paging, Participant
from tightrope.model.proof import Answer
from tightrope.prove.goal import Limits
from tightrope.prove.routine.linux import linux_7
from tightrope.prove.routine.linux_6 import linux_6, linux_i386
from tightrope.prove.routine.verify import Verified, verify

LIMITS = Limits(seconds=600)


@cache
def theirs(flavour: str = "amd64-7.3") -> Participant:
    return old_code(flavour).participant


def proved(data: bytes, mode: Paging = Paging.X86_64) -> Verified:
    return verify(data, linux_7(theirs(), mode), LIMITS)


@pytest.mark.parametrize(
    ("flavour", "mode"),
    [("amd64-7.2", Paging.X86_64), ("amd64-7.3", Paging.LA57)],
)
def test_what_debian_ships_is_proved(flavour: str, mode: Paging) -> None:
    code = theirs(flavour)
    got = verify(code.code.data, linux_7(code, mode), LIMITS)
    assert got.answer is Answer.HOLDS, got.failure
    assert got.obligations > 400
    assert got.walked is not None
    # The loop is relocate's own, and the way that comes back is not walked: flags are 0.
    assert not any(0x11B <= each < 0x1B1 for each in got.walked.executed)


def changed(was: str, becomes: str) -> bytes:
    before, after = bytes.fromhex(was), bytes.fromhex(becomes)
    data = theirs().code.data
    assert data[:0x250].count(before) == 1, data[:0x250].count(before)
    assert len(before) == len(after)
    return data.replace(before, after, 1)


@pytest.mark.parametrize(
    ("what", "was", "becomes", "says"),
    [
        ("PGE is left on at V", "4981e47ffffff7", "4981e4fffffff7", "old global translation"),
        ("LASS is left on at V", "4981e47ffffff7", "4981e47fffffff", "CR4.LASS may be set"),
        ("interrupts come back", "4883c4089d", "4883c40890", "RFLAGS.IF may be set"),
        ("the stack is a page too high", "488da600100000", "488da600200000", "is not reachable"),
        ("CR0.WP goes before CR4.CET", "4825ffff7fff", "4825ffffffff", "CR0.WP cannot be cleared"),
        ("CR4 keeps PGE", "4181e520100000", "4181e5a0100000", "cr4 is not what the contract says"),
        ("no serializing load of CR3", "0f20d80f22d841f6c301", "0f20d890909041f6c301", "serialized"),
        ("half a page is copied", "b900020000f348a5488db000100000", "b900010000f348a5488db000100000", "not one page"),
        ("two words of the list at a time", "4883c308f6c101", "4883c310f6c101", "after one word of the list"),
        ("r15 is left", "4531ffc3", "909090c3", "r15 is not 0"),
        ("no word above the start", "6a0052488d05", "90 90 52 488d05".replace(" ", ""), "at the entry"),
    ],
)  # fmt: skip
def test_a_mistake_is_a_counterexample(what: str, was: str, becomes: str, says: str) -> None:
    got = proved(changed(was, becomes))
    assert got.answer is Answer.FAILS, what
    assert got.failure is not None
    assert says in got.failure.obligation.says, got.failure.obligation.says


@pytest.mark.parametrize("name", ["list-begins", "v-is-p"])
def test_what_linux_grants_is_needed(name: str) -> None:
    contract = linux_7(theirs(), Paging.X86_64)
    contract.hypotheses = [each for each in contract.hypotheses if each.name != name]
    got = verify(theirs().code.data, contract, LIMITS)
    assert got.answer is Answer.FAILS


def exchanging(data: bytes, without: str = "", mode: Paging = Paging.X86_64) -> Verified:
    """The code of 6.x, under its contract without a hypothesis."""
    contract = linux_6(mode) if mode.long_mode else linux_i386(mode)
    contract.hypotheses = [each for each in contract.hypotheses if each.name != without]
    return verify(data, contract, LIMITS)


def six(flavour: str = "amd64-6.12") -> bytes:
    code = theirs(flavour)
    return code.code.data[: code.contract.same]


@pytest.mark.parametrize(
    ("flavour", "mode", "least"),
    [
        ("amd64-6.12", Paging.X86_64, 400),
        ("amd64", Paging.LA57, 400),
        ("686", Paging.I386, 300),
        ("686-pae", Paging.PAE, 300),
    ],
)
def test_what_debian_shipped_before_is_proved_as_well(
    flavour: str, mode: Paging, least: int
) -> None:
    got = exchanging(six(flavour), mode=mode)
    assert got.answer is Answer.HOLDS, got.failure
    assert got.obligations > least
    # The loop is swap_pages' own, and the way that comes back is not walked: preserve_context is 0.
    back, swap = (theirs(flavour).code.symbols[each] for each in ("virtual_mapped", "swap_pages"))
    assert got.walked is not None
    assert not any(back <= each < swap for each in got.walked.executed)
    assert got.walked.head > swap


@pytest.mark.parametrize(
    ("what", "was", "becomes", "says"),
    [
        ("nothing is put aside", "4c89d7b900020000f348a5", "4c89d7b900020000909090", "not what the list asks for"),
        ("half a page is put aside", "4c89d7b900020000f348a5", "4c89d7b900010000f348a5", "not one page"),
        ("CR4 keeps PGE", "4181e520100000", "4181e5a0100000", "old global translations are still allowed"),
        ("the stack is a page too high", "498da0001000004981c0", "498da0002000004981c0", "is not reachable"),
        ("CR0.WP goes before CR4.CET", "4825ffff7fff", "4825ffffffff", "CR0.WP cannot be cleared"),
        ("the old stack pointer is kept in the code", "4989a300080000", "4989a300070000", "outside the free part"),
        ("two words of the list at a time", "4883c308f6c101", "4883c310f6c101", "after one word of the list"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_exchange_is_a_counterexample(
    what: str, was: str, becomes: str, says: str
) -> None:
    before, after = bytes.fromhex(was), bytes.fromhex(becomes)
    assert six()[:0x120].count(before) + six()[0x160:].count(before) == 1
    got = exchanging(six().replace(before, after))
    assert got.answer is Answer.FAILS, what
    assert got.failure is not None
    assert says in got.failure.obligation.says, got.failure.obligation.says


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no-lass", "CR4.LASS may be set"),
        ("P-not-global", "old global translation"),
        ("mapped-aligned", "not page aligned"),
        ("list-begins", "is read anywhere"),
    ],
)
def test_what_linux_6_grants_is_needed(name: str, says: str) -> None:
    got = exchanging(six(), without=name)
    assert got.answer is Answer.FAILS
    assert got.failure is not None
    assert says in got.failure.obligation.says


@pytest.mark.parametrize(
    ("what", "was", "becomes", "says"),
    [
        ("paging stays on", "25f3fffa7f", "25f3fffaff", "CR0.PG stays what the old kernel had"),
        ("has_pae is not asked", "85c97407", "85c9eb07", "cr4 is not what the contract says"),
        ("half a page comes back", "89d6b900040000f3a5", "89d6b900020000f3a5", "not one page"),
    ],
)  # fmt: skip
def test_a_mistake_in_32_bits_is_a_counterexample(
    what: str, was: str, becomes: str, says: str
) -> None:
    before, after = bytes.fromhex(was), bytes.fromhex(becomes)
    data = six("686-pae")
    assert (data[:0x1D0].count(before), len(before)) == (1, len(after))
    got = exchanging(data.replace(before, after), mode=Paging.PAE)
    assert got.answer is Answer.FAILS, what
    assert got.failure is not None
    assert says in got.failure.obligation.says, got.failure.obligation.says


@pytest.mark.parametrize("name", ["no-cet", "P-not-global"])
def test_what_a_32_bit_linux_grants_is_needed(name: str) -> None:
    assert exchanging(six("686-pae"), name, Paging.PAE).answer is Answer.FAILS


@pytest.mark.parametrize("name", ["swap-kept", "control-page-no-source", "tables-no-source"])
def test_what_a_plan_promises_an_exchange_is_needed(name: str) -> None:
    contract = linux_6(Paging.X86_64)
    promised = contract.list_hypotheses
    contract.list_hypotheses = lambda at: [  # type: ignore[method-assign]
        each for each in promised(at) if each.name != name
    ]
    assert verify(six(), contract, LIMITS).answer is Answer.FAILS


def test_the_root_that_nobody_filled_in_is_a_counterexample() -> None:
    code = theirs()
    symbols = {**code.code.symbols, "kexec_pa_table_page": 0x548}
    wrong: Code = replace(code.code, symbols=symbols)
    contract = linux_7(replace(code, code=wrong), Paging.X86_64)
    got = verify(code.code.data, contract, LIMITS)
    assert got.answer is Answer.FAILS
    assert got.failure is not None
    assert "neither page_table_a nor page_table_b" in got.failure.obligation.says


def test_the_command_proves_an_image_and_says_what_it_cannot(
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = str(debian_kernel("amd64-7.3"))
    assert main(["prove", "code", path, "--contract", "linux", "--mode", "x86_64"]) == 0
    said = capsys.readouterr().out
    assert "own relocate_kernel" in said
    assert "holds for all values, by z3" in said
    for words, says in (
        (
            [str(debian_kernel("xen-amd64")), "--contract", "linux"],
            "is a hypervisor, and there is a proof for Linux's own code alone",
        ),
        ([path, "--contract", "linux", "--mode", "pae"], "its code is 64-bit, and pae is not"),
        (["none", "--contract", "linux"], "No such file"),
        ([path, "--contract", "windows"], "is not a contract; there are two-tables, linux"),
    ):
        assert main(["prove", "code", *words]) == 2
        said = capsys.readouterr().err
        assert says in said
        assert len(said.splitlines()) == 1
