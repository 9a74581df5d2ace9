"""A watch that a signal ends leaves a guest without breakpoints and running, whenever the signal comes.

The guest is a stub of a few lines that keeps what QEMU's would: breakpoints, whether the CPU runs, and that
whatever is said to a running CPU but ^C is lost.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tightrope.errors import MachineError
from tightrope.machine.attached import Attached, sockets
from tightrope.machine.attached import guest as attached_guest

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}, "capabilities": []}}
TARGET = b'l<target><xi:include href="r.xml"/></target>'
NAMED = b"".join(b'<reg name="%s" bitsize="64"/>' % name for name in (b"rip", b"cr3", b"efer"))
PLACE = 0xFFFF_FFFF_8100_0000


class Stub:
    """QMP and gdb of a guest, each a socket with one client at a time."""

    def __init__(self, folder: Path) -> None:
        self.breaks: set[int] = set()
        self.running = True
        self.lost: list[bytes] = []
        self._sockets = []
        self._threads = []
        for name, talk in (("qmp", self._qmp), ("gdb", self._gdb)):
            made = socket.socket(socket.AF_UNIX)
            made.bind(str(folder / name))
            made.listen()
            self._sockets.append(made)
            self._threads.append(
                threading.Thread(target=self._serve, args=(made, talk), daemon=True)
            )
        for each in self._threads:
            each.start()

    def _serve(self, made: socket.socket, talk: Callable[[socket.socket], None]) -> None:
        with contextlib.suppress(OSError), made.accept()[0] as there:
            talk(there)

    def _qmp(self, there: socket.socket) -> None:
        with there.makefile("rw") as lines:
            print(json.dumps(GREETING), file=lines, flush=True)
            for line in lines:
                asked = json.loads(line)
                self.running |= asked["execute"] == "cont"
                print(json.dumps({"return": {}, "id": asked["id"]}), file=lines, flush=True)

    def _gdb(self, there: socket.socket) -> None:
        self.running = False  # attaching stops it
        while data := there.recv(4096):
            for found in re.finditer(rb"\x03|\$([^#]*)#..", data):
                if found[0] == b"\x03":
                    if self.running:
                        self.running = False
                        self._say(there, b"T02thread:01;")
                elif self.running:
                    self.lost.append(found[0])
                    self.running = False
                else:
                    self._say(there, self._answer(found[1]), silent=found[1] == b"c")

    def _answer(self, asked: bytes) -> bytes:
        place = re.match(rb"([zZ])1,([0-9a-f]+),1", asked)
        if place:
            change = self.breaks.add if place[1] == b"Z" else self.breaks.discard
            change(int(place[2], 16))
        self.running = asked in (b"c", b"D")
        if asked.startswith(b"qXfer:features:read:r.xml"):
            return b"l<feature>%s</feature>" % NAMED
        return TARGET if asked.startswith(b"qXfer") else b"T05" if asked == b"?" else b"OK"

    def _say(self, there: socket.socket, answer: bytes, *, silent: bool = False) -> None:
        there.sendall(b"+" if silent else b"+$%s#%02x" % (answer, sum(answer) & 0xFF))

    def close(self) -> None:
        """Once its clients have left."""
        for each in self._sockets:
            each.shutdown(socket.SHUT_RDWR)  # who has waited for nobody
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()
        for each in self._sockets:
            each.close()


@contextlib.contextmanager
def interrupted(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> Iterator[list[int]]:
    """Ctrl-C comes right behind the `number`th send or receive of a connection."""
    calls, before = [0], getattr(sockets.Connection, name)

    def counted(self: sockets.Connection, given: bytes | float) -> object:
        result = before(self, given)
        calls[0] += 1
        if calls[0] == number:
            signal.raise_signal(signal.SIGINT)
        return result

    with monkeypatch.context() as patched:
        patched.setattr(sockets.Connection, name, counted)
        yield calls


def watched(folder: Path) -> None:
    """Attach, wait at a place, give up."""
    with Attached(str(folder / "qmp"), str(folder / "gdb")) as guest:
        guest.break_at(PLACE)
        guest.go(seconds=0.05)
        guest.stop()
        guest.break_at(PLACE + 16)
        guest.unbreak(PLACE)
        guest.go(seconds=0.05)


@pytest.mark.parametrize("name", ["send", "receive"])
def test_ctrl_c_behind_any_word_leaves_it_running_without_breakpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(attached_guest, "TURN", 0.01)
    number, over = 0, False
    while not over:
        number += 1
        folder = tmp_path / str(number)
        folder.mkdir()
        stub = Stub(folder)
        with interrupted(monkeypatch, name, number) as calls:
            try:
                watched(folder)
                over = calls[0] < number
                assert over, "the signal was lost"
            except KeyboardInterrupt:
                pass
            stub.close()
        assert (stub.breaks, stub.running, stub.lost) == (set(), True, []), number
    assert number > 20


def test_a_breakpoint_that_is_refused_is_none(tmp_path: Path) -> None:
    stub = Stub(tmp_path)
    with (
        Attached(str(tmp_path / "qmp"), str(tmp_path / "gdb")) as guest,
        pytest.MonkeyPatch.context() as patched,
    ):
        patched.setattr(stub, "_answer", lambda _: b"E22")
        with pytest.raises(MachineError, match="no breakpoint at"):
            guest.break_at(PLACE)
    stub.close()
    assert stub.running


class Farewell(Stub):
    """A QEMU that ends while its guest runs, as one does that is started with -no-reboot."""

    def _say(self, there: socket.socket, answer: bytes, *, silent: bool = False) -> None:
        super()._say(there, b"W00" if silent else answer)


def test_a_stub_that_takes_its_leave_before_qmp_is_heard_has_ended(tmp_path: Path) -> None:
    stub = Farewell(tmp_path)
    with Attached(str(tmp_path / "qmp"), str(tmp_path / "gdb")) as guest:
        assert guest.go(seconds=60) is False
        assert guest.ended() == attached_guest.GONE
    stub.close()
