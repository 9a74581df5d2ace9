"""Single bits flipped, from a seed: nothing that an oracle sees may hold unseen, and no machine may give up.

Rules: the oracles are Unicorn by itself and, where there is one, this computer's CPU.  A few for each
subject and way, all in one table; `make bench` has a hundred thousand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from random import Random

import numpy as np
import pytest

from bench import flips as bench
from tests.conftest import REPOSITORY, debian_kernel
from tightrope import check
from tightrope.check import RULES
from tightrope.deeds import old_kernel
from tightrope.deeds.flips import Fate, Flipped, Trial, Walkers, walkers
from tightrope.deeds.flips.bases import BARE, LINUX, XEN, Way, base
from tightrope.deeds.flips.deed import FLIPS
from tightrope.deeds.flips.ends import SOURCES, End, Open, differences, end_of
from tightrope.deeds.flips.subjects import Subject
from tightrope.deeds.flips.wanted import WANTED
from tightrope.deeds.old_kernel import OldKernel
from tightrope.errors import BadInput
from tightrope.memory import Extent
from tightrope.model import Handover, Paging, Protocol, SegmentRole, Stop, XenInterface
from tightrope.participants.linux import Convention
from tightrope.sabotage.edits import edit_entry, with_tables
from tightrope.x86.cpu import CR0_MP, CR0_NE, CR0_TS, CR0_WP, CR4_LASS
from tightrope.x86.walk import Access, Refused, entries_in, walk

SEED = 11
EACH = 3
"""Flips of a subject in a way."""
PLANNED = (
    Subject.BOOT_PARAMS,
    Subject.COMMAND_LINE,
    Subject.INITRD,
    Subject.KERNEL,
    Subject.STUB,
    Subject.CORE_HEADER,
)
SOURCE_OF = {
    Convention.LINUX_6: "amd64-6.12",
    Convention.LINUX_7: "amd64-7.3",
    Convention.LINUX_I386: "686",
}


@pytest.fixture(scope="module")
def machines() -> Iterator[Walkers]:
    """Ours, and the oracles."""
    with walkers() as made:
        yield made


@cache
def old(convention: Convention) -> OldKernel:
    flavour = SOURCE_OF[convention]
    return old_kernel.read(debian_kernel(flavour).read_bytes(), flavour)


@cache
def trial(machines: Walkers, number: int, way: Way) -> Trial | None:
    """None where nothing can be made of the number, or what is made is not sound."""
    try:
        return Trial(machines, base(SEED, number, way, old(way.linux) if way.linux else None))
    except BadInput:
        return None


def flipped(
    machines: Walkers, subject: Subject, way: Way, *, second: Subject | None = None,
    each: int = EACH,
) -> list[Flipped]:  # fmt: skip
    """A few flips of a subject, on the first base of a way that is sound and has it; none without one."""
    randoms = [Random(f"{subject}:{way.says}:{second}:{at}") for at in range(each)]
    for number in range(8):
        on = trial(machines, number, way)
        if on is None:
            continue
        try:
            return [on.flip(subject, random, second) for random in randoms]
        except BadInput:
            continue
    return []


def nothing_unseen(found: Sequence[Flipped]) -> None:
    bad = [each for each in found if each.fate in (Fate.UNSEEN, Fate.ERROR)]
    assert not bad, "\n".join(f"{each.base}: {each.says}: {each.differs}" for each in bad)
    silent = [each for each in found if each.fate is Fate.UNASKED and not each.rules]
    assert not silent, "\n".join(f"{each.base}: {each.says}: nobody can say" for each in silent)


def every_alarm_is_wanted(found: Sequence[Flipped]) -> None:
    for each in found:
        if each.fate is Fate.ALARM:
            assert set(each.rules) <= WANTED.keys(), f"{each.base}: {each.says}: {each.rules}"


def judged(found: Sequence[Flipped]) -> None:
    nothing_unseen(found)
    every_alarm_is_wanted(found)


ELSEWHERE = {Subject.WAY_OUT, Subject.DOM0, Subject.CORE_HEADER}
"""What few bases have: asked for below."""


@pytest.mark.parametrize("subject", [each for each in Subject if each not in ELSEWHERE])
def test_no_flip_that_changes_the_end_holds(machines: Walkers, subject: Subject) -> None:
    """In every mode, this project's designs, plain and for a crash."""
    found = [each for way in BARE for each in flipped(machines, subject, way)]
    if subject is not Subject.HANDED:  # none of these designs is handed words in memory
        assert found
    judged(found)


@pytest.mark.parametrize("way", [each for each in XEN if not each.crash], ids=lambda way: way.says)
def test_nor_through_xen(machines: Walkers, way: Way) -> None:
    found = [
        each
        for subject in (
            Subject.REGISTERS,
            Subject.OLD_REGISTERS,
            Subject.TABLE_A_ENTRIES,
            Subject.TABLE_B_ENTRIES,
            Subject.LIST,
            Subject.HANDED,
            Subject.DOM0,
            Subject.WAY_OUT,
            Subject.STUB,
        )
        for each in flipped(machines, subject, way)
    ]
    assert found
    judged(found)
    subjects = {each.subject for each in found}
    assert Subject.DOM0 in subjects
    assert (Subject.WAY_OUT in subjects) == (
        way.paging.long_mode and way.dom0_bits == 32 and way.xen is XenInterface.V1
    )


@pytest.mark.parametrize(
    "way", [each for each in LINUX if not each.crash], ids=lambda way: way.says
)
def test_nor_with_linuxs_own_code(machines: Walkers, way: Way) -> None:
    found = [
        each
        for subject in (
            Subject.REGISTERS,
            Subject.OLD_REGISTERS,
            Subject.CODE,
            Subject.TABLE_A_ENTRIES,
            Subject.OLD_TABLES,
            Subject.HANDED,
        )
        for each in flipped(machines, subject, way)
    ]
    assert found
    judged(found)


@pytest.mark.parametrize("paging", [Paging.X86_64, Paging.LA57], ids=lambda each: each.value)
def test_nx_in_any_leaf_that_the_new_kernel_runs_through_is_told(
    machines: Walkers, paging: Paging
) -> None:
    """The walk does not notice: it is the new kernel that dies of it."""
    for number in range(8):
        on = trial(machines, number, Way(paging=paging))
        if on is not None and on.base.handover.intent.protocol is Protocol.LINUX_64:
            break
    else:
        raise AssertionError("no base is entered in 64 bits")
    handover = on.base.handover
    tables = handover.page_table_b
    assert tables is not None
    kernel = next(
        each.destination
        for each in handover.intent.segments
        if handover.intent.kernel_entry in each.destination
    )
    for page in (*kernel.pages, *range(0, 0x9F, 8)):
        found = walk(
            entries_in(tables.pages), handover.registers.mmu(handover.host.cpu, root=tables.root),
            page << 12, Access.READ,
        )  # fmt: skip
        leaf = found.visits[-1]
        frame, at = leaf.at & -0x1000, leaf.at & 0xFFF
        data = bytearray(tables.pages[frame])
        data[at + 7] ^= 0x80
        wrong = with_tables(handover, frame, bytes(data))
        assert check.check(wrong, machines.ours.run(wrong)), f"{page << 12:#x}"


@pytest.mark.parametrize(
    "way",
    [
        Way(paging=Paging.X86_64),
        *(each for each in LINUX if each.paging.long_mode and not each.crash),
    ],
    ids=lambda way: way.says,
)
def test_nx_binds_nobody_where_nothing_of_the_new_kernel_runs(machines: Walkers, way: Way) -> None:
    """The initrd and, in Linux's own tables, memory besides are read and written, and no more."""
    on = next(
        on
        for on in (trial(machines, number, way) for number in range(8))
        if on is not None and on.base.handover.intent.protocol is Protocol.LINUX_64
        if QUIET[way.linux is None](on.base.handover)
    )
    handover = on.base.handover
    tables = handover.page_table_b
    assert tables is not None
    alone = machines.oracles[0]
    sound = end_of(handover, alone.run(handover))

    def closed(virt: int) -> Handover:
        return edit_entry(handover, tables, virt, lambda entry: entry | 1 << 63)

    at = QUIET[way.linux is None](handover)
    quiet = closed(at)
    assert not list(check.broken(quiet, machines.ours.run(quiet)))
    # All that is mapped is compared as well, for what nobody promised.
    assert [each.open for each in differences(sound, end_of(quiet, alone.run(quiet)), ())] == [
        Open.NX,
        Open.BEYOND,
    ]
    # The kernel itself, and low memory, are another matter.
    for runs in (handover.intent.kernel_entry, 0x10000):
        wrong = closed(runs)
        assert list(check.broken(wrong, machines.ours.run(wrong)))
        end = end_of(wrong, alone.run(wrong))
        assert None in {each.open for each in differences(sound, end, ())}


def lone_initrd(handover: Handover) -> int:
    """The initrd's first page, where it has an entry of its own; 0 where it has not."""
    tables = handover.page_table_b
    found = [each for each in handover.intent.segments if each.role is SegmentRole.INITRD]
    if not found or tables is None:
        return 0
    at = found[0].destination.start
    last = walk(entries_in(tables.pages), handover.registers.mmu(handover.host.cpu, root=tables.root),
                at, Access.READ)  # fmt: skip
    return at if not isinstance(last, Refused) and last.page_size == 0x1000 else 0


def lone_memory(handover: Handover) -> int:
    """2 MiB of RAM in which nothing of the walk or the new kernel lies; 0 without."""
    used = [each.destination for each in handover.intent.segments]
    used += [each.extent for each in (*handover.world.pieces, *handover.pieces)]
    used += [Extent.sized(handover.intent.control_page, 0x2000)]
    for ram in handover.host.memory.ram:
        for at in range(-(-ram.start // HUGE) * HUGE, ram.end - HUGE + 1, HUGE):
            if at and not any(each.overlaps(Extent.sized(at, HUGE)) for each in used):
                return at
    return 0


HUGE = 2 << 20
QUIET = {True: lone_initrd, False: lone_memory}
"""By whether the tables are this project's own."""


@pytest.mark.parametrize("bit", [1, 3, 6])
def test_a_jump_past_the_first_byte_of_the_stub_is_told(machines: Walkers, bit: int) -> None:
    """It still arrives where bytes of the stub that were left out did no more than was so."""
    way = next(each for each in LINUX if each.linux is Convention.LINUX_6)
    on = trial(machines, 0, way)
    assert on is not None
    sound = on.base.handover
    general = sound.registers.general
    past = replace(sound.registers, general={**general, "rdx": general["rdx"] ^ 1 << bit})
    wrong = replace(sound, registers=past)
    assert not list(check.broken(sound, machines.ours.run(sound)))
    assert "entry-jump" in check.broken(wrong, machines.ours.run(wrong))


@pytest.mark.parametrize("bit", [40, 55, 63])
def test_what_32_bit_code_jumps_to_has_32_bits(machines: Walkers, bit: int) -> None:
    """The hypervisor's word is told; that its upper half leads nowhere would be no CPU's fault."""
    way = next(each for each in XEN if each.dom0_bits == 32 and each.paging.long_mode)
    on = trial(machines, 0, way)
    assert on is not None
    general = on.base.handover.registers.general
    wide = {**general, "rdi": general["rdi"] | 1 << bit}
    wrong = replace(on.base.handover, registers=replace(on.base.handover.registers, general=wide))
    run = machines.ours.run(wrong)
    assert run.stop is Stop.ENTRY
    assert set(check.broken(wrong, run)) == {"xen-calls-fixmap", "call-state"}


@pytest.mark.parametrize("subject", PLANNED, ids=lambda each: each.name)
def test_a_segment_that_was_planned_wrong_is_always_told(
    machines: Walkers, subject: Subject
) -> None:
    """The oracles cannot know better than the plan: whoever asks what was given can."""
    found = flipped(machines, subject, Way(paging=Paging.X86_64, crash=True), each=6)
    assert {each.fate for each in found} == {Fate.SEEN}


def test_pairs_of_flips_do_not_hide_one_another(machines: Walkers) -> None:
    pairs = [
        (Subject.REGISTERS, Subject.REGISTERS),
        (Subject.TABLE_A_ENTRIES, Subject.TABLE_A_ENTRIES),
        (Subject.LIST, Subject.LIST),
        (Subject.CODE, Subject.AT_V),
        (Subject.OLD_REGISTERS, Subject.OLD_TABLES),
        (Subject.STUB, Subject.BOOT_PARAMS),
    ]
    for one, other in pairs:
        for paging in (Paging.PAE, Paging.X86_64):
            judged(flipped(machines, one, Way(paging=paging), second=other))


def test_the_highest_bit_of_the_lists_head_is_told_under_xen_too(
    machines: Walkers,
) -> None:
    """The word is a machine address there, and is compared with others: all 64 bits of it."""
    made = base(SEED, 0, next(each for each in XEN if each.says.startswith("x86_64, Xen v1")))
    now = made.handover.registers
    wrong = replace(now, general={**now.general, "rdi": now.general["rdi"] | 1 << 63})
    handover = replace(made.handover, registers=wrong)
    assert check.check(handover, machines.ours.run(handover))


@pytest.mark.parametrize("subject", PLANNED, ids=lambda each: each.name)
def test_what_is_read_back_before_the_walk_is_told_after_it(
    machines: Walkers, subject: Subject
) -> None:
    """So a flip that was foretold need not be walked; of a sound handover nothing is foretold."""
    for crash in (False, True):
        on = trial(machines, 0, Way(paging=Paging.X86_64, crash=crash))
        assert on is not None
        assert not list(check.read_back(on.base.handover))
        for at in range(3):
            try:
                wrong = FLIPS[subject](on.base.handover, Random(f"{subject}:{at}")).handover
            except BadInput:
                continue
            before = set(check.read_back(wrong))
            assert before <= set(check.broken(wrong, machines.ours.run(wrong)))


@pytest.mark.parametrize(
    "subject",
    [Subject.TABLE_A_ENTRIES, Subject.TABLE_B_ENTRIES, Subject.REGISTERS, Subject.STUB],
    ids=lambda each: each.name,
)
@pytest.mark.parametrize("paging", [Paging.PAE, Paging.X86_64], ids=lambda each: each.value)
def test_what_is_foretold_of_what_is_laid_is_told_after_the_walk(
    machines: Walkers, subject: Subject, paging: Paging
) -> None:
    on = trial(machines, 0, Way(paging=paging))
    assert on is not None
    assert not list(check.foretold(on.base.handover))
    told = 0
    for at in range(12):
        try:
            wrong = FLIPS[subject](on.base.handover, Random(f"{subject}:{at}")).handover
        except BadInput:
            continue
        before = set(check.foretold(wrong))
        told += bool(before)
        assert before <= set(check.broken(wrong, machines.ours.run(wrong)))
    assert told or (subject is Subject.TABLE_B_ENTRIES and paging is Paging.PAE)


def end_with(machines: Walkers, way: Way, change: Callable[[End], End]) -> tuple[End, End]:
    """An end of a sound base, and what a change makes of it."""
    on = trial(machines, 0, way)
    assert on is not None
    end = end_of(on.base.handover, machines.ours.run(on.base.handover))
    return end, change(end)


def line_with(end: End, old: bytes, new: bytes) -> End:
    """The end with other bytes in its command line."""
    return replace(
        end,
        memory=tuple(
            (place, np.frombuffer(was.tobytes().replace(old, new), np.uint8))
            if place == end.line
            else (place, was)
            for place, was in end.memory
        ),
    )


def test_a_letter_in_a_number_may_be_of_either_case_and_in_a_word_not(machines: Walkers) -> None:
    """Linux lowers each letter of elfcorehdr='s number, and none of its name."""
    way = Way(paging=Paging.X86_64, crash=True)
    number = end_with(machines, way, lambda end: line_with(end, b"elfcorehdr=0x", b"elfcorehdr=0X"))
    assert {each.open for each in differences(*number, ())} == {Open.NUMBER}
    name = end_with(machines, way, lambda end: line_with(end, b"elfcorehdr=0x", b"elFcorehdr=0x"))
    assert {each.open for each in differences(*name, ())} == {None}
    digit = end_with(machines, way, lambda end: line_with(end, b"elfcorehdr=0x", b"elfcorehdr=1x"))
    assert {each.open for each in differences(*digit, ())} == {None}


def test_ne_and_mp_are_open_and_the_bits_beside_them_are_not(machines: Walkers) -> None:
    def flip(bit: int) -> Callable[[End], End]:
        def change(end: End) -> End:
            assert end.registers is not None
            return replace(end, registers=replace(end.registers, cr0=end.registers.cr0 ^ bit))

        return change

    way = Way(paging=Paging.X86_64)
    for bit in (CR0_NE, CR0_MP, CR0_NE | CR0_MP):
        ends = end_with(machines, way, flip(bit))
        assert {each.open for each in differences(*ends, ())} == {Open.X87}
        pvh = [replace(each, protocol=Protocol.PVH) for each in ends]
        assert {each.open for each in differences(pvh[0], pvh[1], ())} == {None}
    for bit in (CR0_WP, CR0_NE | CR0_WP, CR0_MP | CR0_TS):
        assert {each.open for each in differences(*end_with(machines, way, flip(bit)), ())} == {
            None
        }


def test_cr3_binds_nobody_while_paging_is_off(machines: Walkers) -> None:
    seen: set[Open | None] = set()
    for number in range(8):
        on = trial(machines, number, Way(paging=Paging.X86_64))
        assert on is not None
        end = end_of(on.base.handover, machines.ours.run(on.base.handover))
        assert end.registers is not None
        root = replace(end.registers, cr3=end.registers.cr3 ^ 1 << 20)
        (difference,) = differences(end, replace(end, registers=root), ())
        assert difference.open is (Open.UNUSED if end.bits == 32 else None)
        seen.add(difference.open)
    assert seen == {Open.UNUSED, None}


def test_a_destination_that_only_the_plan_has_wrong_is_told(machines: Walkers) -> None:
    """Plan, list and copies agree, and a segment's page is not where it has to be."""
    on = trial(machines, 0, Way(paging=Paging.I386))
    assert on is not None
    handover = on.base.handover
    for at in range(4):
        wrong = FLIPS[Subject.LIST_PLANNED](handover, Random(f"destination:{at}")).handover
        plan, other = handover.intent.destinations, wrong.intent.destinations
        if not np.array_equal(plan, other):
            assert "list-covers" in check.broken(wrong, machines.ours.run(wrong))
            return
    raise AssertionError("no flip of a destination was made")


def test_what_was_promised_is_what_the_sound_plan_says(machines: Walkers) -> None:
    """A source is nobody's promise: a plan that names another one has more pages, or fewer."""
    way = next(each for each in XEN if each.says == "x86_64, Xen v2 with a 64-bit dom0")
    others = 0
    for number in range(4):
        on = trial(machines, number, way)
        if on is None or not on.base.handover.plan.list_pages:
            continue
        sound = on.base.handover
        run = machines.oracles[0].run(sound)
        for at in range(24):
            wrong = FLIPS[Subject.LIST_PLANNED](sound, Random(f"planned:{at}")).handover
            ends = [end_of(each, run).tables for each in (sound, wrong)]
            if ends[0] is None or ends[1] is None or np.array_equal(ends[0].virt, ends[1].virt):
                continue
            others += 1
            with pytest.raises(ValueError, match="two plans"):
                list(differences(end_of(sound, run), end_of(wrong, run), ()))
            judged([on.flip(Subject.LIST_PLANNED, Random(f"planned:{at}"))])
    assert others


def test_a_flip_that_raises_what_nobody_foresaw_is_named_and_the_rest_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Falls:
        """A trial that cannot flip one subject."""

        def flip(self, subject: Subject, random: Random, second: Subject | None = None) -> Flipped:
            if subject is Subject.LIST:
                raise ValueError("shapes")
            return Flipped(
                base="", subject=subject, says="", fate=Fate.SEEN, rules=("x",), differs=""
            )

    part = bench.Part(number=3, way=bench.WAYS[20])
    monkeypatch.setattr(bench, "_trial", lambda part, seed: Falls())
    made = bench._walk(part, 2006)
    failed = [each for each in made if isinstance(each, bench.Failed)]
    assert [each.name for each in failed] == [f"2006/3/20/LIST/{at}" for at in range(bench.EACH)]
    assert all("ValueError: shapes" in each.why for each in failed)
    assert len(made) == len(Subject) * bench.EACH

    def raises(part: bench.Part, seed: int) -> Trial | None:
        raise ValueError("no base")

    monkeypatch.setattr(bench, "_trial", raises)
    (alone,) = bench._walk(part, 2006)
    assert isinstance(alone, bench.Failed)
    assert alone.name == "2006/3/20"
    tally = bench.Tally()
    tally.add(alone)
    assert not tally.right


def test_an_old_kernel_with_lass_cannot_fetch_at_p_which_no_oracle_knows(
    machines: Walkers,
) -> None:
    """6.12 knows no LASS, and clears CR4 at P: too late for it."""
    on = trial(machines, 0, next(each for each in LINUX if each.linux is Convention.LINUX_6))
    assert on is not None
    sound = on.base.handover
    cr4 = sound.registers.cr4 | CR4_LASS
    world = replace(sound.world, registers=replace(sound.world.registers, cr4=cr4))
    wrong = replace(sound, world=world, registers=replace(sound.registers, cr4=cr4))
    found = check.check(wrong, machines.ours.run(wrong))
    assert "LASS" in next(each.message for each in found if each.rule == "fetch-mapped")
    run = machines.oracles[0].run(wrong)
    assert run.stop is Stop.ENTRY


def test_an_idt_may_be_given_up_and_none_may_be_taken_up(machines: Walkers) -> None:
    way = Way(paging=Paging.X86_64)
    on = trial(machines, 0, way)
    assert on is not None
    end = end_of(on.base.handover, machines.ours.run(on.base.handover))
    assert end.registers is not None
    live = replace(end, registers=replace(end.registers, idt=(0x100000, 255)))
    gone = replace(end, registers=replace(end.registers, idt=(0, 0)))
    assert {each.open for each in differences(live, gone, ())} == {Open.IDT}
    assert {each.open for each in differences(gone, live, ())} == {None}


def test_every_reason_is_a_rules_or_has_its_source() -> None:
    assert set(WANTED) <= {rule.id for rule in RULES}
    assert set(SOURCES) == set(Open)


def test_the_document_has_the_reasons_as_they_are() -> None:
    text = (REPOSITORY / "docs" / "flips.md").read_text(encoding="utf-8")
    for rule, why in WANTED.items():
        assert f"| `{rule}` | {why} |\n" in text
    assert text.count("| `") == len(WANTED)
    for why, source in SOURCES.items():
        assert f"| {why} | {source} |\n" in text
    for subject in Subject:
        assert f"- {subject}\n" in text
