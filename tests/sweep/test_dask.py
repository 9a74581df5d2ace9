"""The same sweep on Dask: a cluster on this computer, and a scheduler with workers that can be killed."""

from __future__ import annotations

import json
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.makers.bzimage import bzimage
from tests.makers.fleet import booted
from tightrope import host as host_room
from tightrope.cli import main
from tightrope.deeds.sweep import pools
from tightrope.deeds.sweep.cargo import Cargo, parcel
from tightrope.deeds.sweep.carried import Carried

EXAMPLE = host_room.read(host_room.example(), "the default host")


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("kernel") / "made.bzimage"
    path.write_bytes(bzimage(init_size=0x10000))
    return str(path)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fleet")
    chance = random.Random(11)
    for number in range(60):
        text = host_room.write(booted(EXAMPLE, chance), "a host of a fleet")
        (folder / f"{number:02}.toml").write_text(text)
    (folder / "no-host.toml").write_text("x = 1\n")
    return folder


def swept(on: str, fleet: Path, kernel: str, out: Path, *words: str) -> set[tuple[object, ...]]:
    status = main(
        ["sweep", "--hosts", str(fleet), "--kernel", kernel, "--on", on, "--out", str(out), *words]
    )
    assert status == 3
    _, *lines = out.read_text().splitlines()
    return {(r["host"], r["group"], r["outcome"]) for r in map(json.loads, lines)}


@pytest.fixture(scope="module")
def expected(
    fleet: Path, kernel: str, tmp_path_factory: pytest.TempPathFactory
) -> set[tuple[object, ...]]:
    """What processes of this computer say."""
    return swept("processes", fleet, kernel, tmp_path_factory.mktemp("out") / "rows.jsonl")


def test_a_cluster_on_this_computer_says_what_processes_say(
    expected: set[tuple[object, ...]], fleet: Path, kernel: str, tmp_path: Path
) -> None:
    found = swept("dask", fleet, kernel, tmp_path / "rows.jsonl", "--workers", "1")
    assert found == expected


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


Cluster = tuple[str, list["subprocess.Popen[bytes]"]]
WORKER = """
import sys
sys.modules.update(dict.fromkeys(sys.argv.pop(1).split()))
from distributed.cli.dask_worker import main
main()
"""
"""One to which these modules are not installed."""


@contextmanager
def running(folder: Path, *, workers: int, lack: str = "") -> Iterator[Cluster]:
    """A scheduler's address, and so many worker processes, which `lack` modules."""
    port = free_port()
    with ExitStack() as stack:

        def started(*words: str) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        started(
            sys.executable, "-m", "distributed.cli.dask_scheduler",
            "--host", "127.0.0.1", "--port", str(port), "--no-dashboard",
        )  # fmt: skip
        processes = [
            started(
                sys.executable, "-c", WORKER, lack, f"tcp://127.0.0.1:{port}",
                "--nthreads", "1", "--no-nanny", "--no-dashboard",
            )
            for _ in range(workers)
        ]  # fmt: skip
        yield f"127.0.0.1:{port}", processes


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """With two workers."""
    with running(tmp_path, workers=2) as found:
        yield found


def test_a_worker_that_is_killed_in_the_middle_loses_nothing(
    cluster: Cluster,
    expected: set[tuple[object, ...]],
    fleet: Path,
    kernel: str,
    tmp_path: Path,
) -> None:
    address, workers = cluster
    out = tmp_path / "rows.jsonl"
    wait_for(address, workers=2)
    killed = threading.Event()

    def kill_one() -> None:
        while not (out.exists() and out.read_text().count("\n") > 2):
            time.sleep(0.02)
        workers[0].send_signal(signal.SIGKILL)
        killed.set()

    thread = threading.Thread(target=kill_one)
    thread.start()
    found = swept(f"dask://{address}", fleet, kernel, out)
    thread.join()
    assert killed.is_set()
    assert found == expected
    assert workers[1].poll() is None, "a cluster that is not ours stays"


def wait_for(address: str, *, workers: int) -> None:
    distributed: Any = import_module("distributed")
    deadline = time.monotonic() + 120
    while True:
        try:
            with distributed.Client(f"tcp://{address}", timeout=5) as client:
                if workers:
                    client.wait_for_workers(workers, timeout=120)
            return
        except OSError:
            if time.monotonic() > deadline:
                raise


def test_a_scheduler_that_is_not_there_is_one_line(
    fleet: Path,
    kernel: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pools, "CONNECT", 0.5)
    where = f"dask://127.0.0.1:{free_port()}"
    assert main(["sweep", "--hosts", str(fleet), "--kernel", kernel, "--on", where]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"tightrope: --on {where}: no scheduler answers")


def test_a_scheduler_without_workers_is_one_line(
    fleet: Path, kernel: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path, workers=0) as (address, _):
        wait_for(address, workers=0)
        where = f"dask://{address}"
        assert main(["sweep", "--hosts", str(fleet), "--kernel", kernel, "--on", where]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"tightrope: --on {where}: the scheduler has no workers\n")


@pytest.mark.parametrize(
    ("lack", "said"),
    [
        (
            "unicorn",
            r"worker tcp://\S+: the emulator needs Unicorn.*; install tightrope\[rehearse\]",
        ),
        ("tightrope", r"a worker has no tightrope like this one: ModuleNotFoundError.*"),
    ],
)
def test_a_worker_without_what_it_needs_is_one_line(
    lack: str,
    said: str,
    fleet: Path,
    kernel: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before it has spoilt a row: a class is rehearsed once, and others would be told its answer."""
    with running(tmp_path, workers=1, lack=lack) as (address, _):
        wait_for(address, workers=1)
        out = tmp_path / "rows.jsonl"
        where = f"dask://{address}"
        words = ["--hosts", str(fleet), "--kernel", kernel, "--on", where, "--out", str(out)]
        assert main(["sweep", *words]) == 2
    said_out, err = capsys.readouterr()
    assert said_out == ""
    assert re.fullmatch(rf"tightrope: --on {where}: {said}\n", err), err
    assert out.read_text().count("\n") == 1  # what was asked, and no row


def test_a_kernel_that_came_to_a_worker_as_another_is_told(kernel: str) -> None:
    """Each is sent the bytes, and looks at their digest before it does anything."""
    cargo = Cargo(news=(parcel(kernel),)).with_data()
    here = Worker("tcp://10.0.0.7:4711")
    sound, other = (
        Carried(cargo),
        Carried(replace(cargo, news=(replace(cargo.news[0], data=b"x"),))),
    )
    for each in (sound, other):
        each.setup(here)  # type: ignore[arg-type]
    says = f"worker {here.address}: {kernel}: is not the file that it was when the sweep began"
    assert (sound.trouble, other.trouble) == ("", says)


@dataclass(frozen=True)
class Worker:
    """All that is asked of Dask's."""

    address: str
