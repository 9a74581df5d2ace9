"""`tightrope` as a process of its own: exit status, streams that close, signals, missing parts."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.makers import cpio

TIGHTROPE = (sys.executable, "-m", "tightrope")
QUIET = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}


def run(
    *arguments: str | Path, cwd: Path | None = None, command: tuple[str, ...] = TIGHTROPE
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, env=QUIET
    )


# -------------------------------------------------------------------------------- real kernels


@pytest.fixture(scope="module")
def initrd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 MB, each page different."""
    path = tmp_path_factory.mktemp("initrd") / "initrd.img"
    path.write_bytes(cpio.initrd(30_000_000))
    return path


@pytest.mark.parametrize("flavour", ["debian_amd64", "debian_cloud"])
@pytest.mark.parametrize("scatter", [(), ("--scatter", "7")], ids=["in-order", "scattered"])
def test_debians_kernels_hold_with_an_initrd_of_30_mb(
    request: pytest.FixtureRequest,
    initrd: Path,
    tmp_path: Path,
    flavour: str,
    scatter: tuple[str, ...],
) -> None:
    kernel = request.getfixturevalue(flavour)
    done = run("rehearse", kernel, "--initrd", initrd, "--json", *scatter, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["verdict"] == "holds"
    (placed,) = [each for each in document["plan"]["segments"] if each["name"] == "initrd"]
    assert placed["data"] == 30_000_000
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_the_new_kernel_speaks_is_one_line_and_status_130(
    debian_amd64: Path, tmp_path: Path
) -> None:
    walking = subprocess.Popen(
        [*TIGHTROPE, "rehearse", debian_amd64, "--until", "console"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    assert walking.stderr is not None
    # The line that says what was appended comes before everything that takes time.
    assert "earlyprintk" in walking.stderr.readline()
    with pytest.raises(subprocess.TimeoutExpired):
        walking.wait(timeout=2.5)
    walking.send_signal(signal.SIGINT)
    out, err = walking.communicate(timeout=240)
    assert (walking.returncode, out) == (130, "")
    assert err == "tightrope: interrupted; nothing was changed\n"


# ------------------------------------------------------------------------------ streams that close


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("host", "example"), ("rules",), ("rehearse", "--shipped")],
    ids=lambda each: each[0],
)
def test_a_reader_that_has_gone_away_is_no_reason_to_complain(arguments: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [*TIGHTROPE, *arguments], stdout=writing, stderr=subprocess.PIPE, text=True
        )
    finally:
        os.close(writing)
    assert done.stderr == ""


def test_head_takes_one_line_and_nothing_is_said_on_stderr() -> None:
    done = subprocess.run(
        ["sh", "-c", f"'{sys.executable}' -m tightrope rules | head -1"],
        capture_output=True,
        text=True,
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_a_full_disk_is_one_line_and_status_2() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*TIGHTROPE, "host", "example"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (2, "tightrope: No space left on device\n")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_do_not_change_the_verdict(closed: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f"'{sys.executable}' -m tightrope rehearse --shipped {closed}"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_terminal_that_cannot_show_a_name_gets_it_escaped(tmp_path: Path) -> None:
    from tests.makers.bzimage import bzimage

    kernel = tmp_path / "kärnel"
    kernel.write_bytes(bzimage())
    done = subprocess.run(
        [*TIGHTROPE, "plan", kernel],
        capture_output=True,
        text=True,
        env=QUIET | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert (done.returncode, done.stderr) == (0, "")


# -------------------------------------------------------------------------------------- colour


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """What `tightrope` writes to stdout when that is a terminal."""
    ours, theirs = pty.openpty()
    walking = subprocess.Popen(
        [*TIGHTROPE, *arguments],
        stdout=theirs,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=QUIET | {"TERM": "xterm"} | environment,
    )
    os.close(theirs)
    out = b""
    try:
        while more := os.read(ours, 65536):
            out += more
    except OSError:  # how Linux says that the last writer has closed a terminal
        pass
    finally:
        os.close(ours)
    walking.wait()
    return out.decode()


def test_a_terminal_gets_colour_and_no_color_takes_it_away() -> None:
    plain = on_a_terminal("rehearse", "--shipped", NO_COLOR="1")
    coloured = on_a_terminal("rehearse", "--shipped")
    assert "It holds" in plain
    assert "\x1b" not in plain
    assert "\x1b[" in coloured


# -------------------------------------------------------------------------------- missing parts


def without(module: str) -> tuple[str, ...]:
    """A `tightrope` on whose machine a package cannot be imported."""
    return (
        sys.executable,
        "-c",
        f"import sys; sys.modules[{module!r}] = None\n"
        "from tightrope.cli import main; sys.exit(main())",
    )


@pytest.mark.parametrize(("module", "extra"), [("unicorn", "[rehearse]"), ("iced_x86", "[")])
def test_a_rehearsal_without_its_packages_says_which_extra_has_them(
    module: str, extra: str
) -> None:
    done = run("rehearse", "--shipped", command=without(module))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tightrope: ")
    assert done.stderr.count("\n") == 1
    assert f"tightrope{extra}" in done.stderr
    assert module in done.stderr.lower()


@pytest.mark.parametrize("arguments", [("plan", "--shipped"), ("host", "example"), ("rules",)])
def test_what_needs_no_emulator_runs_without_one(arguments: tuple[str, ...]) -> None:
    done = run(*arguments, command=without("unicorn"))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_rehearsal_in_a_pipe_needs_no_progress_bar() -> None:
    assert run("rehearse", "--shipped", command=without("tqdm")).returncode == 0


# ------------------------------------------------------------------------------------------ its end


def ended(last_words: str) -> subprocess.CompletedProcess[str]:
    """`tightrope rules`, in a process that has more to do at its end."""
    program = f"{last_words}\nfrom tightrope.cli import program\nsys.exit(program())"
    command = [sys.executable, "-c", f"import atexit, sys, threading, time\n{program}"]
    # What is printed at the very end stays in a buffer then, unless somebody writes it.
    buffered = {key: value for key, value in QUIET.items() if key != "PYTHONUNBUFFERED"}
    return subprocess.run(
        [*command, "rules", "--json"], capture_output=True, text=True, env=buffered
    )


def test_a_process_prints_all_and_does_what_was_promised_for_its_end() -> None:
    done = ended("atexit.register(print, 'at the end')")
    document, last = done.stdout[: done.stdout.rindex("}") + 1], done.stdout.splitlines()[-1]
    assert json.loads(document)["schema"].startswith("tightrope/rules/")
    assert (done.returncode, last) == (0, "at the end")


def test_a_process_waits_for_work_that_is_no_daemon_and_for_no_other() -> None:
    work = "lambda: (time.sleep(2), print('done'), sys.stdout.flush())"
    for daemon in (False, True):
        done = ended(f"threading.Thread(target={work}, daemon={daemon}).start()")
        assert done.returncode == 0
        assert done.stdout.endswith("done\n") != daemon


def test_a_process_that_is_profiled_leaves_time_to_say_what_was_seen() -> None:
    profiled = (sys.executable, "-m", "cProfile", "-m", "tightrope")
    done = run("rules", "interrupts-off", command=profiled)
    assert done.returncode == 0
    assert "function calls" in done.stdout
