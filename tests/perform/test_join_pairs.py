"""scripts/join-pairs puts what was predicted beside what happened, and a disagreement shows by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

OLD, NEW = "x/boot/vmlinuz-6.12.1+deb13-amd64", "vmlinuz-7.3.4+deb13-amd64"


def pair(
    mode: str, outcome: str | None, loader: str = "tightrope", detail: str = ""
) -> dict[str, object]:
    return {
        "old": OLD, "new": NEW, "mode": mode, "crash": False, "loader": loader, "outcome": outcome,
        "detail": detail,
    }  # fmt: skip


def joined(
    folder: Path, pairs: list[dict[str, object]], *jumps: dict[str, object]
) -> tuple[int, list[str]]:
    (folder / "p").write_text(json.dumps({"pairs": pairs}))
    (folder / "j").write_text("".join(f"{json.dumps(each)}\n" for each in jumps))
    script = str(REPOSITORY / "scripts/join-pairs")
    done = subprocess.run(
        [sys.executable, script, folder / "p", "--", folder / "j"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout.splitlines()[2:]


def jump(*, happened: bool, loader: str = "kexec_file_load", **more: str) -> dict[str, object]:
    return {
        "old": "amd64-6.12", "new": "amd64-7.3", "crash": False, "loader": loader,
        "happened": happened, "said": "", **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("pairs", "made", "status", "row"),
    [
        ([pair("x86_64", "holds")], jump(happened=True), 0, "| holds (our segments) | entered |"),
        ([pair("x86_64", "falls")], jump(happened=False), 0, "| falls (our segments) | not entered |"),
        ([pair("x86_64", None)], jump(happened=True), 0, "| cannot be told (our segments) | entered |"),
        ([], jump(happened=True), 0, "| cannot be told (our segments) | entered |"),
        (
            [pair("x86_64", "holds")], jump(happened=False), 1,
            "| holds (our segments) | not entered **disagree** |",
        ),
        (
            [pair("x86_64", "holds"), pair("la57", "falls")], jump(happened=True), 1,
            "| falls (our segments) | entered **disagree** |",
        ),
        (
            [pair("x86_64", "falls"), pair("x86_64", "holds", "file-load")], jump(happened=True), 0,
            "| holds (file-load) | entered |",
        ),
        (
            [pair("x86_64", "falls", detail="image-asks, step 0")],
            jump(happened=True, setup_data="0x0"), 0,
            "| falls (our segments) | entered, its setup_data overwritten |",
        ),
        (
            [pair("x86_64", "falls", detail="image-asks, step 0")],
            jump(happened=True, setup_data="0x9"), 0,
            "| falls (our segments) | entered, moved away by KASLR |",
        ),
        (
            [pair("x86_64", "falls", detail="arrived, step 6")],
            jump(happened=True, setup_data="0x9"), 1,
            "| falls (our segments) | entered **disagree** |",
        ),
    ],
)  # fmt: skip
def test_a_disagreement_shows_by_itself(
    tmp_path: Path,
    pairs: list[dict[str, object]],
    made: dict[str, object],
    status: int,
    row: str,
) -> None:
    got, rows = joined(tmp_path, pairs, made)
    assert got == status
    [line] = rows
    assert line.startswith("| 6.12 -> 7.3 | kexec | kexec_file_load |")
    assert line.endswith(row)


def test_a_jump_that_was_made_again_counts_by_its_last_time(tmp_path: Path) -> None:
    pairs = [pair("x86_64", "holds")]
    assert joined(tmp_path, pairs, jump(happened=False), jump(happened=True))[0] == 0


def test_without_kaslr_nothing_excuses_a_kernel_that_came_up_whole(tmp_path: Path) -> None:
    pairs = [pair("x86_64", "falls", detail="image-asks, step 0")]
    made = jump(happened=True, setup_data="0x9", words="nokaslr")
    status, [line] = joined(tmp_path, pairs, made)
    assert (status, "| kexec nokaslr |" in line, "**disagree**" in line) == (1, True, True)


def test_kernels_of_one_version_are_not_taken_for_one_another(tmp_path: Path) -> None:
    wide, narrow = pair("x86_64", "holds"), pair("pae", "falls")
    wide["old"], narrow["old"] = "vmlinuz-6.1.0-57-amd64", "vmlinuz-6.1.0-50-686-pae"
    for flavour, happened in (("amd64", True), ("686-pae", False)):
        made = {**jump(happened=happened), "old": flavour}
        assert joined(tmp_path, [wide, narrow], made)[0] == 0


def test_the_table_in_the_docs_is_what_the_script_makes_of_its_files() -> None:
    folder = REPOSITORY / "docs/reality"
    done = subprocess.run(
        [
            sys.executable, str(REPOSITORY / "scripts/join-pairs"),
            folder / "predicted.json", "--", folder / "performed.jsonl", folder / "cloud.jsonl",
        ],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert done.stdout in (REPOSITORY / "docs/old-kernels.md").read_text(encoding="utf-8")
