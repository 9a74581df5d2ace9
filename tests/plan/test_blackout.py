"""The blackout budget: what is counted is in the routines' bytes and in the walk, what is saved was spent."""

from __future__ import annotations

from dataclasses import replace

import iced_x86 as x
import pytest

from tests.conftest import debian_kernel
from tests.rehearse.runs import crash_host, example_host, shared, shipped_kernel, shipped_request
from tightrope import image, routines
from tightrope.deeds import blackout
from tightrope.deeds.blackout import BLOCK, COPY_INSTRUCTIONS, STATED, budget, calibrated
from tightrope.deeds.rehearse import prepare, rehearse
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model import Named, OnDamage, Plan
from tightrope.model.blackout import DigestBy
from tightrope.report import text
from tightrope.views import words
from tightrope.views.rehearsal import VIEW
from tightrope.views.rehearsal_facts import facts

MIB = 1 << 20


def seconds(plan: Plan) -> dict[str, float]:
    return {each.what: each.seconds for each in budget(plan).items}


def spent_in(first: str, behind: str) -> int:
    """Instructions of a block: straight on through a routine's bytes, its two kinds of loops as often as
    they go round."""
    code = routines.read(routines.PURGATORY_64)
    start, end = code.symbols[first], code.symbols[behind]
    every = [each for each in x.Decoder(64, code.data[:end], ip=0) if each.ip >= start]
    loops = [
        (each.near_branch_target, each.ip)
        for each in every
        if each.flow_control == x.FlowControl.CONDITIONAL_BRANCH and each.near_branch_target > start
    ]
    (back,) = [
        each.ip for each in every if each.is_jcc_short_or_near and each.near_branch_target == start
    ]
    turns = {
        ("block", 0): 48,  # the schedule's words
        ("block", 1): 8,  # eight rounds each
        ("block_sha", 0): 16,  # four rounds each
        ("block_eight", 0): 16,  # words of eight stripes
        ("block_eight", 1): 48,
        ("block_eight", 2): 8,
    }
    # The padding's block, behind the last whole one, is none of a segment's.
    padding = range(code.symbols["padding"], code.symbols["expand"])
    loops = [each for each in loops if each[0] not in padding and each[1] < back]
    count = sum(start <= each.ip <= back and each.ip not in padding for each in every)
    for number, (head, tail) in enumerate(loops):
        inside = sum(head <= each.ip <= tail for each in every)
        count += (turns[first, number] - 1) * inside
    return count


def test_the_instructions_of_a_block_are_those_of_the_routine() -> None:
    for by, first, behind, blocks in (
        (DigestBy.PORTABLE, "block", "blocks_sha", 1),
        (DigestBy.SHA, "block_sha", "constants", 1),
        (DigestBy.AVX2, "block_eight", "lanes", 8),
    ):
        assert blackout.INSTRUCTIONS[by] == (spent_in(first, behind), blocks)


def test_the_instructions_of_a_page_are_those_of_the_walk() -> None:
    request = shipped_request()
    some = rehearse(shipped_kernel(), example_host(), request, machine=shared())
    larger = replace(request, initrd=bytes(request.initrd or b"") + bytes(100 * PAGE_SIZE))
    more = rehearse(shipped_kernel(), example_host(), larger, machine=shared())
    pages = len(more.handover.plan.destinations) - len(some.handover.plan.destinations)
    assert pages == 100
    spent = (more.run.instructions - some.run.instructions) / pages
    assert spent == COPY_INSTRUCTIONS


def test_what_a_purgatory_reads_is_what_was_loaded_and_leaving_it_out_saves_that() -> None:
    request = shipped_request()
    without = prepare(shipped_kernel(), example_host(), request)
    plan = prepare(shipped_kernel(), example_host(), replace(request, verify=OnDamage.HALT))
    assert "digest" not in seconds(without)
    (digest,) = [each for each in budget(plan).items if each.what == "digest"]
    assert digest.bytes == sum(len(each.data) for each in without.segments)
    spent, blocks = blackout.INSTRUCTIONS[DigestBy.AVX2]
    assert digest.instructions == digest.bytes // (BLOCK * blocks) * spent
    (saving,) = [each for each in budget(plan).savings if each.option == "--no-verify"]
    assert saving.seconds == digest.seconds == pytest.approx(digest.bytes / STATED.digest)
    for by in (DigestBy.SHA, DigestBy.PORTABLE):
        other = budget(plan, replace(STATED, by=by))
        assert [e.instructions for e in other.items if e.what == "digest"] == [
            digest.bytes // BLOCK * blackout.INSTRUCTIONS[by][0]
        ]


def test_a_walk_says_what_it_did_in_the_words_of_the_budget() -> None:
    request = replace(shipped_request(), verify=OnDamage.HALT)
    verdict = rehearse(shipped_kernel(), example_host(), request, machine=shared())
    plan, run = verdict.handover.plan, verdict.run
    assert verdict.blackout is not None
    told = {each.what: each for each in verdict.blackout.items}
    assert list(told) == [each.what for each in budget(plan).items] == ["copy", "digest"]
    # What lies in its place is in the budget and not in the walk.
    assert told["copy"].bytes == int(words.copied(run)[:, 3].sum())
    assert 0 < told["copy"].bytes <= len(plan.destinations) * PAGE_SIZE
    assert told["copy"].seconds == pytest.approx(told["copy"].bytes / STATED.copy)
    ran = [told[each].instructions or 0 for each in told]
    assert 0 < sum(ran) <= run.instructions + sum(each.instructions for each in run.stretches)
    shown = text.text(VIEW.sheet(verdict))
    assert f"{ran[0]:,}  what was not in its place" in shown
    printed = facts(verdict)["blackout"]
    assert printed is not None
    assert [each["what"] for each in printed["items"]] == ["copy", "digest"]


def test_a_crash_copies_nothing_and_waits_where_its_memory_was_lent_out() -> None:
    old = crash_host()
    request = shipped_request(crash=True)
    assert seconds(prepare(shipped_kernel(), old, request)) == {}
    lent = Named(extent=Extent.sized(0x2000_0000, 16 * MIB), what="CMA memory of the crash kernel")
    plan = prepare(shipped_kernel(), replace(old, crash_memory=(lent,)), request)
    assert seconds(plan) == {"wait for DMA": 10.0}
    assert [each.seconds for each in budget(plan).savings] == [10.0]


def test_unpacking_is_counted_by_what_comes_out_and_measured_here() -> None:
    path = debian_kernel("cloud-amd64")
    new = image.read(path.read_bytes(), path.name)
    plan = prepare(new, example_host(), shipped_request())
    assert new.payload is not None
    out = len(image.unpack(new))
    assert blackout.unpacked_size(plan) == out
    assert seconds(plan)["unpack"] == pytest.approx(out / STATED.unpack[new.payload.compression])
    unpacked = prepare(image.unpacked(new), example_host(), shipped_request())
    assert "unpack" not in seconds(unpacked)
    rates = calibrated(plan)
    assert rates.copy > rates.digest > 0
    assert rates.unpack[new.payload.compression] != STATED.unpack[new.payload.compression]
