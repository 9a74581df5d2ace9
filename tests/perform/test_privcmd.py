"""The port where there is no Xen: its memory is locked whole pages, and its absence is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tightrope.abi import xen as abi
from tightrope.errors import MissingPart
from tightrope.memory import PAGE_SIZE
from tightrope.perform.privcmd import HypercallFailed, Privcmd, Resident


def locked() -> int:
    """KiB of this process that Linux keeps in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(each.split()[1]) for each in lines if each.startswith("VmLck:"))


def test_memory_for_a_hypercall_is_whole_pages_zeroed_and_locked() -> None:
    before = locked()
    memory = Resident(None, PAGE_SIZE + 1)
    assert memory.address % PAGE_SIZE == 0
    assert bytes(memory.view) == bytes(2 * PAGE_SIZE)
    assert locked() - before == 2 * PAGE_SIZE >> 10


def test_a_machine_without_the_device_is_a_missing_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abi, "PRIVCMD", ("/nowhere/privcmd",))
    with pytest.raises(MissingPart, match=r"load xen-privcmd, be root.*/nowhere/privcmd"):
        Privcmd()


def test_a_hypercall_is_the_ioctl_with_six_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abi, "PRIVCMD", ("/dev/null",))
    seen: list[tuple[int, bytes]] = []

    def ioctl(_descriptor: int, command: int, request: bytearray, _change: bool) -> int:
        seen.append((command, bytes(request)))
        return 7

    monkeypatch.setattr("tightrope.perform.privcmd.fcntl.ioctl", ioctl)
    with Privcmd() as port:
        assert port.call(37, 6, 0x1000) == 7
    words = (37, 6, 0x1000, 0, 0, 0)
    assert seen == [(0x305000, b"".join(each.to_bytes(8, "little") for each in words))]


def test_what_linux_or_xen_refuses_keeps_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abi, "PRIVCMD", ("/dev/null",))
    with Privcmd() as port, pytest.raises(HypercallFailed, match="ENOTTY") as caught:
        port.call(37, 6, 0)
    assert caught.value.number == 25
