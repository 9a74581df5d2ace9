"""Intel's CPUs, AMD's, and confidential guests: each difference that a walk can meet, both ways.

Rules: the table in docs/machines.md names these tests' differences; what is refused is refused for the one
and not for the other.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from tests.makers.designs import TWO_TABLES
from tests.makers.hosts import table_b
from tests.modes.runs import shared
from tests.participants.test_linux_walks import broken, old_code
from tests.rehearse.runs import example_host, shipped_kernel
from tightrope import host as host_room
from tightrope.check import check
from tightrope.deeds.rehearse import build, prepare, rehearse
from tightrope.errors import HostError
from tightrope.host.capture import cpuinfo
from tightrope.model import (
    Code,
    Confidential,
    CpuVendor,
    Finding,
    Handover,
    Host,
    Outcome,
    Paging,
    Participant,
    Verdict,
)
from tightrope.model.proof import Answer
from tightrope.participants.relocation import named
from tightrope.participants.relocation.in_guest import changed
from tightrope.plan import Request
from tightrope.sabotage.edits import with_tables
from tightrope.x86 import control
from tightrope.x86 import cpu as x86
from tightrope.x86.walk import Access, Mmu, Refused, walk

LASS, MCE = 1 << 27, 1 << 6
TDX, SNP, ES = Confidential.TDX, Confidential.SNP, Confidential.ES


def on(vendor: CpuVendor | None = None, guest: Confidential | None = None) -> Host:
    old = example_host()
    return replace(old, cpu=replace(old.cpu, vendor=vendor, guest=guest))


@cache
def written() -> Participant:
    """The routine as it stands in its source."""
    return named(TWO_TABLES)(Paging.X86_64)


def with_bytes(was: str, becomes: str) -> Participant:
    code = written()
    before, after = bytes.fromhex(was), bytes.fromhex(becomes)
    assert code.code.data.count(before) == 1
    assert len(before) == len(after)
    return replace(code, code=replace(code.code, data=code.code.data.replace(before, after)))


def walked(old: Host, design: str | Participant = TWO_TABLES) -> Verdict:
    return rehearse(shipped_kernel(), old, Request(), design=design, machine=shared())


def rules(findings: tuple[Finding, ...]) -> list[str]:
    return [each.rule for each in findings]


# ---------------------------------------------------------------------------------------- reserved bits


def state(facts: int, **registers: int) -> x86.ControlState:
    known = {"cr0": 0x8005_0033, "cr3": 0x1000, "cr4": 0x6F0, "efer": 0xD01} | registers
    return x86.ControlState(**known, code64=True, physical_bits=46, la57=False, facts=facts)


@pytest.mark.parametrize(
    ("register", "bits"), [("cr4", control.CR4), ("efer", control.EFER)], ids=["cr4", "efer"]
)
def test_a_bit_of_one_makers_is_reserved_on_the_others(
    register: str, bits: tuple[control.ControlBit, ...]
) -> None:
    free = {"LA57", "PCIDE", "CET", "LME"}  # they have rules of their own
    for each in bits:
        if each.name in free:
            continue
        value = {"cr4": 0x6F0, "efer": 0xD01}[register] | each.mask
        for facts, vendor in (
            (0, control.BOTH),
            (control.IS_INTEL, control.INTEL),
            (control.IS_AMD, control.AMD),
        ):
            refused = x86.refused(state(facts), register, value)
            assert (refused is None) == bool(each.vendor & vendor), (each.name, facts)


VMXE_KEPT = ("0f20e025201000000f22e0", "0f20e00d202000000f22e0")
"""and $PAE|LA57, %eax becomes or $VMXE|PAE, %eax."""


@pytest.mark.parametrize(
    ("vendor", "refused"), [(CpuVendor.AMD, True), (CpuVendor.INTEL, False), (None, False)]
)
def test_code_that_sets_a_bit_of_intels_falls_on_amd(
    vendor: CpuVendor | None, refused: bool
) -> None:
    assert ("legal-writes" in rules(walked(on(vendor), with_bytes(*VMXE_KEPT)).findings)) == refused


def bit_8(handover: Handover) -> Handover:
    """Bit 8 of the first entry of page_table_b's root, a PML4E."""
    tables = table_b(handover)
    page = bytearray(tables.pages[tables.root])
    assert page[0] & 1
    page[1] |= 1
    return with_tables(handover, int(tables.root), bytes(page))


@pytest.mark.parametrize(
    ("vendor", "expected"),
    [
        (CpuVendor.AMD, {"reserved-bits", "fault-reserved"}),
        (CpuVendor.INTEL, set()),
        (None, {"reserved-bits"}),
    ],
)
def test_bit_8_of_a_pml4e_is_reserved_by_amd_and_ignored_by_intel(
    vendor: CpuVendor | None, expected: set[str]
) -> None:
    built = bit_8(build(prepare(shipped_kernel(), on(vendor), Request()), design=TWO_TABLES))
    found = rules(check(built, shared().run(built)))
    assert expected <= set(found)
    assert bool(found) == bool(expected)


# ----------------------------------------------------------------------------------------- far branches


def far() -> Participant:
    """lretq to the identity address becomes a far jump through ten bytes on the stack.

    lea identity(%rsi), %rax; push $CS; push %rax; rex.w ljmp *(%rsp): one byte longer, so the push of a
    selector is taken from where the flags' zero was.
    """
    code = written()
    data = bytearray(code.code.data)
    at = data.index(bytes.fromhex("6a10488d866f0000005048cb"))
    # mov $0x18, %eax ... mov %eax, %gs leaves 0x18 in eax; four bytes of loads of fs and gs are given up.
    new = bytes.fromhex("6a10488d866f0000005048ff2c24")
    start = at - 2
    assert data[start:at] == bytes.fromhex("8ee8")  # mov %eax, %gs
    data[start : at + 12] = new
    return replace(code, code=replace(code.code, data=bytes(data)))


@pytest.mark.parametrize(
    ("vendor", "told"), [(CpuVendor.AMD, True), (None, True), (CpuVendor.INTEL, False)]
)
def test_a_far_jump_of_64_bits_is_intels_alone(vendor: CpuVendor | None, told: bool) -> None:
    verdict = walked(on(vendor), far())
    assert verdict.run.registers.rip == verdict.handover.intent.kernel_entry
    assert rules(verdict.findings) == (["far-branch-alike"] if told else [])


# ------------------------------------------------------------------------------------------------ LASS


def lass(*, smap: bool, ac: bool) -> Mmu:
    return Mmu(
        cr0=0x8005_0033,
        cr3=0x1000,
        cr4=0x6F0 | LASS | (1 << 21 if smap else 0),
        efer=0xD01,
        physical_bits=46,
        ac=ac,
    )


@pytest.mark.parametrize(
    ("access", "smap", "ac", "kept_off"),
    [
        (Access.FETCH, False, False, True),
        (Access.FETCH, True, True, True),
        (Access.READ, True, False, True),
        (Access.WRITE, True, False, True),
        (Access.READ, True, True, False),
        (Access.READ, False, False, False),
    ],
)
def test_lass_keeps_the_kernel_off_the_lower_half(
    access: Access, smap: bool, ac: bool, kept_off: bool
) -> None:
    """SDM volume 3, 4.12: fetches always, data where SMAP is in force."""
    table = {0x1000: 0x1000 | 0x63}  # every level is this one page: each address leads to itself

    def read(at: int, _size: int) -> int | None:
        return table.get(at & -4096, 0x1063)

    got = walk(read, lass(smap=smap, ac=ac), 0x7000_0000, access)
    assert (isinstance(got, Refused) and "LASS" in got.reason) == kept_off
    high = walk(read, lass(smap=smap, ac=ac), 0xFFFF_8000_0000_0000, access)
    assert not (isinstance(high, Refused) and "LASS" in high.reason)
    user = replace(lass(smap=smap, ac=ac), user=True)
    low = walk(read, user, 0x7000_0000, access)
    assert not (isinstance(low, Refused) and "LASS" in low.reason)


def with_lass() -> Host:
    old = on(CpuVendor.INTEL)
    return replace(old, cr4=old.cr4 | LASS)


def test_lass_has_to_be_off_before_the_identity_address_is_used() -> None:
    assert walked(with_lass()).findings == ()
    kept = walked(with_lass(), with_bytes("2520100000", "2520100008"))
    assert "LASS" in kept.findings[0].message
    seven = old_code("amd64-7.3")
    for code, falls in (
        (seven.participant, False),
        (broken("amd64-7.3", "4981e47ffffff7", "4981e47fffffff"), True),
    ):
        verdict = rehearse(
            shipped_kernel(), seven.host(with_lass()), seven.request(Request()), design=code, machine=shared()
        )  # fmt: skip
        assert (verdict.outcome is Outcome.FALLS) == falls
        assert falls == ("LASS" in "".join(each.message for each in verdict.findings))


# ------------------------------------------------------------------------------- confidential guests


@pytest.mark.parametrize("guest", list(Confidential))
def test_our_own_code_holds_in_every_guest(guest: Confidential) -> None:
    assert walked(on(guest=guest)).findings == ()


@pytest.mark.parametrize(
    ("guest", "says", "vector"),
    [
        (TDX, "CR4.MCE cannot be cleared in a TDX guest", 20),
        (ES, "DR7 cannot be written in a SEV-ES guest", 29),
        (SNP, "DR7 cannot be written in a SEV-ES guest", 29),
    ],
)
def test_the_routine_as_it_is_written_does_not(guest: Confidential, says: str, vector: int) -> None:
    verdict = walked(on(guest=guest), written())
    assert rules(verdict.findings) == ["legal-writes"]
    assert says in verdict.findings[0].message
    assert verdict.run.fault is not None
    assert verdict.run.fault.vector == vector


@pytest.mark.parametrize("guest", [None, Confidential.SEV])
def test_elsewhere_not_a_byte_is_changed(guest: Confidential | None) -> None:
    assert changed(written().code, guest) is written().code
    other = Code(name="theirs", data=b"\x0f\x23\xf8", symbols={})
    for each in Confidential:
        assert changed(other, each) is other


@pytest.mark.parametrize(
    ("register", "value", "facts", "refused"),
    [
        ("cr4", 0x6B0, control.IN_TDX, True),
        ("cr4", 0x6B0, 0, False),
        ("cr4", 0x60, control.IN_TDX, False),
        ("cr0", 0x8000_0013, control.IN_TDX, True),
        ("cr0", 0x8000_0013, 0, False),
        ("cr0", 0x8000_0033, control.IN_TDX, False),
        ("efer", 0xD01, control.IN_TDX, True),
        ("efer", 0xD01, control.IN_SEV_ES, False),
        ("efer", 0xD01, 0, False),
    ],
)
def test_what_a_tdx_guest_may_not_write(
    register: str, value: int, facts: int, refused: bool
) -> None:
    assert (x86.refused(state(facts), register, value) is not None) == refused


CPUID = ("0f20e025201000000f22e0", "0fa20fa290909090909090")
"""Where CR4 is written, CPUID twice."""


@pytest.mark.parametrize(
    ("guest", "says"), [(TDX, "by #VE"), (ES, "by #VC"), (SNP, "by #VC"), (None, "")]
)
def test_an_instruction_that_asks_the_host_is_an_exception_in_a_guest(
    guest: Confidential | None, says: str
) -> None:
    found = walked(on(guest=guest), with_bytes(*CPUID)).findings
    asked = [each for each in found if "asks the host" in each.message]
    assert bool(asked) == bool(says)
    assert all(each.rule == "no-exception" and says in each.message for each in asked)


@pytest.mark.parametrize(
    ("flavour", "holds"), [("amd64", False), ("amd64-6.12", True), ("amd64-7.3", True)]
)
def test_linux_keeps_mce_in_a_tdx_guest_since_6_10(flavour: str, holds: bool) -> None:
    old = old_code(flavour)
    verdict = rehearse(
        shipped_kernel(),
        old.host(on(guest=TDX)),
        old.request(Request()),
        design=old.participant,
        machine=shared(),
    )
    assert rules(verdict.findings) == ([] if holds else ["legal-writes"])


@pytest.mark.parametrize(
    ("facts", "guest", "says"),
    [(control.IN_TDX, TDX, "CR4.MCE"), (control.IN_SEV_ES, SNP, "DR7 cannot be written")],
)
def test_both_are_proved_for_all_memory_maps(facts: int, guest: Confidential, says: str) -> None:
    from tightrope.prove.goal import Limits
    from tightrope.prove.routine.contract import Contract
    from tightrope.prove.routine.verify import verify

    limits = Limits(seconds=300)
    plain = verify(written().code.data, Contract(64, Paging.X86_64, facts=facts), limits)
    assert plain.answer is Answer.FAILS
    assert plain.failure is not None
    assert says in plain.failure.obligation.says
    code = changed(written().code, guest)
    got = verify(code.data, Contract(64, Paging.X86_64, facts=facts), limits)
    if guest is TDX:
        assert got.answer is Answer.HOLDS
    else:
        # What is proved of DR7 is what is given up: the old kernel's breakpoints are its own to turn off.
        assert got.failure is not None
        assert "DR7" in got.failure.obligation.says


# --------------------------------------------------------------------------------------- the host file


def document(line: str, into: str = "[cpu]") -> str:
    return host_room.example().replace(into, f"{into}\n{line}", 1)


@pytest.mark.parametrize("vendor", list(CpuVendor))
def test_a_host_file_names_the_vendor_and_keeps_it(vendor: CpuVendor) -> None:
    old = host_room.read(document(f'vendor = "{vendor.value}"'), "a.toml")
    assert old.cpu.vendor is vendor
    again = host_room.read(host_room.write(old, ["a host"]), "a.toml")
    assert again.cpu == old.cpu


def test_without_a_word_it_is_eithers_and_another_word_is_an_error() -> None:
    assert host_room.read(host_room.example(), "a.toml").cpu.vendor is None
    with pytest.raises(HostError, match=r"cpu\.vendor: 'via' is not one of intel, amd"):
        host_room.read(document('vendor = "via"'), "a.toml")


def test_registers_that_no_cpu_of_the_vendor_has_are_refused() -> None:
    for vendor, field, value, says in (
        ("amd", "cr4", "0x837_06F0", "LASS"),
        ("intel", "efer", "0x8D01", "TCE"),
    ):
        text = document(f'vendor = "{vendor}"')
        lines = [
            f"{field} = {value}" if line.startswith(f"{field} = ") else line
            for line in text.splitlines()
        ]
        with pytest.raises(HostError, match=f"registers.{field}: .* has .*{says}"):
            host_room.read("\n".join(lines), "a.toml")


def test_a_tdx_guest_has_mce_set() -> None:
    text = host_room.example().replace("[cpu]", 'confidential = "TDX"\n[cpu]', 1)
    old = host_room.read(text, "a.toml")
    assert old.confidential is TDX
    cr4 = next(line for line in text.splitlines() if line.startswith("cr4 = "))
    with pytest.raises(HostError, match="lacks MCE, which is always set in a TDX guest"):
        host_room.read(text.replace(cr4, f"cr4 = {old.cr4 & ~MCE:#x}"), "a.toml")


@pytest.mark.parametrize(
    ("text", "vendor"),
    [
        ("vendor_id\t: GenuineIntel\n", CpuVendor.INTEL),
        ("vendor_id\t: AuthenticAMD\n", CpuVendor.AMD),
        ("vendor_id\t: HygonGenuine\n", CpuVendor.AMD),
        ("vendor_id\t: CentaurHauls\n", None),
        ("", None),
    ],
)
def test_capture_reads_the_vendor(text: str, vendor: CpuVendor | None) -> None:
    assert cpuinfo.vendor(text) is vendor
