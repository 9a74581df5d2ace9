"""Each rule is broken alone, and found alone; a sound walk breaks none.

The table is `breaking.CASES`.  Below it, code that really runs: routines with a few bytes changed, so
that what a machine records and what a rule reads are one thing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.check import breaking
from tests.check.breaking import Breach, Change, edit, with_word
from tests.check.breaking_hops import HOPS, TWINS
from tests.check.breaking_placed import PLACED
from tests.check.breaking_told import TOLD
from tests.rehearse.runs import (
    entered_with_5_levels,
    example_host,
    shared,
    shipped_kernel,
    shipped_request,
    sound,
)
from tightrope.check import RULES, WATCHED, check
from tightrope.check.case import Case, owner
from tightrope.check.rule import Found, Rule, finding
from tightrope.check.rule import rule as made_of
from tightrope.deeds.rehearse import rehearse
from tightrope.errors import MachineError
from tightrope.machine.unicorn import Emulator
from tightrope.memory import Extent, Phys, Virt
from tightrope.model import Code, Finding, Step
from tightrope.sabotage import SABOTAGES, Sabotage

CASES = (*breaking.CASES, *TOLD, *PLACED, *HOPS)
V = 0xFFFF_FFFF_9AC0_1000
"""Where the example host has its relocation code."""
ADDRESS = re.compile(r"0x[0-9a-f]{3,}")
WITHOUT_ADDRESS = {
    "boot-params-told",
    "command-line-as-given",
    "core-header-told",
    "dump-has-notes",
    "hop-keeps-fields",
    "hop-keeps-setup-data",
    "initrd-as-given",
    "image-asks",
    "entry-zeroed",
    "entry-flags",
    "known-state",
    "entry-levels",
    "entry-selectors",
    "interrupts-off",
}
"""Rules about a register or about something that is not there."""


def identifier(breach: Breach) -> str:
    return f"{breach.rule}: {breach.name}"


def test_a_sound_walk_breaks_no_rule() -> None:
    good = sound()
    assert check(good.handover, good.run) == ()


def test_a_walk_that_was_played_breaks_no_rule() -> None:
    from tests.stand_ins.played import Fake

    good = sound()
    assert check(good.handover, Fake().run(good.handover)) == ()


@pytest.mark.parametrize("breach", CASES, ids=identifier)
def test_one_thing_wrong_is_found_by_its_rule(breach: Breach) -> None:
    good = sound()
    found = check(*breach.change(good.handover, good.run))
    assert {finding.rule for finding in found} == {breach.rule} | breach.also
    mine = next(finding for finding in found if finding.rule == breach.rule)
    assert mine.step == breach.step
    assert breach.says in mine.message
    assert mine.mend
    assert all(mine.evidence)
    assert all(mine.evidence.values())
    assert ADDRESS.search(mine.message) or breach.rule in WITHOUT_ADDRESS


@pytest.mark.parametrize(("name", "change"), TWINS, ids=[name for name, _ in TWINS])
def test_what_may_differ_from_hop_to_hop_breaks_no_rule(name: str, change: Change) -> None:
    good = sound()
    assert check(*change(good.handover, good.run)) == (), name


@pytest.mark.parametrize("breach", [each for each in CASES if each.also], ids=identifier)
def test_findings_come_in_the_order_of_the_walk(breach: Breach) -> None:
    good = sound()
    found = check(*breach.change(good.handover, good.run))
    assert [finding.step for finding in found] == sorted(finding.step for finding in found)


def test_two_things_wrong_are_both_found_the_earlier_one_first() -> None:
    good = sound()
    by_rule = {breach.rule: breach for breach in CASES}
    walked = good.handover, good.run
    for rule in ("entry-boot-params", "table-a-maps-p", "same-bytes"):
        walked = by_rule[rule].change(*walked)
    found = check(*walked)
    assert [(finding.rule, finding.step) for finding in found] == [
        ("same-bytes", Step.TABLE_A),
        ("table-a-maps-p", Step.STATE),
        ("entry-boot-params", Step.COPY),
    ]


def test_what_is_wrong_in_memory_comes_before_the_exception_it_causes() -> None:
    good = sound()
    by_name = {identifier(breach): breach for breach in CASES}
    walked = by_name["fetch-mapped: not present"].change(good.handover, good.run)
    walked = by_name["table-a-maps-v: V is not mapped"].change(*walked)
    assert [finding.rule for finding in check(*walked)] == ["table-a-maps-v", "fetch-mapped"]


# ----------------------------------------------------------------------------------- the rules


def test_the_table_of_cases_has_every_rule_and_no_other() -> None:
    # What a jump through Xen adds has its cases beside its own rehearsals, in tests/xen; a purgatory's
    # are in tests/purgatory.
    here = {rule.id for rule in RULES if not rule.id.startswith("xen-")}
    here -= {"purgatory-as-known", "digests-right"}
    # A loader's purgatory has its own in tests/segments.
    here -= {"digest-agrees", "digest-covers"}
    assert {breach.rule for breach in CASES} == here


def test_ids_are_unique_and_kebab_case() -> None:
    ids = [rule.id for rule in RULES]
    assert len(set(ids)) == len(ids)
    assert [each for each in ids if not re.fullmatch(r"[a-z]+(-[a-z]+)*", each)] == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_rule_says_what_holds_and_who_says_so(rule: Rule) -> None:
    assert rule.says[0].isupper() or rule.says.startswith(("page_table", "rsi"))
    assert rule.says.endswith(".")
    assert rule.source.strip()


@pytest.mark.parametrize("rule", [*RULES, *WATCHED], ids=lambda rule: rule.id)
def test_a_rule_says_what_mends_it(rule: Rule) -> None:
    assert rule.mend.strip() == rule.mend != ""
    assert not rule.mend.endswith(".")
    assert rule.criterion().mend == rule.mend


def test_a_finding_says_what_mends_its_rule_unless_it_knows_more() -> None:
    def search(case: Case) -> Iterator[Found]:
        yield finding("one is wrong")
        yield finding("another is wrong", mend="turn it round")

    made = made_of("made-up", Step.COPY, says="It holds.", source="here", mend="mend it")(search)
    good = sound()
    told = [each.mend for each in made.check(Case(good.handover, good.run))]
    assert told == ["mend it", "turn it round"]


def test_every_rule_is_asked_by_a_rehearsal() -> None:
    assert sound().rules == tuple(rule.id for rule in RULES)


# ------------------------------------------------------------------------------- faults, explained


def explained(name: str) -> Finding:
    good = sound()
    [breach] = [each for each in CASES if identifier(each) == name]
    [finding] = check(*breach.change(good.handover, good.run))
    return finding


def test_a_fault_at_v_is_said_to_be_at_v_and_not_at_a_physical_address() -> None:
    finding = explained("fetch-mapped: not present")
    assert finding.evidence["there"] == "V"
    assert finding.evidence["CR2"] == "0xffffffff9ac01005"
    assert finding.evidence["exception"] == "#PF, error code 0x10"
    assert "map V to the control page" in finding.mend


def test_a_fault_at_an_address_that_no_memory_has_names_no_owner() -> None:
    finding = explained("access-mapped: read-only")
    assert "there" not in finding.evidence
    assert "hole" not in finding.mend


def test_a_fault_inside_the_control_page_asks_for_p() -> None:
    finding = explained("fetch-executable: NX")
    assert finding.evidence["there"].endswith("the control page")


def test_a_fault_without_an_address_has_no_cr2() -> None:
    assert "CR2" not in explained("no-exception: #UD").evidence
    assert explained("no-exception: #UD").evidence["exception"] == "#UD"


# ------------------------------------------------------------------------------ code that really runs


def patched(symbol: str, offset: int, code: bytes) -> Sabotage:
    """The relocation code with some bytes changed, counted from one of its symbols."""

    def change(routine: Code) -> Code:
        at = routine.symbols[symbol] + offset
        data = routine.data[:at] + code + routine.data[at + len(code) :]
        return replace(routine, data=data)

    return Sabotage(name="patched", says="", rule="", step=Step.PREPARE, code=change)


@pytest.mark.parametrize(
    ("symbol", "offset", "code", "rule", "step"),
    [
        # cli becomes nop: interrupts are on when CR3 is written.
        ("relocate", 0, b"\x90", "interrupts-off", Step.TABLE_A),
        # and $0, %eax: CR4 without PAE in long mode.
        ("after_table_a", 3, b"\x25\x00\x00\x00\x00", "legal-writes", Step.TABLE_A),
        ("after_table_a", 0, b"\x0f\x0b", "no-exception", Step.TABLE_A),
        # hlt: nothing will ever wake this CPU.
        ("identity", 0, b"\xf4", "arrived", Step.IDENTITY),
        # jmp to itself.
        ("after_table_b", 0, b"\xeb\xfe", "arrived", Step.COPY),
        # mov (%rcx), %rax: page_table_a's root, which page_table_a does not map.
        ("set_stack", 0, b"\x48\x8b\x01", "access-mapped", Step.TABLE_A),
        # mov %rax, (%r8): page_table_b's root, which page_table_b does not map.
        ("after_table_b", 0, b"\x49\x89\x00", "access-mapped", Step.COPY),
        # mov 4096(%rsi), %rax: one word above the stack, which is not mapped either.
        ("after_table_b", 0, b"\x48\x8b\x86\x00\x10\x00\x00", "access-mapped", Step.COPY),
        # mov %rax, 4096(%rdx) and back: above the stub's page lies boot_params, which is mapped.
        ("after_table_b", 0, b"\x48\x89\x82\x00\x10\x00\x00", "stores-owned", Step.COPY),
        ("after_table_b", 0, b"\x48\x8b\x82\x00\x10\x00\x00", "loads-owned", Step.COPY),
    ],
)
def test_code_that_does_wrong_is_found_out(
    symbol: str, offset: int, code: bytes, rule: str, step: Step
) -> None:
    verdict = rehearse(
        shipped_kernel(),
        example_host(),
        shipped_request(),
        sabotage=patched(symbol, offset, code),
        machine=Emulator(instruction_limit=20_000),
    )
    assert (rule, step) in [(finding.rule, finding.step) for finding in verdict.findings]


def test_a_rule_that_looks_beyond_memory_gives_a_finding_and_no_error() -> None:
    """rsp at the end of RAM: what is there cannot be read, which is the finding itself."""
    good = sound()
    with pytest.raises(MachineError):
        good.run.memory.read(Extent.sized(1 << 45, 8))
    [breach] = [each for each in CASES if identifier(each) == "entry-stack: unmapped"]
    assert check(*breach.change(good.handover, good.run))


@pytest.mark.parametrize("name", ["no-v", "source-order", "pge-on"])
def test_every_finding_of_a_sabotaged_walk_can_be_mended(name: str) -> None:
    verdict = rehearse(
        shipped_kernel(),
        example_host(),
        shipped_request(),
        sabotage=SABOTAGES[name],
        machine=shared(),
    )
    assert all(finding.mend and finding.message for finding in verdict.findings)


# --------------------------------------------------------------------------- what needs other tables


def test_a_control_page_that_is_open_to_user_mode_is_found() -> None:
    """A page is a user page only where every level says so, so every entry is changed."""
    good = sound()
    pages = {}
    for frame, page in good.handover.page_table_a.pages.items():
        words = memoryview(bytes(page)).cast("Q").tolist()
        pages[frame] = memoryview(
            b"".join((word | 4 if word & 1 else word).to_bytes(8, "little") for word in words)
        )
    tables = replace(good.handover.page_table_a, pages=pages)
    # With SMEP and SMAP (CR4 bits 20 and 21) the CPU itself would refuse such a page.
    registers = replace(good.handover.registers, cr4=good.handover.registers.cr4 & ~(3 << 20))
    old = replace(good.handover.world.registers, cr4=registers.cr4)
    world = replace(good.handover.world, registers=old)
    broken = replace(good.handover, page_table_a=tables, registers=registers, world=world)
    found = check(broken, good.run)
    assert [(finding.rule, finding.step) for finding in found] == [
        ("table-a-rights", Step.TABLE_A)
    ] * 2
    assert all(finding.message.endswith("is open to user mode") for finding in found)


def test_an_entry_that_is_not_present_may_hold_anything() -> None:
    """SDM 4.5: with P = 0 all other bits are ignored."""
    good = sound()
    tables = edit(good.handover.page_table_a, V + 4096, lambda _: 1 << 51)
    assert check(replace(good.handover, page_table_a=tables), good.run) == ()


def test_a_large_page_at_v_is_more_than_the_control_page() -> None:
    """V on a 2 MiB boundary, so that the entry one level up can map it."""
    virt = Virt(0xFFFF_FFFF_9AC0_0000)
    good = rehearse(
        shipped_kernel(),
        replace(example_host(), relocation=virt),
        shipped_request(),
        machine=Emulator(),
    )
    assert good.findings == ()
    table = good.handover.page_table_a
    for low in (39, 30):
        at = (virt >> low & 511) * 8
        entry = int.from_bytes(table.pages[table.root][at : at + 8], "little")
        table = replace(table, root=Phys(entry & 0x000F_FFFF_FFFF_F000))
    large = with_word(table, table.root, (virt >> 21 & 511) * 8, 0x1_0000_00E3)
    tables = replace(large, root=good.handover.page_table_a.root)
    found = check(replace(good.handover, page_table_a=tables), good.run)
    # It leads to the start of the 2 MiB, which is not the control page.
    assert [finding.rule for finding in found] == ["table-a-maps-v", "table-a-nothing-else"]
    assert "(0x200000 bytes)" in found[1].message


@pytest.mark.parametrize(
    ("version", "told"),
    [("7.3.4+deb13-amd64", False), ("7.0.0", False), ("10.1", False), ("6.18.9", True), (None, True)],
)  # fmt: skip
@pytest.mark.parametrize("what", ["an entry", "CR3"])
def test_who_masks_what_it_reads_of_the_top_may_find_it_marked(
    what: str, version: str | None, told: bool
) -> None:
    """Linux 7 does; an older one may, and does not say so."""
    good = entered_with_5_levels()
    change = breaking.top_marked(58) if what == "an entry" else breaking.cr3_with(0x10)
    handover, run = change(good.handover, good.run)
    image = replace(handover.intent.image, version=version)
    handover = replace(handover, intent=replace(handover.intent, image=image))
    assert ("table-b-top" in {each.rule for each in check(handover, run)}) == told


@pytest.mark.parametrize(
    ("phys", "whose"),
    [
        (0x1_0001_1000, "the control page"),
        (0x1_0001_2000, "page_table_a"),
        (0x1_0001_9000, "page_table_b"),
        (0x1_0001_0000, "the page list"),
        (0x1_0000_0000, "sources"),
        (0x2EC0_1000, "the old kernel's relocation code at V"),
        (0x2E20_0000, "the old kernel's text"),
        (0x3100_0000, "the old kernel's gdt"),
        (0x31FF_F000, "the old kernel's private memory"),
        (0x0100_0000, "the kernel's destination"),
        (0x0180_0000, "the old kernel's slab and page cache"),
        (0xBFFD_7000, "the boot_params's destination"),
        (0x000F_0000, "BIOS area with the RSDP"),
        (0x3400_0000, "the crash region"),
        (0x2000_0000, "free RAM"),
        (0xFEFF_C000, "reserved memory"),
        (0x000C_0000, "a hole"),
    ],
)
def test_an_address_has_an_owner(phys: int, whose: str) -> None:
    good = sound().handover
    old = replace(good.host, crash_region=Extent.sized(0x3300_0000, 0x1000_0000))
    case = Case(replace(good, world=replace(good.world, host=old)), sound().run)
    assert owner(case, phys) == whose
