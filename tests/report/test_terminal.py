"""What a reader of the screen finds on it: on a good one everything, on a bad one what to mend."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.makers.hosts import read_image
from tests.makers.screens import screen as shown
from tests.rehearse.runs import (
    crashed,
    example_host,
    fallen,
    heard,
    shared,
    shipped_kernel,
    shipped_request,
    sound,
)
from tightrope.deeds.rehearse import rehearse
from tightrope.deeds.until import Spoken
from tightrope.model import PAGING_OFF, STEP_NAMES, Outcome, Paging, Step, Stop, Verdict
from tightrope.plan import Request
from tightrope.report.text import text
from tightrope.sabotage import SABOTAGES
from tightrope.views.rehearsal import VIEW

NAMES = sorted(SABOTAGES)
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def screen(verdict: Verdict) -> str:
    return shown(VIEW, verdict)


def step_line(text: str, step: Step) -> str:
    [line] = [
        each
        for each in text.splitlines()
        if each.startswith(f"{int(step)} {STEP_NAMES[step]}")
        or (step is Step.TABLE_B and each.startswith(f"{int(step)} {PAGING_OFF}"))
    ]
    return line


def under(text: str, step: Step) -> str:
    """The lines below a step's own, up to the next that is not indented."""
    lines = text.splitlines()
    out = []
    for line in lines[lines.index(step_line(text, step)) + 1 :]:
        if not line.startswith("    "):
            break
        out.append(line.strip())
    return "\n".join(out)


# ---------------------------------------------------------------------------------- a good screen


@pytest.mark.parametrize(
    ("design", "lines"),
    [
        (
            "in-place",
            (
                "  page_table_a    none: the routine at V overwrites the current pgd",
                "2 load the current pgd again, which is overwritten by now",
                "4 jump to the identity address P",
                "    copied 16 pages (64 KiB) of 83; 67 were in place already",
            ),
        ),
        (
            "split-function",
            (
                "  page_table_a    0x31ff9000   7 pages of table",
                "2 load page_table_a (still at V, in the old kernel's own page)",
                "4 jump to that page's identity address",
            ),
        ),
    ],
)
def test_a_design_that_does_it_otherwise_is_told_otherwise(
    design: str, lines: tuple[str, ...]
) -> None:
    old = replace(example_host(), relocation=None)
    text = screen(
        rehearse(shipped_kernel(), old, shipped_request(), design=design, machine=shared())
    )
    # Where the host has V in its direct map, the code that stays gets the text's last page.
    v = old.text.virt + old.text.size - 4096
    for line in (*lines, f"  V               {v:#x}   in the old kernel's text, frame"):
        assert any(each.startswith(line) for each in text.splitlines()), line


def test_a_good_screen_names_the_places_of_the_walk() -> None:
    text = screen(sound())
    for line in (
        "rehearsal of the shipped kernel (tightrope-shipped)",
        "  old kernel      the default host: x86_64, 4.0 GiB of RAM",
        "  design          two-tables, on the emulator",
        "  V               0xffffffff9ac01000   in the old kernel's text, frame 0x2ec01000",
        "  P               0x100011000   the control page",
        "  current pgd     0x31006000",
        "  page_table_a    0x100012000   7 pages of table",
        "  page_table_b    0x100019000   11 pages of table",
    ):
        assert line in text.splitlines()


def test_a_good_screen_has_the_six_steps_in_order_and_all_are_ok() -> None:
    text = screen(sound())
    places = [text.index(step_line(text, step)) for step in Step if step]
    assert places == sorted(places)
    assert len(places) == 6
    assert all(step_line(text, step).endswith(" ok") for step in Step if step)
    assert STEP_NAMES[Step.PREPARE] not in text


@pytest.mark.parametrize(
    ("step", "lines"),
    [
        (
            Step.CALL,
            ["CR3 0x31006000", "(IF) -> 0x2 (-)   `cli` at 0xffffffff9ac01000", "fetch V ->"],
        ),
        (
            Step.TABLE_A,
            [
                "CR3 0x31006000 -> 0x100012000   `mov %rcx,%cr3`",
                "-> 0x20 (PAE)   `mov %rax,%cr4`",
                "fetch V -> 0x100011000   PML4 0x",
                "a stale global entry may lead to 0x2ec01000: the same bytes there",
            ],
        ),
        (
            Step.STATE,
            [
                "stack 0xffff9a5871005ff0 -> 0x100012000",
                "idt at 0x0, limit 0x0",
                "gdt at 0x100011110, limit 0x1f",
                "ds es ss fs gs = 0x18",
                "write P -> 0x100011000",
            ],
        ),
        (Step.IDENTITY, ["CS 0x10 -> 0x10   `lretq`", "fetch P -> 0x100011000"]),
        (Step.TABLE_B, ["(PE MP ET NE PG)   `mov %rax,%cr0`", "CR3 0x100012000 -> 0x100019000"]),
        (
            Step.COPY,
            [
                "copied 16 pages (64 KiB) of 83; 67 were in place already",
                "page list: 1 page, head 0x100010002",
                "1,485 instructions from V to here",
            ],
        ),
    ],
)
def test_a_step_says_what_was_seen(step: Step, lines: list[str]) -> None:
    seen = under(screen(sound()), step)
    assert [line for line in lines if line not in seen] == []


def test_a_good_screen_has_the_entry_registers() -> None:
    text, values = screen(sound()), sound().run.registers
    assert "at the new kernel's first instruction, 0x1000200 (load + 0x200)" in text
    for name, value in values.general.items():
        assert f"{name:<3} {value:#018x}" in text
    assert "cr0 0x80000033 (PE MP ET NE PG)   cr4 0x20 (PAE)" in text
    assert "cr3 0x100019000   efer 0xd01 (SCE LME LMA NXE)" in text
    assert "gdt 0xbffd6070/0x1f   idt limit 0x0" in text


def test_a_good_screen_ends_with_its_verdict_and_what_it_cannot_see() -> None:
    first, *_, verdict, blind, _, last = screen(sound()).splitlines()
    rules = len(sound().rules)
    assert first == last
    assert last == (
        "It holds: the shipped kernel (tightrope-shipped) from the default host, by Tightrope's"
        f" own relocation code; {rules} rules asked"
    )
    assert verdict.startswith("It holds: from V to 0x1000200 nothing was touched")
    assert verdict.endswith(f"own; {rules} rules asked, none broken.")
    assert blind.startswith("Not seen by this machine: other CPUs, NMI")


def test_a_machine_that_sees_all_has_nothing_to_excuse() -> None:
    verdict = replace(sound(), run=replace(sound().run, blind=()))
    assert "Not seen" not in screen(verdict)


def test_a_good_screen_has_neither_findings_nor_last_instructions() -> None:
    text = screen(sound())
    for word in ("what is wrong", "and also", "mend", "FELL", "wrong", "the last instructions"):
        assert word not in text


def test_what_the_new_kernel_said_is_quoted() -> None:
    text = screen(heard())
    console = heard().console
    assert console is not None
    assert f"the new kernel says, within {console.seconds:.2f} s" in text
    assert all(f"    {line}" in text.splitlines() for line in console.lines)
    assert f"    ({console.stopped})" in text
    assert "and the new kernel spoke" in text
    assert "the new kernel spoke" not in screen(sound())


def test_silence_is_neither_good_nor_bad() -> None:
    verdict = rehearse(
        read_image(code64=b"\xeb\xfe"),
        example_host(),
        Request(),
        until=Spoken(seconds=0.3),
        machine=shared(),
    )
    assert verdict.outcome is Outcome.UNKNOWN
    text = screen(verdict)
    assert "No verdict: the walk holds, and the new kernel said nothing:" in text
    assert "It holds" not in text


# ---------------------------------------------------------------------------------- a bad screen


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_screen_says_what_is_wrong_where_and_how_to_mend_it(name: str) -> None:
    verdict = fallen(name)
    text = screen(verdict)
    first = verdict.findings[0]
    places = [
        f"step {int(each.step)}" if each.step else "before the walk" for each in verdict.findings
    ]
    assert f"what is wrong  [{first.rule}] {places[0]}: {first.message}" in text
    assert f"    {'mend':<16} {first.mend}" in text.splitlines()
    for finding, where in zip(verdict.findings[1:], places[1:], strict=True):
        assert f"and also  [{finding.rule}] {where}: {finding.message}" in text
    at = f"at step {int(first.step)}" if first.step else "before the walk"
    assert f"It falls {at} ({first.rule}); " in text
    assert "It holds" not in text


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_screen_marks_each_step_as_it_went(name: str) -> None:
    verdict = fallen(name)
    text = screen(verdict)
    found = {finding.step for finding in verdict.findings}
    last = verdict.run.step_starts[-1][1]
    fell = verdict.run.stop is not Stop.ENTRY
    for step in Step:
        if step is Step.PREPARE and step not in found:
            assert STEP_NAMES[step] not in text
            continue
        if fell and step == last:
            mark = "FELL"
        elif step in found:
            mark = "wrong"
        else:
            mark = "ok" if step <= last else "-"
        assert step_line(text, step).split()[-1] == mark


@pytest.mark.parametrize("name", NAMES)
def test_a_fall_shows_the_address_the_entry_the_instruction_and_what_led_there(name: str) -> None:
    """What does not stop the walk is said to be entered all the same."""
    verdict = fallen(name)
    run, text = verdict.run, screen(verdict)
    fault = run.fault
    assert ("the new kernel would be entered all the same." in text) == (fault is None)
    assert ("the last instructions" in text) == (fault is not None)
    if fault is None:
        return
    if fault.visits:
        stop = fault.visits[-1]
        assert f"stopped at       {stop.level} entry {stop.entry:#x} at {stop.at:#x}" in text
    if fault.address is not None:
        assert f"CR2              {fault.address:#x}" in text
    assert f"`{fault.text}`" in text
    assert f"(number {fault.instruction} of the walk)" in text
    # While the old kernel's idt is still reached, the old kernel hears of it.
    assert ("triple fault: the machine resets" in text) == fault.triple
    assert ("the machine would reset without a word." in text) == fault.triple
    assert f"the CPU when it stopped, at {fault.rip:#x}" in text
    lines = text.splitlines()
    start = lines.index("the last instructions") + 1
    block = lines[start : lines.index("", start)]
    rips = [int(rip) for rip in run.trace[-8:]]
    assert [int(line.split()[1], 16) for line in block] == rips
    assert [int(line.split()[0].replace(",", "")) for line in block] == list(
        range(len(run.trace) - len(rips), len(run.trace))
    )
    assert all(line.endswith(run.texts[rip]) for line, rip in zip(block, rips, strict=True))


def test_some_sabotages_fall_and_some_are_entered_all_the_same() -> None:
    fell = [name for name in NAMES if fallen(name).run.fault]
    assert len(fell) > 10
    assert len(NAMES) - len(fell) > 10


@pytest.mark.parametrize("stop", [Stop.HALT, Stop.LIMIT])
def test_a_walk_that_does_not_arrive_says_so(stop: Stop) -> None:
    from tightrope.check import check

    run = replace(sound().run, stop=stop)
    verdict = replace(
        sound(), outcome=Outcome.FALLS, run=run, findings=check(sound().handover, run)
    )
    text = screen(verdict)
    assert step_line(text, Step.COPY).endswith("FELL")
    assert "It falls at step 6 (arrived); the new kernel would never be entered." in text
    assert "the last instructions" in text


def test_a_harmful_stale_entry_is_shown_at_its_step() -> None:
    seen = under(screen(fallen("stale-global")), Step.STATE)
    assert "a stale global entry may lead to 0x2e200000: NOT the same bytes there" in seen


# --------------------------------------------------------------------------------------- colour


@pytest.mark.parametrize("name", [None, *NAMES])
def test_colour_only_adds_codes(name: str | None) -> None:
    verdict = fallen(name) if name else heard()
    plain, coloured = screen(verdict), shown(VIEW, verdict, colour=True)
    assert "\x1b" not in plain
    assert ESCAPE.sub("", coloured) == plain
    assert coloured != plain
    assert coloured.count("\x1b[0m") * 2 == len(ESCAPE.findall(coloured))


@pytest.mark.parametrize("name", [None, *NAMES])
def test_a_screen_has_no_loose_ends(name: str | None) -> None:
    text = screen(fallen(name) if name else heard())
    assert not text.endswith("\n")
    assert [line for line in text.splitlines() if line != line.rstrip()] == []
    assert "\n\n\n" not in text
    assert "None" not in text
    assert "?" not in text


FIRST_SCREEN = 24
"""Lines of a terminal of 80 columns."""


@pytest.mark.parametrize("name", NAMES)
def test_a_fall_answers_the_five_questions_on_its_first_screen(name: str) -> None:
    """Did it hold, on whose code, resting on what, what would I change, where do I look."""
    verdict = fallen(name)
    lines = text(VIEW.sheet(verdict), width=80, detail=False).splitlines()[:FIRST_SCREEN]
    shown, first = "\n".join(lines), verdict.findings[0]
    assert shown.startswith("It falls ")
    assert "by Tightrope's own relocation code" in " ".join(shown.split())
    for each in ("mend", "rests on", *first.evidence):
        assert any(re.match(rf" +{re.escape(each)} ", line) for line in lines), each
    assert f"[{first.rule}]" in shown
    assert shown.count("  rests on  ") == 1


def test_what_holds_answers_them_too() -> None:
    for verdict in (sound(), crashed(Paging.X86_64)):
        lines = text(VIEW.sheet(verdict), width=80, detail=False).splitlines()[:FIRST_SCREEN]
        shown = "\n".join(lines)
        assert shown.startswith("It holds")
        for each in (
            "by Tightrope's own relocation code",
            "  rests on ",
            "--from FILE walks",
            "6 copy the pages",
        ):
            assert each in " ".join(shown.split()) or each in shown


@pytest.mark.parametrize("paging", list(Paging))
def test_a_crash_kexec_says_so_and_names_the_region(paging: Paging) -> None:
    line = "  kind            a crash kexec: everything lies in the crash region [0x33000000, 0x43000000) already"
    assert line in screen(crashed(paging)).splitlines()
    assert "crash" not in screen(sound())
