"""A plan on the screen: every segment, every reason, and no claim that anything ran."""

from __future__ import annotations

import re

import pytest

from tests.makers.screens import screen
from tests.rehearse.runs import crashed, example_host, shipped_kernel, shipped_request
from tightrope.deeds.rehearse import prepare
from tightrope.model import Plan
from tightrope.views import plan as planned
from tightrope.views import words

MIB = 1 << 20


def the_plan(scatter: int | None = None) -> Plan:
    return prepare(shipped_kernel(), example_host(), shipped_request(scatter))


@pytest.mark.parametrize("scatter", [None, 3])
def test_every_segment_is_named_with_its_place_and_its_reason(scatter: int | None) -> None:
    plan = the_plan(scatter)
    text = screen(planned.VIEW, plan)
    for segment in plan.segments:
        extent = segment.destination
        assert (
            f"  [{extent.start:#12x}, {extent.end:#12x})  {segment.name}: {segment.why}"
            in text.splitlines()
        )
        zeros = extent.size - len(segment.data)
        tail = f", then {words.size(zeros)} of zeros" if zeros else ""
        assert f"{words.size(len(segment.data))} of data{tail}\n" in text


@pytest.mark.parametrize("scatter", [None, 3])
def test_every_reason_for_an_identity_mapping_is_named(scatter: int | None) -> None:
    plan = the_plan(scatter)
    text = screen(planned.VIEW, plan)
    below = text.split("page_table_b has to map, each address to itself\n")[1].split("\n\n")[0]
    assert {named.what for named in plan.identity} == {
        re.sub(r"^ +(\[.*\)  |and [\d,]+ more extents: )", "", line) for line in below.splitlines()
    }


def test_a_plan_names_the_handover() -> None:
    plan = the_plan()
    text = screen(planned.VIEW, plan)
    first, _, title, *_ = text.splitlines()
    assert title == "plan for the shipped kernel on the default host"
    to_copy = len(plan.destinations) - plan.in_place
    assert first == (
        "It fits: the shipped kernel on the default host:"
        f" {len(plan.destinations)} pages, {to_copy} to copy; nothing was run"
    )
    assert "  V 0xffffffff9ac01000   where the old kernel has its relocation code" in text
    assert "  P 0x100011000   the control page" in text
    assert "page list: head 0x100010002, 1 page;" in text
    assert (
        f"  entry stub {plan.entry:#x}, kernel {plan.kernel_entry:#x},"
        f" boot_params {plan.boot_params:#x}" in text
    )
    assert f"  command line: {plan.command_line!r}" in text


def test_a_plan_counts_its_sources() -> None:
    text = screen(planned.VIEW, the_plan())
    assert "  83 pages: 67 in place already, 16 to copy (64 KiB)" in text
    assert "  the frames to copy from lie in [0x100000000, 0x100010000), free" in text


def test_a_plan_with_everything_in_place_names_no_frames() -> None:
    from dataclasses import replace

    plan = prepare(shipped_kernel(), replace(example_host(), busy=()), shipped_request())
    text = screen(planned.VIEW, plan)
    assert "83 pages: 83 in place already, 0 to copy (0 bytes)" in text
    assert "the frames to copy from" not in text


def test_many_extents_are_counted_and_not_listed() -> None:
    text = screen(planned.VIEW, the_plan(scatter=3))
    sources = [line for line in text.splitlines() if line.endswith("  sources")]
    [rest] = [line for line in text.splitlines() if line.endswith("more extents: sources")]
    assert len(sources) == planned.MOST_EXTENTS
    assert rest == "  and 4 more extents: sources"


def test_a_plan_does_not_pretend_that_anything_ran() -> None:
    text = screen(planned.VIEW, the_plan())
    for word in ("holds", "falls", "rehears", "instruction", "copied"):
        assert word not in text
    assert not text.endswith("\n")
    assert [line for line in text.splitlines() if line != line.rstrip()] == []


def test_a_crash_plan_says_so_and_names_the_region() -> None:
    line = "a crash kexec: everything lies in the crash region [0x33000000, 0x43000000) already"
    assert line in screen(planned.VIEW, crashed().handover.plan).splitlines()
    assert "crash" not in screen(planned.VIEW, the_plan())
    text = screen(planned.VIEW, crashed().handover.plan)
    assert "0 to copy (0 bytes)" in text
    assert "page list: head 0x4, 0 pages;" in text
    assert "core header: elfcorehdr=" in text
