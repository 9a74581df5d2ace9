"""What a person is shown of 1a and 1b, and the same as JSON."""

from __future__ import annotations

import json

import pytest

from tests.makers.screens import facts, screen
from tests.xen.runs import (
    KINDS,
    NEW_WAYS,
    OUT,
    V1_WAYS,
    WAYS,
    Way,
    handed_over,
    identifier,
    loaded_by_v2,
    walk,
)
from tightrope import host as host_room
from tightrope.cli import main
from tightrope.model import PageList, XenCrash, XenV2
from tightrope.views.rehearsal import VIEW as REHEARSAL
from tightrope.views.xen import overwritten


@pytest.mark.parametrize("way", V1_WAYS, ids=identifier)
def test_each_page_has_a_line_with_its_three_addresses(way: Way) -> None:
    verdict = walk(way)
    load = handed_over(verdict.handover.intent)
    lines = screen(REHEARSAL, verdict).splitlines()
    at = next(n for n, line in enumerate(lines) if line == "what dom0 handed over")
    for number, page in enumerate(load.pages):
        line = lines[at + 2 + number]
        assert page.name in line
        assert f"{page.pseudo:#x} " in line
        assert f"{page.machine:#x} " in line
        assert line.endswith("-" if page.fixmap is None else f"{page.fixmap:#x}")
    how = "leaves long mode by code of its own" if way == OUT else "jumps to V, its NX-safe"
    assert any(line.startswith(f"1b the hypervisor {how}") for line in lines)
    assert not any(line.startswith("1 call") for line in lines)


@pytest.mark.parametrize("way", V1_WAYS, ids=identifier)
def test_what_the_hypervisor_overwrote_is_shown_entry_by_entry(way: Way) -> None:
    """The two chains differ in V alone: its entries go, and come elsewhere."""
    verdict = walk(way)
    changed = overwritten(verdict.handover)
    gone = [after for _name, _slot, _before, after in changed if not after]
    come = [before for _name, _slot, before, _after in changed if not before]
    if way == OUT:
        assert len(gone) > len(come) > 0  # V is P: one chain is left of two
    else:
        assert len(gone) == len(come) > 0
    text = screen(REHEARSAL, verdict)
    assert f"the hypervisor overwrote {len(changed)} entries of page_table_a" in text
    for name, slot, before, after in changed:
        assert f"{name}[{slot}]  {before:#x} -> {after:#x}" in text


@pytest.mark.parametrize("way", NEW_WAYS, ids=identifier)
def test_each_segment_is_shown_with_how_the_image_is_entered(way: Way) -> None:
    verdict = walk(way, XenCrash.DOM0)
    load = loaded_by_v2(verdict.handover.intent)
    text = screen(REHEARSAL, verdict)
    for each in load.segments:
        assert f"{each.extent}  {each.what}" in text
    for each in load.mapped:
        assert f"{each.extent}  no buffer, only mapped: {each.what}" in text
    assert ("EM_386, paging off" if way[2] == 32 else "EM_X86_64, long mode") in text


@pytest.mark.parametrize("kind", KINDS, ids=identifier)
def test_who_asks_is_told(kind: XenCrash | None) -> None:
    text = screen(REHEARSAL, walk(WAYS[0], kind))
    wanted = {
        None: "1a dom0 asks the hypervisor",
        XenCrash.DOM0: "1a dom0 panics and asks the hypervisor",
        XenCrash.HYPERVISOR: "1a nobody asks: the hypervisor crashes",
    }
    assert wanted[kind] in text
    assert [key for key, words in wanted.items() if words in text] == [kind]


@pytest.mark.parametrize("way", WAYS, ids=identifier)
@pytest.mark.parametrize("kind", KINDS, ids=identifier)
def test_json_says_the_same_and_survives(way: Way, kind: XenCrash | None) -> None:
    verdict = walk(way, kind)
    found = facts(REHEARSAL, verdict)["xen"]
    assert json.loads(json.dumps(found)) == found
    load = verdict.handover.intent.through
    assert found["interface"] == way[1].value
    assert found["dom0_bits"] == way[2]
    assert found["crashed"] == (kind.value if kind else None)
    assert [each["machine"] for each in found["pages"]] == [
        each.machine for each in (load.pages if isinstance(load, PageList) else ())
    ]
    assert sum(each["buffer"] for each in found["segments"]) == (
        len(load.segments) if isinstance(load, XenV2) else 0
    )


def test_the_command_rehearses_by_default_hosts_of_a_mode(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for arguments in (
        ["--xen", "v1", "--mode", "pae"],
        ["--xen", "v2", "--crash", "--crashed", "hypervisor"],
        ["--mode", "i386"],
        ["--mode", "la57", "--crash"],
    ):
        assert main(["rehearse", "--shipped", *arguments]) == 0
        assert "It holds" in capsys.readouterr().out


@pytest.mark.parametrize("way", WAYS, ids=identifier)
def test_the_example_that_is_printed_is_a_host(
    way: Way, capsys: pytest.CaptureFixture[str]
) -> None:
    paging, interface, bits = way
    arguments = ["--mode", paging.value, "--xen", interface.value, "--dom0", str(bits)]
    assert main(["host", "example", *arguments]) == 0
    old = host_room.read(capsys.readouterr().out, "printed")
    assert old.xen is not None
    assert (old.paging, old.xen.dom0.bits) == (paging, bits)
    assert main(["host", "example", *arguments, "--split", "0xc0000000"]) == 2
    assert "a hypervisor has no memory split" in capsys.readouterr().err


def test_both_kinds_of_sabotage_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rehearse", "--sabotage", "list"]) == 0
    out = capsys.readouterr().out
    assert "xen-no-overwrite" in out
    assert "stale-global" in out
    command = ["rehearse", "--shipped", "--xen", "v1", "--sabotage", "xen-bare-v", "-v"]
    assert main(command) == 1
    assert "It falls at step 1 (xen-calls-fixmap)" in capsys.readouterr().out
