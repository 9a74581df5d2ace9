"""How a command ends, as a process of its own: readers that go away, signals, mistakes of ours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, debian_kernel
from tightrope import host
from tightrope.cli import signals

TIGHTROPE = (sys.executable, "-m", "tightrope")
TICKS = os.sysconf("SC_CLK_TCK")


def program(body: str) -> tuple[str, ...]:
    """A `tightrope` with one more command, `wait`, that does `body`; `import` what it needs there."""
    indented = "\n".join(f"    {line}" for line in body.splitlines())
    return (
        sys.executable,
        "-c",
        "import sys\n"
        "from tightrope.cli import main\n"
        "from tightrope.cli.command import command\n"
        "from tightrope.cli.arguments import as_json\n"
        "@command('wait', help='wait', takes=(as_json,), examples=())\n"
        f"def wait(options):\n{indented}\n    return 0\n"
        "sys.exit(main())",
    )


def run(command: tuple[str, ...], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, *arguments], capture_output=True, text=True)


# --------------------------------------------------------------------------- readers that go away


@pytest.mark.parametrize("lines", [1, 3, 200_000])
@pytest.mark.parametrize("status", [0, 1])
def test_the_status_is_the_commands_own_whoever_reads_how_much(lines: int, status: int) -> None:
    body = f"for n in range({lines}): print('line', n)\nreturn {status}"
    reading, writing = os.pipe()
    shown = subprocess.Popen([*program(body), "wait"], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert os.read(reading, 5) == b"line "
    os.close(reading)
    assert shown.communicate(timeout=240)[1] == b""
    assert shown.returncode == status


def test_a_full_disk_is_our_output_and_another_file_is_named() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*TIGHTROPE, "rules"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "tightrope: No space left on device\n")
    done = run(program("open('/no/such/file')"), "wait")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "tightrope: /no/such/file: No such file or directory\n"


@pytest.mark.parametrize("errors", ["&-", "/dev/full"])
@pytest.mark.parametrize(("words", "status"), [("rules", 0), ("rehearse /no/such/file", 2)])
def test_the_status_is_the_same_where_nothing_can_be_said_of_it(
    errors: str, words: str, status: int
) -> None:
    line = f"'{sys.executable}' -m tightrope {words} 2>{errors}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (status, "")
    assert bool(done.stdout) == (status == 0)


def test_an_answer_is_given_whether_or_not_anybody_reads_the_notes_before_it() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    noted = program("print('a note', file=sys.stderr)\nprint('an answer')\nreturn 1")
    with Path("/dev/full").open("wb") as full:
        for errors in (writing, full):
            done = subprocess.run([*noted, "wait"], stdout=subprocess.PIPE, stderr=errors)
            assert (done.returncode, done.stdout) == (1, b"an answer\n")
    os.close(writing)


# ------------------------------------------------------------------------------- mistakes of ours


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise MemoryError", "out of memory"),
        ("return [][1]", "IndexError"),
        ("raise RecursionError('too deep')", "too deep"),
        ("raise ValueError('a\\nb')", "a b"),
        ("assert False", "AssertionError"),
    ],
)
def test_whatever_goes_wrong_is_one_line_and_status_2(body: str, words: str) -> None:
    done = run(program(body), "wait")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tightrope: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


def test_a_mistake_of_ours_shows_where_it_was_when_it_is_asked_to() -> None:
    done = subprocess.run(
        [*program("raise ValueError('here')"), "wait"],
        capture_output=True,
        text=True,
        env=os.environ | {"TIGHTROPE_TRACEBACK": "1"},
    )
    assert done.returncode == 2
    assert "Traceback" in done.stderr


# ---------------------------------------------------------------------------------------- signals

BUSY = {
    "python": "while True: pass",
    "sleep": "import time; time.sleep(600)",
    "a lost exception": (
        "import ctypes\n"
        "def called(_a, _b):\n"
        "    import time; time.sleep(0.05)\n"
        "    return 0\n"
        "kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)\n"
        "each = (ctypes.c_int * 1024)()\n"
        "while True: ctypes.CDLL(None).qsort(each, 1024, 4, kind(called))"
    ),
    "a finalizer": (
        "import time\nclass Slow:\n    def __del__(self): time.sleep(600)\nSlow()\ntime.sleep(600)"
    ),
    "a library": "import ctypes; ctypes.CDLL(None).sleep(600)",
    "z3": (
        "import z3\n"
        "import tightrope.prove.isa.terms\n"
        "x, y = z3.BitVecs('x y', 64)\n"
        "solver = z3.Solver()\n"
        "solver.add(x * y == 0xdeadbeefcafebabf * 3, x > 1, y > 1, x * x * y != 7, x & 1 == 1)\n"
        "print(solver.check())"
    ),
}


@pytest.mark.parametrize("what", BUSY)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_at_once_wherever_it_is(what: str, number: signal.Signals) -> None:
    if what == "z3":
        pytest.importorskip("z3")
    busy = subprocess.Popen(
        [*program("print('begun', flush=True)\n" + BUSY[what]), "wait"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert busy.stdout is not None
    assert busy.stdout.readline() == "begun\n"
    time.sleep(0.2)
    busy.send_signal(number)
    started = time.monotonic()
    out, err = busy.communicate(timeout=240)
    assert time.monotonic() - started < 120
    assert (busy.returncode, out) == (128 + number, "")
    assert err.startswith("tightrope: ")
    assert err.endswith("nothing was changed\n")
    assert err.count("\n") == 1


BETWEEN = {
    "before the command begins": (
        "start = threading.Thread.start\n"
        "def started(thread):\n"
        "    start(thread)\n"
        "    if thread.name == 'signals': os.kill(os.getpid(), signal.SIGTERM)\n"
        "threading.Thread.start = started"
    ),
    "while its end is told": (
        "cli._message = lambda error: signal.raise_signal(signal.SIGTERM) or 'no such file'"
    ),
}


@pytest.mark.parametrize("when", BETWEEN)
def test_a_signal_beside_the_command_is_no_error_of_ours(when: str) -> None:
    body = (
        "import os, signal, sys, threading\n"
        "from tightrope import cli\n"
        f"{BETWEEN[when]}\n"
        "sys.exit(cli.program())"
    )
    done = run((sys.executable, "-c", body), "rehearse", "/no/such/file")
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "")
    assert done.stderr.splitlines()[-1] == "tightrope: terminated; nothing was changed"
    assert "Traceback" not in done.stderr


def test_ctrl_c_behind_the_last_word_shows_nothing_of_ours() -> None:
    body = (
        "import signal, sys\n"
        "from tightrope import cli\n"
        "cli.main = lambda: signal.raise_signal(signal.SIGINT)\n"
        "sys.exit(cli.program())"
    )
    done = run((sys.executable, "-c", body), "rules")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_signal_ends_a_command_that_can_say_nothing() -> None:
    body = "print('begun', flush=True)\n" + BUSY["a lost exception"]
    with Path("/dev/full").open("wb") as full:
        busy = subprocess.Popen([*program(body), "wait"], stdout=subprocess.PIPE, stderr=full)
    assert busy.stdout is not None
    assert busy.stdout.readline() == b"begun\n"
    busy.send_signal(signal.SIGTERM)
    assert busy.communicate(timeout=240)[0] == b""
    assert busy.returncode == 128 + signal.SIGTERM


def in_session(session: int) -> list[int]:
    """The processes of a session that are no zombies."""
    return [number for number, fields in stats(session) if fields[0] != "Z"]


def stats(session: int) -> Iterator[tuple[int, list[str]]]:
    """Each process of a session, and what its `stat` says behind its name (proc(5))."""
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            with suppress(OSError):
                fields = (each / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session:
                    yield int(each.name), fields


def at_work(long: subprocess.Popen[str]) -> None:
    """Wait until a session has used a second and a half of CPU: it is past its imports."""
    while sum(int(row[11]) + int(row[12]) for _, row in stats(long.pid)) < 1.5 * TICKS:
        assert long.poll() is None
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("arguments", [["agree", "--count", "1000000"], ["matrix", "KERNEL"]])
def test_a_signal_ends_a_long_comparison_and_leaves_nobody_behind(
    arguments: list[str], number: signal.Signals, tmp_path: Path
) -> None:
    kernel = str(debian_kernel("amd64-6.12"))
    long = subprocess.Popen(
        [*TIGHTROPE, *(kernel if each == "KERNEL" else each for each in arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    at_work(long)
    long.send_signal(number)
    _, err = long.communicate(timeout=240)
    assert long.returncode == 128 + number
    assert err.splitlines()[-1].endswith("nothing was changed")
    assert in_session(long.pid) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_of_the_terminal_finds_workers_that_leave_it_to_us(
    number: signal.Signals, tmp_path: Path
) -> None:
    """It comes as the first of them begins, when nobody there has said what to do with it."""
    (tmp_path / "a.toml").write_text(host.example())
    kernel = debian_kernel("cloud-amd64")
    many = subprocess.Popen(
        [*TIGHTROPE, "sweep", "--hosts", tmp_path, "--kernel", kernel, "--workers", "4"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while len(in_session(many.pid)) < 3:  # it, who minds the semaphores, and the first worker
        assert many.poll() is None
    time.sleep(0.1)  # which it takes at least to get to anything of ours
    os.killpg(many.pid, number)
    out, err = many.communicate(timeout=240)
    assert (many.returncode, out) == (128 + number, "")
    # Not alone: on a loaded machine we end before the workers, and Python tells what it tidies up.
    assert f"tightrope: {signals.says(number)}" in err.splitlines()
    assert "Traceback" not in err


def test_what_a_signal_interrupted_is_not_reported_as_done() -> None:
    body = (
        "import os, signal\n"
        "try: signal.raise_signal(signal.SIGINT)  # this very thread is interrupted\n"
        "except KeyboardInterrupt: pass\n"
        "print('It holds')"
    )
    done = run(program(body), "wait")
    assert (done.returncode, done.stdout) == (130, "")


def test_things_are_closed_before_a_signal_ends_the_command(tmp_path: Path) -> None:
    body = (
        "import os, signal, tempfile\n"
        f"with tempfile.TemporaryDirectory(dir={str(tmp_path)!r}):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    while True: pass"
    )
    assert run(program(body), "wait").returncode == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_a_signal_is_told_once_where_telling_takes_as_long_as_is_waited() -> None:
    body = (
        "import os, signal, sys, time\n"
        "from tightrope.cli import signals\n"
        "signals.GRACE = 2.0\n"
        "class Slow:\n"
        "    def write(self, text):\n"
        "        os.write(2, text.encode())\n"
        "        time.sleep(1.3)\n"
        "    def flush(self): pass\n"
        "sys.stderr = Slow()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "time.sleep(60)"
    )
    done = run(program(body), "wait")
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr == "tightrope: terminated; nothing was changed\n"


def test_a_signal_that_is_ignored_stays_so() -> None:
    """A command under nohup goes on when its terminal hangs up."""
    body = "import os, signal\nos.kill(os.getpid(), signal.SIGHUP)\nprint('still here')"
    command = (
        *program(body)[:2],
        "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + program(body)[2],
    )
    done = run(command, "wait")
    assert (done.returncode, done.stdout) == (0, "still here\n")


def test_a_run_of_these_tests_that_ignores_signals_starts_commands_that_do_not() -> None:
    """In the background of a shell, or under nohup: SIGINT and SIGHUP are ignored, and inherited."""
    words = "import signal; print(*(signal.getsignal(n) is signal.SIG_IGN for n in (1, 2)))"
    body = (
        "import signal, subprocess, sys\n"
        "for each in (signal.SIGINT, signal.SIGHUP): signal.signal(each, signal.SIG_IGN)\n"
        "def told(): return subprocess.run([sys.executable, '-c', sys.argv[1]],"
        " capture_output=True, text=True).stdout\n"
        "before = told()\n"
        "import tests.conftest\n"
        "for each in (signal.SIGINT, signal.SIGHUP): signal.raise_signal(each)\n"
        "print(before + told(), end='')"
    )
    done = subprocess.run(
        [sys.executable, "-c", body, words], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert (done.stdout, done.stderr) == ("True True\nFalse False\n", "")
