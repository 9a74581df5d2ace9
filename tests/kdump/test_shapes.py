"""`kdump check` beside real crashes: the rows that scripts/crash-shapes wrote, and one shape made again."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import drgn
import pytest

from tests.conftest import REPOSITORY
from tests.kdump import crash_kernel, shapes
from tests.kdump.shapes import Happened
from tests.qemu.disk import Disk
from tests.vmcore.kdumps import makedumpfile
from tightrope import vmcore

ROWS = REPOSITORY / "docs" / "reality" / "crashes.jsonl"
ASKED = {"good", "too small", "no initrd", "high and low", "5 levels", "686-pae"}


def script() -> ModuleType:
    """scripts/crash-shapes."""
    loader = SourceFileLoader("crash_shapes", str(REPOSITORY / "scripts" / "crash-shapes"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_every_recorded_crash_is_what_was_said_and_the_docs_have_the_table() -> None:
    rows, same = script().table(ROWS)
    assert same, rows
    assert {row.split("|")[1].strip() for row in rows} >= ASKED
    docs = (REPOSITORY / "docs" / "kdump.md").read_text(encoding="utf-8")
    assert "\n".join((script().HEAD, *rows)) in docs


@pytest.mark.parametrize(
    ("said", "happened", "same"),
    [
        (("holds", None), {"saved": "/var/crash/1/dump", "pgd": "whole"}, True),
        (("holds", None), {"saved": "/var/crash/1/dump", "pgd": "not whole"}, False),
        (("holds", None), {"saved": "/var/crash/1/dump", "pgd": "whole", "differ": ["V"]}, False),
        (
            ("holds", None),
            {"saved": "", "console": ["Out of memory and no killable processes"]},
            False,
        ),
        (("falls", "memory"), {"saved": "", "console": ["Out of memory: Killed process 1"]}, True),
        (("falls", "initrd"), {"saved": "", "console": ["Out of memory: Killed process 1"]}, False),
        (("falls", "initrd"), {"saved": "", "console": ["VFS: Unable to mount root fs on"]}, True),
        (("falls", "memory"), {"saved": "/var/crash/1/dump", "pgd": "whole"}, False),
        (("falls", "root"), {"saved": "", "console": [], "said": ["reboot: Restarting"]}, False),
        ((None, "time"), {"saved": "/var/crash/1/dump", "pgd": "whole"}, False),
        (("refused", None), {"saved": "", "refused": ["no region"]}, True),
        (("refused", None), {"saved": "/var/crash/1/dump", "pgd": "whole"}, False),
        (("refused", None), {"saved": "", "console": ["Out of memory: Killed process 1"]}, False),
        (("holds", None), {"saved": "", "refused": ["no region"]}, False),
        (("unknown", "time"), {"saved": "/var/crash/1/dump", "pgd": "whole"}, False),
        (("unknown", "time"), {"saved": "", "said": ["[ 2.0] Run /bin/cat as init process"]}, True),
        (
            ("falls", "memory"),
            {"saved": "", "said": ["[ 2.0] Run /bin/cat as init process"]},
            False,
        ),
    ],
)
def test_a_disagreement_shows_by_itself(
    said: tuple[str | None, str | None], happened: dict[str, object], same: bool, tmp_path: Path
) -> None:
    memory = {"peak": None, "size": 1 << 20}
    row = {
        "shape": "made", "kernel": "6", "memory": 1, "crashkernel": "1M",
        "said": {"verdict": said[0], "cause": said[1], "reached": "init", "memory": memory},
        "happened": {"said": [], "console": [], "differ": [], **happened},
    }  # fmt: skip
    path = tmp_path / "rows"
    path.write_text(json.dumps(row))
    [line], agree = script().table(path)
    assert (agree, "**disagrees**" in line) == (same, not same)


def test_debians_initrd_saves_a_dump_after_a_real_crash_as_was_said(tmp_path: Path) -> None:
    """The good shape, from the guest's own files to a dump on its disk that the plan agrees with.

    In its crash kernel `kdump capture` is ended twice, and contrib's hook goes on with it, before kdump-tools' own
    way is taken (crash_kernel.py).
    """
    shape = shapes.NAMED["good"]
    with shapes.crashing(shape, crash_kernel.files()) as (guest, disk):
        captured = tmp_path / "captured.toml"
        captured.write_text(shapes.described(guest, shape))
        shapes.loaded(guest, shape)
        happened = shapes.crashed(guest, disk, captured.read_text(), shape)
        what_was_interrupted_is_whole(happened, disk, tmp_path)
    assert (happened.release, happened.pgd) == (shape.release, "whole"), happened.console[-20:]
    assert re.fullmatch(r"/var/crash/\d+/dump\.\d+", happened.saved)
    assert happened.differ == []
    said = shapes.predicted(shape, captured)
    assert (said["verdict"], said["cause"]) == ("holds", None), said["why"]


def what_was_interrupted_is_whole(happened: Happened, disk: Disk, tmp_path: Path) -> None:
    """Two signals and a hook in the crash kernel; three readers that nobody here wrote open what it saved."""
    told = re.findall(
        r"tightrope: .*", "\n".join(happened.console)
    )  # behind a bar of progress, too
    ends = [each for each in told if "capture ended" in each]
    assert [each.split()[4] for each in ends] == ["130", "143"], happened.console
    assert all("vmcore-dmesg.txt" in each and "vmcore.part" in each for each in ends)
    for why in ("interrupted", "terminated"):
        words = f"tightrope: {why}; the same command goes on with what it has saved"
        assert any(words in each for each in told), told
    assert "tightrope: hook ended with 0" in told, told
    with shapes.on_disk(disk, crash_kernel.FOLDER) as folder:
        assert {each.name for each in folder.iterdir()} == {
            *("vmcore", "vmcore.sha256", "vmcore-dmesg.txt")
        }
        core = folder / "vmcore"
        with core.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        assert (folder / "vmcore.sha256").read_text() == f"{digest}  vmcore\n"
        assert "sysrq triggered crash" in (folder / "vmcore-dmesg.txt").read_text()
        dump = vmcore.read(str(core))
        answer = vmcore.pgd(dump)
        assert answer.whole
        program = drgn.Program()
        program.set_core_dump(str(core))
        pgd = int(answer.root.phys)
        assert program.read(pgd, 4096, True) == dump.page(pgd)
        (filtered,) = makedumpfile(core, "-l", "-d", "31", out=tmp_path / "filtered")
        assert vmcore.pgd(vmcore.read(str(filtered))).whole
