"""A recorded command cannot have init, or anybody else, change the machine; what listens is let through.

Rules: nothing here asks the real init: sockets are the test's own, and the signal is 0, which kill(2) sends
to nobody.
"""

from __future__ import annotations

import errno
import io
import os
import socket
import sys
import tempfile
from pathlib import Path

import pytest

from tests.record.test_record import CALL
from tightrope.deeds.record import Recorded, record

LOAD = "load(0x200000, b'kernel', 0x1000)\n"


def ran(script: str) -> tuple[str, Recorded]:
    """What a script printed, and what was counted."""
    with tempfile.TemporaryFile() as said:
        done = record([sys.executable, "-c", CALL + LOAD + script], io.BytesIO(), said=said)
        said.seek(0)
        return said.read().decode().strip(), done


@pytest.mark.parametrize("name", ["a path", "no path"])
def test_no_socket_of_another_process_is_reached(name: str, tmp_path: Path) -> None:
    address = str(tmp_path / "bus") if name == "a path" else f"\0tightrope-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        listening.settimeout(0.2)
        said, done = ran(
            f"import socket\ntry: socket.socket(socket.AF_UNIX).connect({address!r})\n"
            "except OSError as err: print(err.errno)"
        )
        assert (said, done.asked) == (str(errno.EACCES), 1)
        with pytest.raises(TimeoutError):
            listening.accept()


def test_a_connection_by_the_internet_is_the_command_s_own_matter() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        said, done = ran(
            f"import socket\nsocket.create_connection(('127.0.0.1', {port})).close(); print('there')"
        )
    assert (said, done.asked) == ("there", 0)


@pytest.mark.parametrize("number", [62, 200])
def test_init_gets_no_signal(number: int) -> None:
    said, done = ran(f"print(call({number}, 1, 0))")
    assert (said, done.asked) == (str(-errno.EPERM), 1)


def test_everybody_gets_no_signal_and_itself_gets_one() -> None:
    said, done = ran("print(call(62, -1, 0), call(62, os.getpid(), 0))")
    assert (said, done.asked) == (f"{-errno.EPERM} 0", 1)


def test_init_s_pipe_is_not_opened() -> None:
    said, done = ran(
        "try: open('/run/initctl', 'wb')\nexcept OSError as err: print(err.errno)\n"
        "open('/dev/null', 'wb').close()"
    )
    assert (said, done.asked) == (str(errno.EACCES), 1)


def test_what_is_no_address_is_the_kernel_s_to_refuse() -> None:
    said, done = ran("print(call(42, -1, 1, 110), call(257, -100, 1, 0))")
    assert (said, done.asked) == (f"{-errno.EBADF} {-errno.EFAULT}", 0)


@pytest.mark.skipif(
    os.geteuid() != 0, reason="hardware: only root has the right that is taken away"
)
def test_the_right_to_take_networks_down_is_gone() -> None:
    said, _ = ran(
        "status = open('/proc/self/status').read()\n"
        "rights = int(status.split('CapEff:')[1].split()[0], 16)\n"
        "print([bit for bit in (12, 16, 22) if rights >> bit & 1])"
    )
    assert said == "[]"
