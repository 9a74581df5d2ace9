"""`tightrope sweep`: one rehearsal a class, each host a row, whatever happens to workers and files."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.makers.bzimage import bzimage
from tests.makers.fleet import booted
from tightrope import host as host_room
from tightrope.check import RULES
from tightrope.cli import main
from tightrope.model import Host

EXAMPLE = host_room.read(host_room.example(), "the default host")


def written(old: Host) -> str:
    return host_room.write(old, "a host of a fleet")


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("kernel") / "made.bzimage"
    path.write_bytes(bzimage(init_size=0x10000))
    return str(path)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty boots of one machine, four of one that has no NX, a copy, and six files that are no hosts."""
    folder = tmp_path_factory.mktemp("fleet")
    chance = random.Random(7)
    for number in range(40):
        (folder / f"plain-{number:02}.toml").write_text(written(booted(EXAMPLE, chance)))
    low = replace(EXAMPLE, cpu=replace(EXAMPLE.cpu, physical_bits=40))
    for number in range(4):
        (folder / f"low-{number}.toml").write_text(written(booted(low, chance)))
    (folder / "copy.toml").write_text((folder / "plain-00.toml").read_text())
    (folder / "no-toml.toml").write_text("x = ")
    (folder / "no-text").write_bytes(b"\xff\xfe")
    (folder / "no-host.toml").write_text("x = 1\n")
    (folder / "empty").write_bytes(b"")
    (folder / "dangling").symlink_to(folder / "nowhere")
    (folder / ".hidden").write_text("is no host file")
    return folder


def rows(path: Path) -> list[dict[str, object]]:
    header, *lines = path.read_text().splitlines()
    assert json.loads(header)["schema"] == "tightrope/sweep-row"
    return [json.loads(line) for line in lines]


def swept(*words: str | Path) -> int:
    return main(["sweep", *map(str, words)])


@pytest.fixture(scope="module")
def told(fleet: Path, kernel: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    out = tmp_path_factory.mktemp("out") / "rows.jsonl"
    parquet = out.with_suffix(".parquet")
    page = out.with_suffix(".html")
    status = swept(
        "--hosts", fleet, "--kernel", kernel, "--out", out, "--parquet", parquet, "--json",
        "--html", page,
    )  # fmt: skip
    return status, out


def test_each_host_is_a_row_and_each_class_one_rehearsal(told: tuple[int, Path]) -> None:
    status, out = told
    found = rows(out)
    assert len({row["host"] for row in found}) == len(found) == 50
    assert status == 3
    groups = {row["group"] for row in found if row["group"]}
    assert sum(bool(row["walked"]) for row in found) == len(groups) < 20
    by_group: dict[object, set[object]] = {}
    for row in found:
        by_group.setdefault(row["group"], set()).add(row["outcome"])
    assert all(len(each) == 1 for each in by_group.values())
    assert by_group[None] == {None}
    assert sum(row["outcome"] == "holds" for row in found) == 45


def test_what_is_no_host_is_a_row_with_its_reason(told: tuple[int, Path]) -> None:
    reasons = {
        os.path.basename(str(row["host"])): str(row["detail"])
        for row in rows(told[1])
        if row["outcome"] is None
    }
    assert set(reasons) == {"no-toml.toml", "no-text", "no-host.toml", "empty", "dangling"}
    assert "not TOML" in reasons["no-toml.toml"]
    assert "not UTF-8" in reasons["no-text"]
    assert "No such file" in reasons["dangling"]


def test_the_parquet_file_has_the_same_rows(told: tuple[int, Path]) -> None:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(told[1].with_suffix(".parquet"))
    assert table.to_pylist() == rows(told[1])


def test_the_page_has_the_rules_asked_and_of_how_many_rehearsals(told: tuple[int, Path]) -> None:
    walked = sum(bool(row["walked"]) for row in rows(told[1]))
    page = told[1].with_suffix(".html").read_text(encoding="utf-8")
    list_of_rules = page[page.index("<details>") :]
    assert f"Rules asked: {len(RULES)}" in list_of_rules
    assert list_of_rules.count(f"{walked} of {walked}</td>") == len(RULES)
    assert [rule.id for rule in RULES if f"<td>{rule.id}</td>" not in list_of_rules] == []


def test_a_run_that_was_cut_goes_on_where_it_was(
    told: tuple[int, Path],
    fleet: Path,
    kernel: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "rows.jsonl"
    lines = told[1].read_text().splitlines(keepends=True)
    out.write_text("".join(lines[:30]) + lines[30][:40])
    page = tmp_path / "page.html"
    status = swept(
        "--hosts", fleet, "--kernel", kernel, "--out", out, "--resume", "--json", "--html", page
    )
    assert status == 3
    said = json.loads(capsys.readouterr().out)
    assert (said["known_before"], said["rows"]) == (29, 50)
    assert out.read_text().startswith("".join(lines[:30]))
    again, before = rows(out), rows(told[1])
    walked = sum(bool(row["walked"]) for row in again[29:])
    assert f"{walked} of {walked}</td>" in page.read_text() or not walked
    assert len(again) == 50
    ours, theirs = (
        {(r["host"], r["group"], r["outcome"]) for r in each} for each in (again, before)
    )
    assert ours == theirs


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no json\n", "is not a sweep's output"),
        ('{"schema": "something else"}\n', "is not a sweep's output"),
        ("[]\n", "is not a sweep's output"),
        (
            '{"schema": "tightrope/sweep-row", "version": 1, "question": "0"}\n',
            "it asked for other",
        ),
    ],
)
def test_what_is_no_output_of_this_sweep_is_not_gone_on_from(
    text: str,
    says: str,
    fleet: Path,
    kernel: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "rows.jsonl"
    out.write_text(text)
    assert swept("--hosts", fleet, "--kernel", kernel, "--out", out, "--resume") == 2
    assert says in capsys.readouterr().err
    assert out.read_text() == text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--hosts", "{tmp}/nothing-*.toml"], "no host file is there"),
        (["--on", "elsewhere"], "'elsewhere' is none of processes, dask, dask://HOST:PORT"),
        (["--workers", "0"], "--workers: 0 is not a number from 1 up"),
        (["--resume"], "--resume: goes on from the file of --out"),
        (["--initrd", "{tmp}/nothing"], "No such file"),
        (["--from", "{tmp}/nothing"], "No such file"),
        (["--out", "{tmp}"], "Is a directory"),
    ],
)
def test_what_cannot_be_asked_is_one_line_and_nothing_is_left(
    words: list[str],
    says: str,
    fleet: Path,
    kernel: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [each.format(tmp=tmp_path) for each in words]
    hosts = [] if "--hosts" in given else ["--hosts", str(fleet)]
    assert swept(*hosts, "--kernel", kernel, *given) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err.splitlines()[0]
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_grow_keeps_what_was_written(
    fleet: Path, kernel: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert swept("--hosts", fleet, "--kernel", kernel, "--out", "/dev/full", "--force") == 2
    assert "/dev/full: No space left on device" in capsys.readouterr().err


def children() -> set[int]:
    """The worker processes of this one."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            words = (stat.parent / "cmdline").read_text()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and "spawn_main" in words:
            found.add(int(stat.parent.name))
    return found


@pytest.fixture
def killer() -> Iterator[list[int]]:
    """Kills the first worker of ours that appears, once."""
    killed: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            for pid in children():
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                return

    thread = threading.Thread(target=watch)
    thread.start()
    yield killed
    over.set()
    thread.join()


def test_a_worker_that_is_killed_loses_nothing_and_none_is_left(
    killer: list[int], told: tuple[int, Path], fleet: Path, kernel: str, tmp_path: Path
) -> None:
    out = tmp_path / "rows.jsonl"
    assert swept("--hosts", fleet, "--kernel", kernel, "--out", out, "--workers", "2") == 3
    assert killer
    ours, theirs = (
        {(r["host"], r["group"], r["outcome"]) for r in rows(each)} for each in (out, told[1])
    )
    assert ours == theirs
    deadline = time.monotonic() + 240
    while children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not children()
