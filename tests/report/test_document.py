"""The JSON document: its keys are documented, its values are plain, and it says what the screen says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache

import pytest

from tests.conftest import REPOSITORY, lacking
from tests.makers.hosts import table_b
from tests.makers.screens import facts
from tests.makers.screens import screen as shown
from tests.rehearse.runs import crashed, fallen, heard, sound
from tightrope.model import Paging, Registers, Step, Stop, Verdict
from tightrope.sabotage import SABOTAGES
from tightrope.views.plan import VIEW as PLAN
from tightrope.views.rehearsal import VIEW as REHEARSAL

NAMES = sorted(SABOTAGES)
FREE = {"general", "arguments", "segments", "seconds", "evidence", "unasked"}
"""Objects whose keys are names of things (registers, stages, evidence) and not of the document."""
TEXTS = {
    "verdict", "name", "rule", "message", "mend", "why", "image", "host", "command_line", "what",
    "machine", "stopped", "evidence", "rules", "unasked", "lines", "blind", "sees",
    "protocol", "ending", "speaker", "loader", "rates",
}  # fmt: skip


def verdict_of(name: str | None) -> Verdict:
    return fallen(name) if name else heard()


def leaves(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Every value that is neither an object nor a list, with the keys that lead to it."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, (*path, key))
    elif isinstance(value, list):
        for each in value:
            yield from leaves(each, path)
    else:
        yield path, value


@cache
def documented() -> frozenset[str]:
    """Every key that docs/json.md names, in backquotes."""
    page = REPOSITORY / "docs" / "json.md"
    if not page.is_file():
        lacking("docs/json.md is not written")
    return frozenset(re.findall(r"`([a-z0-9_]+)(?:\[\])?`", page.read_text(encoding="utf-8")))


def keys(value: object) -> set[str]:
    """The names of all keys, but for those inside the objects of `FREE`."""
    if isinstance(value, list):
        return {key for each in value for key in keys(each)}
    if not isinstance(value, dict):
        return set()
    inside = [each for key, each in value.items() if key not in FREE or isinstance(each, list)]
    return set(value) | keys(inside)


@pytest.mark.parametrize("name", [None, *NAMES])
def test_every_key_is_documented(name: str | None) -> None:
    assert keys(facts(REHEARSAL, verdict_of(name))) - documented() == set()
    assert keys(facts(PLAN, sound().handover.plan)) - documented() == set()


def test_a_key_that_is_not_documented_would_be_missed() -> None:
    assert keys({"verdict": 1, "no_such_key": {"general": {"rax": 0}}}) - documented() == {
        "no_such_key"
    }


@pytest.mark.parametrize("name", [None, *NAMES])
def test_a_document_survives_json(name: str | None) -> None:
    document = facts(REHEARSAL, verdict_of(name))
    assert json.loads(json.dumps(document, allow_nan=False)) == document


@pytest.mark.parametrize("name", [None, *NAMES])
def test_numbers_are_ints_and_names_are_strings(name: str | None) -> None:
    for path, value in leaves(facts(REHEARSAL, verdict_of(name))):
        if (path[0] in ("stats", "blackout") and "seconds" in path) or path == (
            "console",
            "seconds",
        ):
            assert type(value) is float, path
        elif path[-1] == "ok":
            assert value is None or type(value) is bool
        elif path[-1] == "crash":
            assert type(value) is bool
        elif path in (
            ("entry",),
            ("console",),
            ("console", "exception"),
            ("xen",),
            ("relocation_code",),
            *(("segments", key) for key in ("by", "purgatory", "digested", "instructions")),
        ):
            assert value is None
        elif path == ("plan", "page_table_b") and value is None:
            assert "paging off" in shown(REHEARSAL, verdict_of(name))
        elif TEXTS & set(path[-2:]) and type(value) is str:
            assert value
        else:
            assert type(value) is int, path


@pytest.mark.parametrize("name", [None, *NAMES])
def test_no_key_is_ever_absent(name: str | None) -> None:
    document, good = facts(REHEARSAL, verdict_of(name)), facts(REHEARSAL, heard())
    assert list(document) == list(good)
    assert list(document["plan"]) == list(good["plan"])
    assert list(document["stats"]) == list(good["stats"])
    assert list(document["stopped"]) == list(good["stopped"])


@pytest.mark.parametrize("name", [None, *NAMES])
def test_the_document_says_what_the_screen_says(name: str | None) -> None:
    verdict = verdict_of(name)
    document, screen = facts(REHEARSAL, verdict), shown(REHEARSAL, verdict)
    assert document["verdict"] == verdict.outcome.value
    assert f"It {document['verdict']}" in screen
    marks = {True: {"ok"}, False: {"wrong", "FELL"}, None: {"-"}}
    for step in document["steps"][1:]:
        [line] = [
            x for x in screen.splitlines() if x.startswith(f"{step['number']} {step['name']}")
        ]
        assert line.split()[-1] in marks[step["ok"]]
    for finding in document["findings"]:
        assert f"[{finding['rule']}]" in screen
        assert finding["message"] in screen
        assert finding["mend"] in screen
        assert all(f"{k:<16} {v}" in screen for k, v in finding["evidence"].items())
    plan, registers = document["plan"], document["stopped"]["registers"]
    assert f"  V               {plan['relocation']:#x} " in screen
    assert f"  P               {plan['control_page']:#x} " in screen
    for table in ("page_table_a", "page_table_b"):
        if plan[table] is None:
            assert f"  {table} " not in screen
            continue
        assert f"  {table}    {plan[table]['root']:#x}   {len(plan[table]['pages'])} page" in screen
    long_mode = registers["efer"] & 0x400
    names = {
        name if long_mode else f"e{name[1:]}": f"{value:#018x}" if long_mode else f"{value:#010x}"
        for name, value in registers["general"].items()
        if long_mode or not name[1:].isdigit()
    }
    assert all(f"{name:<3} {value}" in screen for name, value in names.items())
    assert f"cr3 {registers['cr3']:#x} " in screen
    assert f"gdt {registers['gdt']['base']:#x}/{registers['gdt']['limit']:#x}" in screen
    assert f"idt limit {registers['idt']['limit']:#x}" in screen
    assert plan["image"] in screen
    assert plan["host"] in screen
    if document["entry"]:
        stats = document["stats"]
        assert f"head {plan['list']['head']:#x}" in screen
        assert f"{stats['instructions']:,} instructions from V to here" in screen
        assert f"of {plan['pages']}; {stats['pages_in_place']} were in place" in screen
        assert f"copied {stats['pages_copied']} page" in screen


@pytest.mark.parametrize("name", [None, *NAMES])
def test_registers_are_those_of_the_run(name: str | None) -> None:
    verdict = verdict_of(name)
    document = facts(REHEARSAL, verdict)
    arrived = verdict.run.stop is Stop.ENTRY
    assert document["stopped"]["why"] == ("entry" if arrived else "fault")
    assert document["entry"] == (document["stopped"]["registers"] if arrived else None)
    same(document["stopped"]["registers"], verdict.run.registers)


def same(document: dict[str, object], registers: Registers) -> None:
    assert document["general"] == dict(registers.general)
    assert document["segments"] == dict(registers.segments)
    for name in ("rip", "rflags", "cr0", "cr3", "cr4", "efer"):
        assert document[name] == getattr(registers, name)
    assert document["gdt"] == {"base": registers.gdt[0], "limit": registers.gdt[1]}
    assert document["idt"] == {"base": registers.idt[0], "limit": registers.idt[1]}


def test_the_numbers_of_a_good_run_add_up() -> None:
    document = facts(REHEARSAL, heard())
    plan, stats = document["plan"], document["stats"]
    run = heard().run
    assert stats["pages_copied"] + stats["pages_in_place"] == plan["pages"]
    assert stats["pages_in_place"] == plan["pages_in_place"]
    assert stats["bytes_copied"] == 4096 * stats["pages_copied"]
    assert stats["instructions"] == run.instructions == len(run.trace)
    assert stats["translations"] == len(run.translations)
    assert sum(segment["size"] for segment in plan["segments"]) == 4096 * plan["pages"]
    assert all(segment["data"] <= segment["size"] for segment in plan["segments"])
    assert document["rules"] == list(heard().rules)
    assert stats["peak_memory"] > 1 << 20
    assert set(stats["seconds"]) == set(heard().seconds)
    assert [step["number"] for step in document["steps"]] == [int(step) for step in Step]


def test_the_plan_of_a_verdict_is_the_plan_and_its_tables() -> None:
    handover = sound().handover
    document = facts(REHEARSAL, sound())["plan"]
    assert {k: v for k, v in document.items() if k in facts(PLAN, handover.plan)} == (
        facts(PLAN, handover.plan)
    )
    for name, tables in (
        ("page_table_a", handover.page_table_a),
        ("page_table_b", table_b(handover)),
    ):
        assert document[name] == {"root": tables.root, "pages": sorted(tables.pages)}
    assert document["segments"] == [
        {
            "name": each.name,
            "start": each.destination.start,
            "size": each.destination.size,
            "data": len(each.data),
            "why": each.why,
        }
        for each in handover.plan.segments
    ]
    assert document["list"]["pages"] == sorted(handover.plan.list_pages)
    assert document["kernel_entry"] == handover.plan.kernel_entry
    assert document["entry"] == handover.plan.entry
    assert document["boot_params"] == handover.plan.boot_params
    assert document["identity"][0] == {
        "start": handover.plan.control_page,
        "size": 4096,
        "what": "the control page",
    }


def test_what_the_new_kernel_said_is_in_the_document() -> None:
    console = heard().console
    assert console is not None
    assert facts(REHEARSAL, heard())["console"] == {
        "lines": list(console.lines),
        "seconds": console.seconds,
        "stopped": console.stopped,
        "ending": console.ending.value,
        "speaker": "the new kernel",
        "rip": console.rip,
        "exception": None,
    }
    assert console.rip is not None
    assert facts(REHEARSAL, sound())["console"] is None


@pytest.mark.parametrize("paging", list(Paging))
def test_a_crash_kexec_says_so_in_every_mode(paging: Paging) -> None:
    document = facts(REHEARSAL, crashed(paging))
    assert list(document["plan"]) == list(facts(REHEARSAL, sound())["plan"])
    assert document["plan"]["crash"] is True
    assert document["plan"]["list"] == {"head": 4, "pages": []}
    assert document["stats"]["pages_copied"] == 0
    assert facts(REHEARSAL, sound())["plan"]["crash"] is False
