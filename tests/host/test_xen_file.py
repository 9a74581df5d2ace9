"""A host file from what Xen says of itself: it reads back as said, it rehearses, bad facts are one line."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from tightrope import host, image, shipped
from tightrope.cli import main
from tightrope.deeds import performable
from tightrope.deeds.rehearse import rehearse
from tightrope.errors import HostError
from tightrope.memory import Extent, RegionKind
from tightrope.model import Outcome, XenInterface
from tightrope.perform import load_file
from tightrope.plan import Request

FACTS: dict[str, object] = {
    "version": "4.17",
    "relocation": 0xFFFF_82D0_4020_4000,
    "ranges": {
        "CRASH": {"start": 0x2D82_F000, "size": 0xC00_0000},
        "XEN": {"start": 0x3FA0_0000, "size": 0x3A_6140},
        "CPU": {"start": 0x2D82_9700, "size": 500},
        "VMCOREINFO": {"start": 0x3FD7_C540, "size": 0x1000},
    },
    "cpu_notes": [{"start": 0x2D82_9700, "size": 500}],
    "memory": [
        {"start": 0x10_0000, "size": 0x3FED_7000, "type": 1},
        {"start": 0x0, "size": 0x9_FC00, "type": 1},
        {"start": 0x9_FC00, "size": 0x400, "type": 2},
        {"start": 0xF_0000, "size": 0x1_0000, "type": 2},
        {"start": 0x3FFD_7000, "size": 0x2_9000, "type": 17},
    ],
    "cpuinfo": {"flags": "fpu nx lm", "address sizes": "40 bits physical, 48 bits virtual"},
}
"""What Xen 4.17 said in QEMU with 1 GiB."""


def test_what_xen_said_is_in_the_host() -> None:
    old = host.read(host.xen_file(FACTS, "facts"), "facts")
    assert old.xen is not None
    assert old.xen.version == (4, 17)
    assert old.relocation == 0xFFFF_82D0_4020_4000
    assert old.text.phys == 0x3FA0_0000
    assert old.crash_region == Extent.sized(0x2D82_F000, 0xC00_0000)
    assert [each.extent.size for each in old.crash_notes] == [500, 0x1000]
    assert (old.cpu.physical_bits, old.cpu.nx, old.cpu.gbpages) == (40, True, False)
    assert old.memory.of(RegionKind.RESERVED)[-1] == Extent.sized(0x3FFD_7000, 0x2_9000)


@pytest.mark.parametrize("crash", [False, True])
def test_it_rehearses_and_what_is_written_is_the_plan(crash: bool) -> None:
    old = host.read(host.xen_file(FACTS, "facts"), "facts")
    new = image.read(shipped.read(), "shipped")
    got = rehearse(new, old, Request(crash=crash, xen=XenInterface.V2))
    assert got.outcome is Outcome.HOLDS
    plan = got.handover.plan
    load = load_file.read(load_file.write(performable.of(plan, "holds")), "it")
    assert (load.entry, load.crash, load.legacy, load.rehearsed) == (
        *(plan.entry, crash, False),
        "holds",
    )
    carried = {each.destination: bytes(each.data) for each in load.segments if len(each.data)}
    assert carried == {each.destination: bytes(each.data) for each in plan.segments}


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        (
            "relocation",
            None,
            "relocation: is not an address: does this Xen provide /proc/xen/xensyms?",
        ),
        ("version", 4, "version: expected text, found a number"),
        ("ranges", {}, "ranges.XEN: Xen did not say where it lies"),
        ("ranges", [], "ranges: expected a table, found an array"),
        ("memory", [], "memory: no RAM is left"),
        ("memory", [{"start": 0, "size": 4096}], "memory[0].type: missing"),
        ("memory", [{"start": -1, "size": 0, "type": 1}], "memory[0].start: -0x1 is too small"),
        ("cpu_notes", [7], "cpu_notes[0]: expected a table, found a number"),
        ("cpuinfo", {}, "cpuinfo.address sizes: is not a number of bits"),
    ],
)
def test_bad_facts_are_one_line(key: str, value: object, says: str) -> None:
    facts = {**copy.deepcopy(FACTS), key: value}
    with pytest.raises(HostError) as caught:
        host.xen_file(facts, "facts")
    assert says in str(caught.value)


def test_the_command_prints_it_and_refuses_what_is_no_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "facts"
    path.write_text(json.dumps(FACTS))
    assert main(["host", "xen", str(path)]) == 0
    assert capsys.readouterr().out == host.xen_file(FACTS, str(path))
    for text, says in (("{", "is not JSON"), ("[]", "is not a JSON object")):
        path.write_text(text)
        assert main(["host", "xen", str(path)]) == 2
        assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--xen", "v1"], "a plan for --xen v1 cannot be written"),
        (["--sabotage", "no-v"], "a sabotaged plan is not written: it must never be performed"),
        (
            ["--xen", "v2", "--sabotage", "no-v"],
            "a sabotaged plan is not written: it must never be performed",
        ),
    ],
)
def test_what_cannot_be_performed_is_not_written(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "load"
    assert main(["rehearse", "--shipped", *arguments, "--write", str(out)]) == 2
    assert says in capsys.readouterr().err
    assert not out.exists()


def test_what_held_is_written_and_no_other_machine_takes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "load"
    assert main(["rehearse", "--shipped", "--xen", "v2", "--write", str(out)]) == 0
    assert load_file.read(out.read_bytes(), "it").rehearsed == "holds"
    assert main(["perform", "xen", str(out), "--really"]) == 2
    assert "does not run under Xen" in capsys.readouterr().err
