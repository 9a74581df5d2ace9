"""Linux's own relocation code, walked: it holds as Debian ships it, and falls when a byte of it is wrong.

What is weak is advice, and which advice depends on the contract alone.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from tests.conftest import debian_kernel
from tightrope import image, shipped
from tightrope.deeds import defaults, old_kernel
from tightrope.deeds.machines import emulator
from tightrope.deeds.old_kernel import OldKernel
from tightrope.deeds.rehearse import rehearse
from tightrope.errors import BadInput, PlanError
from tightrope.machine.port import Machine
from tightrope.memory import Extent
from tightrope.model import (
    EVERY_PROMISE,
    Contract,
    Image,
    Old,
    Outcome,
    Paging,
    Participant,
    Promise,
    Stop,
    Verdict,
    XenInterface,
)
from tightrope.participants.linux import Convention
from tightrope.plan import Request
from tightrope.report import text
from tightrope.views.handler import printed
from tightrope.views.rehearsal import VIEW

WIDE = ["amd64", "cloud-amd64", "amd64-6.12", "cloud-amd64-6.12"]
WIDE_7 = ["amd64-7.2", "cloud-amd64-7.2", "amd64-7.3", "cloud-amd64-7.3"]
TABLES = "table-b-nothing-else"
GLOBALS = "pge-before-identity"


@cache
def old_code(flavour: str) -> OldKernel:
    return old_kernel.read(debian_kernel(flavour).read_bytes(), flavour)


@pytest.fixture(scope="module")
def machine() -> Machine:
    return emulator()


@pytest.fixture(scope="module")
def new() -> Image:
    return image.read(shipped.read(), "the shipped kernel")


def walked(
    machine: Machine,
    new: Image,
    flavour: str,
    *,
    mode: Paging = Paging.X86_64,
    crash: bool = False,
    participant: Participant | None = None,
) -> Verdict:
    code = old_code(flavour)
    old = defaults.example(paging=mode, xen=None, dom0_bits=None, crash=crash)
    if crash and not mode.long_mode:
        # A 32-bit kernel reserves what it maps: the control page is called in the direct map.
        old = replace(old, crash_region=Extent.sized(0x2000_0000, 0x1000_0000))
    return rehearse(
        new,
        code.host(old),
        code.request(Request(command_line="a word", crash=crash)),
        design=participant or code.participant,
        machine=machine,
    )


def advice(verdict: Verdict) -> list[str]:
    return [each.rule for each in verdict.advice]


# ------------------------------------------------------------------------------------ it holds


@pytest.mark.parametrize("crash", [False, True], ids=["kexec", "crash"])
@pytest.mark.parametrize("mode", [Paging.X86_64, Paging.LA57])
@pytest.mark.parametrize("flavour", WIDE + WIDE_7)
def test_what_debian_ships_holds(
    machine: Machine, new: Image, flavour: str, mode: Paging, crash: bool
) -> None:
    verdict = walked(machine, new, flavour, mode=mode, crash=crash)
    assert verdict.findings == ()
    assert verdict.outcome is Outcome.HOLDS
    assert verdict.run.stop is Stop.ENTRY
    # Linux 7 drops global translations before it trusts P.
    assert advice(verdict) == ([GLOBALS, TABLES] if flavour in WIDE else [TABLES])
    assert verdict.handover.relocation_code.image is not None
    # Three copies a page through the swap page, or one.
    moved = len(verdict.handover.intent.destinations)
    pages = len(verdict.run.copies)
    assert (pages == 0) if crash else (pages >= moved * (3 if flavour in WIDE else 1))


@pytest.mark.parametrize("crash", [False, True], ids=["kexec", "crash"])
@pytest.mark.parametrize(("flavour", "mode"), [("686", Paging.I386), ("686-pae", Paging.PAE)])
def test_what_debian_ships_for_i386_holds(
    machine: Machine, flavour: str, mode: Paging, crash: bool
) -> None:
    path = debian_kernel(flavour)
    kernel = image.read(path.read_bytes(), flavour)
    verdict = walked(machine, kernel, flavour, mode=mode, crash=crash)
    assert verdict.findings == ()
    assert verdict.outcome is Outcome.HOLDS
    assert advice(verdict) == [GLOBALS]
    assert verdict.run.registers.cr4 == 0


# ------------------------------------------------------------------- it falls, by the byte


def broken(flavour: str, was: str, becomes: str, count: int = 1) -> Participant:
    """The code with its `count`-th occurrence of some bytes changed, or all of them (0)."""
    found = old_code(flavour).participant
    data, before, after = found.code.data, bytes.fromhex(was), bytes.fromhex(becomes)
    assert before in data
    assert len(before) == len(after)
    data = data.replace(before, after, count or -1)
    return replace(found, code=replace(found.code, data=data))


@pytest.mark.parametrize(
    ("flavour", "was", "becomes", "rule", "why"),
    [
        ("amd64-6.12", "b900020000", "b9ff010000", "copies-follow-list", "a word less is copied"),
        ("amd64-6.12", "498da000100000", "90909090909090", "access-mapped", "no stack at P"),
        ("amd64-6.12", "4c8b4e10", "4c8b4e18", "fetch-mapped", "CR3 from another word"),
        ("amd64-6.12", "4181e520100000", "4181e5a0100000", "known-state", "PGE is kept"),
        ("amd64-6.12", "4883c308", "4883c310", "access-mapped", "every second word"),
        ("amd64-7.3", "4c8b0d12050000", "4c8b0d0a050000", "legal-writes", "CR3 from another variable"),
        ("amd64-7.3", "4981e47ffffff7", "4981e4fffffff7", GLOBALS, "PGE is left on at V"),
        ("amd64-7.3", "6668ff00", "6668ff01", "idt-gone", "an idt that is longer than its gates"),
    ],
)  # fmt: skip
def test_one_wrong_instruction_falls(
    machine: Machine, new: Image, flavour: str, was: str, becomes: str, rule: str, why: str
) -> None:
    verdict = walked(machine, new, flavour, participant=broken(flavour, was, becomes))
    assert verdict.outcome is Outcome.FALLS, why
    assert rule in [each.rule for each in verdict.findings], why


# ------------------------------------------------------------- it falls, by what is promised


def under(flavour: str, contract: Contract) -> Participant:
    return replace(old_code(flavour).participant, contract=contract)


def test_what_nobody_promises_is_advice_and_what_somebody_does_is_a_fall(
    machine: Machine, new: Image
) -> None:
    own = old_code("amd64-6.12").participant.contract
    stricter = replace(own, promises=own.promises | {Promise.GLOBALS_DROPPED})
    verdict = walked(machine, new, "amd64-6.12", participant=under("amd64-6.12", stricter))
    assert [each.rule for each in verdict.findings] == [GLOBALS]
    assert advice(verdict) == [TABLES]


@pytest.mark.parametrize(
    ("flavour", "changed", "rules"),
    [
        # The old kernel's stack is written at V: every push is a store into what the walk does not own.
        ("amd64-6.12", {"old": {}}, ["stores-owned", "loads-owned"]),
        ("amd64-7.3", {"old": {Old.STACK: 3}}, ["idt-gone"]),
        # Half of the page at V is other text than the control page's save area.
        ("amd64-6.12", {"same": 4096}, ["tlb-agreement"]),
        ("amd64-6.12", {"promises": EVERY_PROMISE}, [GLOBALS, TABLES, "copies-follow-list"]),
        ("amd64-7.3", {"gates": None}, ["idt-gone"]),
    ],
)
def test_the_same_code_falls_under_another_contract(
    machine: Machine, new: Image, flavour: str, changed: dict[str, object], rules: list[str]
) -> None:
    contract = replace(old_code(flavour).participant.contract, **changed)  # type: ignore[arg-type]
    verdict = walked(machine, new, flavour, participant=under(flavour, contract))
    assert set(rules) <= {each.rule for each in verdict.findings}


def test_a_variable_that_nobody_filled_in_falls(machine: Machine, new: Image) -> None:
    own = old_code("amd64-7.3").participant.contract
    empty = replace(own, words={"kexec_va_control_page": own.words["kexec_va_control_page"]})
    verdict = walked(machine, new, "amd64-7.3", participant=under("amd64-7.3", empty))
    assert verdict.outcome is Outcome.FALLS
    assert verdict.run.stop is Stop.FAULT


# ------------------------------------------------------------------------ the host and its V


def test_v_is_where_each_convention_has_it() -> None:
    old = defaults.example(paging=Paging.X86_64, xen=None, dom0_bits=None, crash=False)
    unknown = replace(old, relocation=None)
    six, seven = old_code("amd64-6.12"), old_code("amd64-7.3")
    behind = six.found.virt - six.found.text
    assert six.host(unknown).relocation == old.text.virt + behind
    assert six.host(old).relocation == old.relocation
    assert seven.host(old).relocation is None


def test_code_of_another_width_is_refused() -> None:
    wide = defaults.example(paging=Paging.X86_64, xen=None, dom0_bits=None, crash=False)
    narrow = defaults.example(paging=Paging.PAE, xen=None, dom0_bits=None, crash=False)
    with pytest.raises(BadInput, match="is a 32-bit kernel"):
        old_code("686-pae").host(wide)
    with pytest.raises(BadInput, match="is a 64-bit kernel"):
        old_code("amd64").host(narrow)


@pytest.mark.parametrize("interface", XenInterface)
def test_under_xen_the_code_is_not_the_old_kernels_to_choose(
    new: Image, interface: XenInterface
) -> None:
    code = old_code("amd64")
    old = defaults.example(paging=Paging.X86_64, xen=interface, dom0_bits=None, crash=False)
    with pytest.raises(PlanError):
        rehearse(new, old, Request(xen=interface), design=code.participant)


def test_conventions_are_all_walked() -> None:
    flavours = (*WIDE, *WIDE_7, "686", "686-pae")
    assert {old_code(each).found.convention for each in flavours} == set(Convention)


# ------------------------------------------------------------------- what its own handlers print


def test_a_fault_behind_the_gates_of_linux_7_is_told_as_its_handler_prints_it(
    machine: Machine, new: Image
) -> None:
    # shl $8, %rbx in place of add $8: the list's second word is looked for where nothing is mapped.
    verdict = walked(
        machine, new, "amd64-7.3", participant=broken("amd64-7.3", "4883c308", "48c1e308")
    )
    fault = verdict.run.fault
    assert fault is not None
    lines = dict(line.split(":") for line in printed(verdict))
    assert int(lines["Exc"], 16) == fault.vector == 14
    assert int(lines["Err"], 16) == fault.error_code
    assert int(lines["cr2"], 16) == fault.address
    assert int(lines["rip"], 16) == fault.rip
    assert [*lines][:4] == ["Exc", "Err", "rip", "rsp"]
    assert len(lines) == 19
    shown = text.text(VIEW.sheet(verdict))
    assert f"Exc:{14:016x}" in shown
    assert "would print the exception and halt" in shown


@pytest.mark.parametrize("flavour", ["amd64-6.12", "amd64-7.3"])
def test_nothing_is_printed_of_what_holds_or_resets(
    machine: Machine, new: Image, flavour: str
) -> None:
    assert printed(walked(machine, new, flavour)) == ()
    if flavour == "amd64-6.12":
        wrong = broken(flavour, "4883c308", "48c1e308")
        assert printed(walked(machine, new, flavour, participant=wrong)) == ()
