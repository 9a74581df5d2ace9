"""What may be wrong with a guest's sockets is one line and exit status 2, and nothing is left hanging."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tightrope.cli import main
from tightrope.errors import MachineError
from tightrope.machine import wire
from tightrope.machine.attached import guest as attached_guest
from tightrope.machine.attached import sockets

GREETING = (
    b'{"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}, "capabilities": []}}\r\n'
)


class Talker:
    """A socket that says something to whoever comes, and then what `answer` makes of each piece."""

    def __init__(self, path: Path, hello: bytes, answer: bytes = b"") -> None:
        self.path, self.heard = str(path), b""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self.path)
        self._socket.listen()
        self._hello, self._answer = hello, answer
        threading.Thread(target=self._talk, daemon=True).start()

    def _talk(self) -> None:
        with contextlib.suppress(OSError), self._socket.accept()[0] as there:
            there.sendall(self._hello)
            while data := there.recv(4096):
                self.heard += data
                if self._answer:
                    there.sendall(self._answer)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attached_guest, "GREET_SECONDS", 0.4)
    monkeypatch.setattr(attached_guest, "ANSWER_SECONDS", 0.4)


@pytest.fixture
def qmp(tmp_path: Path) -> Iterator[Talker]:
    made = Talker(tmp_path / "qmp", GREETING, b'{"return": {}, "id": 1}\r\n')
    yield made
    made.close()


def line(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["watch", *words]) == 2
    (said,) = [e for e in capsys.readouterr().err.splitlines() if e.startswith("tightrope: ")]
    return said


def test_no_socket_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = line(capsys, "--qmp", str(tmp_path / "none"), "--gdb", ":1")
    assert "none: QMP: cannot be connected to: No such file" in said


def test_a_socket_that_is_no_qmp(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    talker = Talker(tmp_path / "ssh", b"SSH-2.0-OpenSSH_9.2\r\n")
    assert "is not a QMP socket" in line(capsys, "--qmp", talker.path, "--gdb", ":1")
    talker.close()


def test_a_socket_that_says_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    talker = Talker(tmp_path / "mute", b"")
    said = line(capsys, "--qmp", talker.path, "--gdb", ":1")
    assert "says nothing: it is not a QMP socket, or another client is on it" in said
    talker.close()


def test_a_stub_that_another_debugger_is_on(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, qmp: Talker
) -> None:
    talker = Talker(tmp_path / "gdb", b"")
    said = line(capsys, "--qmp", qmp.path, "--gdb", talker.path)
    assert "another debugger is on it" in said
    talker.close()


@pytest.fixture
def started(tmp_path: Path) -> Iterator[tuple[str, str, subprocess.Popen[bytes]]]:
    """QMP and gdb of a real QEMU whose machine has not begun, and the process."""
    qmp, gdb = str(tmp_path / "q"), str(tmp_path / "g")
    words = ["qemu-system-x86_64", "-S", "-nodefaults", "-display", "none", "-accel", "tcg"]
    for option, path in (("-qmp", qmp), ("-gdb", gdb)):
        words += [option, f"unix:{path},server=on,wait=off"]
    with subprocess.Popen(words) as process:
        limit = time.monotonic() + 120
        while not (Path(qmp).exists() and Path(gdb).exists()):
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.05)
        yield qmp, gdb, process
        process.kill()


@pytest.fixture
def standing(started: tuple[str, str, subprocess.Popen[bytes]]) -> tuple[str, str]:
    """Its two sockets."""
    return started[:2]


def test_a_guest_that_is_gone_while_it_is_stopped_has_ended(
    started: tuple[str, str, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attached_guest, "ANSWER_SECONDS", 60.0)
    monkeypatch.setattr(attached_guest, "GREET_SECONDS", 60.0)
    qmp, gdb, process = started
    with attached_guest.Attached(qmp, gdb) as guest:
        assert guest.go(seconds=0.05) is False
        assert guest.ended() is None
        process.kill()
        process.wait()
        with pytest.raises(MachineError, match="has ended"):
            guest.stop()
        assert guest.ended() == attached_guest.GONE


def test_a_real_stub_that_another_debugger_is_on_is_left_to_it(
    capsys: pytest.CaptureFixture[str], standing: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attached_guest, "ANSWER_SECONDS", 60.0)
    monkeypatch.setattr(attached_guest, "GREET_SECONDS", 60.0)
    qmp, gdb = standing
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(gdb)
        other.settimeout(60)
        other.sendall(wire.packet(b"?"))
        assert other.recv(1) == b"+"
        said = line(capsys, "--qmp", qmp, "--gdb", gdb)
        assert said == f"tightrope: {gdb}: --gdb: another debugger is on it"
        # It has its answers still.
        while b"thread:" not in other.recv(64):
            pass
    with attached_guest.Attached(qmp, gdb) as free:
        assert free.raw()["rip"] == 0xFFF0


def test_a_stub_that_is_none_is_said_and_the_guest_goes_on(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, qmp: Talker
) -> None:
    talker = Talker(tmp_path / "gdb", b"HTTP/1.1 400\r\n")
    assert "is not a gdb stub of QEMU's" in line(capsys, "--qmp", qmp.path, "--gdb", talker.path)
    assert b'"cont"' in qmp.heard, "whatever stands is let go"
    talker.close()


def test_a_stub_of_another_machine(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, qmp: Talker
) -> None:
    talker = Talker(tmp_path / "gdb", b"", b"+" + wire.packet(b"l<target></target>"))
    said = line(capsys, "--qmp", qmp.path, "--gdb", talker.path)
    assert "not that of an x86_64 machine" in said
    talker.close()


@pytest.mark.parametrize(
    ("said", "address", "same"),
    [
        ("disconnected:tcp:0.0.0.0:1234,server=on", ":1234", True),
        ("tcp:127.0.0.1:1234,server=on <-> 127.0.0.1:1235", "localhost:1234", True),
        ("tcp:127.0.0.1:1234,server=on <-> 127.0.0.1:1235", ":1235", False),
        ("disconnected:tcp:[::]:1234,server=on", "tcp:[::1]:1234", True),
        ("unix:/run/gdb,server=on", "/run/../run/gdb", True),
        ("disconnected:unix:/run/gdb,server=on", "/run/qmp", False),
        ("unix:/run/1234,server=on", ":1234", False),
        ("tcp:127.0.0.1:1234,server=on", "/run/1234", False),
        ("null", "null", False),
    ],
)
def test_a_socket_is_known_by_qemus_words_for_it(said: str, address: str, same: bool) -> None:
    assert sockets.names(said, address) is same
