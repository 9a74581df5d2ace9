"""`pgd --plan`: nothing but what a crash may write differs between a host file and the dump, and what does is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.crash.test_pgd_is_whole import FIRST, MODES, dump, found_in, host_of, sound, walk
from tests.makers.designs import IN_PLACE
from tests.makers.hosts import MIB
from tests.makers.screens import facts, screen
from tightrope import vmcore
from tightrope.cli import main
from tightrope.memory import Extent, Phys, Virt
from tightrope.model import Host, Paging
from tightrope.model.host import Basis, Fact, Named
from tightrope.views.pgd import VIEW, Looked
from tightrope.vmcore.planned import FIRST_MIB, may_write, planned


@MODES
def test_a_sound_walk_changes_nothing_outside_of_what_it_may_write(
    paging: Paging, tmp_path: Path
) -> None:
    old = host_of(paging)
    found = found_in(sound(paging), tmp_path / "vmcore")
    got = planned(found, old)
    assert got.differ == ()
    assert len(got.agree) == 9
    (noted,) = (each.extent for each in old.crash_notes if each.what == "vmcoreinfo")
    assert f"VMCOREINFO lies at {noted.start:#x}" in got.agree
    assert old.crash_region is not None
    assert set(got.writes) == {FIRST_MIB, old.crash_region}


@MODES
def test_vmcoreinfo_that_was_written_over_or_lies_elsewhere_is_told(
    paging: Paging, tmp_path: Path
) -> None:
    old, path = host_of(paging), tmp_path / "vmcore"
    found = found_in(sound(paging), path)
    (note,) = (each for each in old.crash_notes if each.what == "vmcoreinfo")
    elsewhere = tuple(
        replace(each, extent=Extent.sized(each.extent.start + 4 * MIB, each.extent.size))
        if each is note
        else each
        for each in old.crash_notes
    )
    moved_notes = moved(old, crash_notes=elsewhere)
    [said] = planned(found, moved_notes).differ
    assert said.startswith(f"VMCOREINFO lies at {note.extent.start + 4 * MIB:#x}: it has other")
    with path.open("r+b") as core:  # the notes that the dump begins with stay
        core.seek(FIRST + note.extent.start + 64)
        core.write(b"written over")
    again = vmcore.pgd(vmcore.read(str(path)))
    assert again.whole
    [said] = planned(again, old).differ
    assert said.startswith(f"VMCOREINFO lies at {note.extent.start:#x}: it has other bytes")
    # An assumption is not held against it, nor what the dump leaves out.
    fact = Fact(field="crash_note", basis=Basis.ASSUMED, source="nobody says it")
    assert planned(again, replace(old, facts=(fact,))).differ == ()
    out = tuple(
        replace(each, extent=Extent.sized(0x2000, 0x1000)) if each is note else each
        for each in old.crash_notes
    )
    assert planned(found, replace(old, crash_notes=out)).differ == ()


@pytest.mark.parametrize("paging", [Paging.I386, Paging.PAE])
def test_what_linux_did_before_the_thread_is_told_though_the_tables_are_whole(
    paging: Paging, tmp_path: Path
) -> None:
    """The control page at its own address, in the dead kernel's own pgd."""
    found = found_in(walk(host_of(paging), design=IN_PLACE), tmp_path / "vmcore")
    assert found.whole
    [said] = planned(found, host_of(paging)).differ
    assert said.startswith("nothing leads into the region at its own address: 0x")


def moved(old: Host, **more: object) -> Host:
    return replace(old, source="before", **more)  # type: ignore[arg-type]


def test_each_part_of_a_plan_that_the_dump_does_not_have_is_told(tmp_path: Path) -> None:
    old = host_of(Paging.X86_64)
    region = old.crash_region
    assert region is not None
    found = found_in(sound(Paging.X86_64), tmp_path / "vmcore")
    text, direct = old.text, old.direct_map
    lower = Extent(region.start - 4 * MIB, region.end)
    less = Extent(region.start + 4 * MIB, region.end)
    cases = {
        "the kernel's text": moved(old, text=replace(text, phys=Phys(text.phys + 2 * MIB))),
        "V ": moved(old, relocation=Virt(text.virt - 64 * MIB)),
        "RAM is mapped at": moved(old, direct_map=replace(direct, virt=Virt(direct.virt + 2 * MIB))),
        "the dump has nothing that a crash writes": moved(old, crash_region=lower),
        "it has all RAM that no crash writes": moved(old, crash_region=less),
        "the region": moved(old, crash_region=None),
        "all that it has is the host's RAM": moved(
            old,
            memory=replace(
                old.memory,
                regions=tuple(
                    replace(each, extent=Extent(each.extent.start, min(each.extent.end, region.start)))
                    for each in old.memory
                ),
            ),
        ),
    }  # fmt: skip
    for what, host in cases.items():
        differ = planned(found, host).differ
        assert any(each.startswith(what) for each in differ), (what, differ)
    wrong = cases["the kernel's text"]
    fact = Fact(field="text.phys", basis=Basis.ASSUMED, source="nobody says it")
    assert planned(found, replace(wrong, facts=(fact,))).differ == ()


def test_the_command_says_it_in_words_and_in_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = host_of(Paging.X86_64)
    path = tmp_path / "vmcore"
    dump(sound(Paging.X86_64), path)
    found = vmcore.pgd(vmcore.read(str(path)))
    looked = Looked(pgd=found, plan=planned(found, old))
    assert "0 differences" in screen(VIEW, looked)
    plan = facts(VIEW, looked)["plan"]
    assert plan["differ"] == []
    assert {"start": 0, "size": MIB} in plan["may_write"]
    other = tmp_path / "other.toml"
    assert main(["host", "example", "--crash", "0x40000000+0x8000000"]) == 0
    other.write_text(capsys.readouterr().out)
    assert main(["pgd", str(path), "--plan", str(other)]) == 1
    assert "differs" in capsys.readouterr().out


def test_what_may_be_written_is_all_that_a_crash_kernel_has() -> None:
    old = host_of(Paging.X86_64)
    low = Extent.sized(0x100_0000, MIB)
    got = may_write(replace(old, crash_memory=(Named(extent=low, what="low"),)))
    assert low in got
