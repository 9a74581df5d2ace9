"""What is seen of a guest on its way without a guest: whether it stands still, and its console's first line."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rehearse.runs import sound
from tightrope.deeds.watch.console import Console
from tightrope.deeds.watch.follow import AT_ONCE, Followed, Place, follow, places
from tightrope.deeds.watch.stuck import stuck
from tightrope.errors import BadInput, MachineError
from tightrope.machine.attached import Attached
from tightrope.model import Handover

PAGE = 0x1000
CODE = 3 * PAGE
IF = 1 << 9


class Memory:
    """A guest of four pages whose first 2 MiB are mapped to themselves: tables in pages 0 to 2."""

    def __init__(self, code: bytes, at: int, *, hlt: bool = False) -> None:
        self.hlt = hlt
        """The CPU has executed HLT."""
        self.data = bytearray(4 * PAGE)
        for table, entry in ((0, PAGE | 3), (PAGE, 2 * PAGE | 3), (2 * PAGE, 0x83)):
            self.data[table : table + 8] = entry.to_bytes(8, "little")
        self.data[CODE + at : CODE + at + len(code)] = code

    def read(self, phys: int, size: int) -> bytes | None:
        found = bytes(self.data[phys : phys + size])
        return found if len(found) == size else None

    def halted(self) -> bool:
        return self.hlt


def looked_at(code: bytes, rip: int, flags: int = 2, *, hlt: bool = False) -> str | None:
    """What is said of a CPU that stands `rip` bytes into the code."""
    registers = {"cr0": 0x8000_0011, "cr3": 0, "cr4": 0x20, "efer": 0x500}
    registers |= {"rip": CODE + 0x100 + rip, "eflags": flags}
    return stuck(cast("Attached", Memory(code, 0x100, hlt=hlt)), registers, 40)


@pytest.mark.parametrize(
    ("code", "rip", "said"),
    [
        (b"\xeb\xfe", 0, "goes in circles"),
        (b"\xe9\xfb\xff\xff\xff", 0, "goes in circles"),
        (b"\xf3\x90\xeb\xfc", 0, "goes in circles"),
        (b"\xf3\x90\xeb\xfc", 2, "goes in circles"),
        # What may go on: a loop that is left, a jump elsewhere, a halt that is still to come.
        (b"\x75\xfe", 0, None),
        (b"\xeb\xfd", 0, None),
        (b"\xf4\xeb\xfd", 0, None),
        # mov $0xf4, %al: the byte of HLT before rip is no HLT.
        (b"\xb0\xf4\xeb\xfb", 2, None),
    ],
)
def test_what_stands_still_is_told_from_what_may_go_on(
    code: bytes, rip: int, said: str | None
) -> None:
    assert looked_at(code, rip) == said


def test_a_cpu_that_has_halted_is_told() -> None:
    assert looked_at(b"\xf4\xeb\xfd", 1, hlt=True) == "has halted with interrupts off"


@pytest.mark.parametrize(
    ("code", "rip", "hlt"), [(b"\xeb\xfe", 0, False), (b"\xf4\xeb\xfd", 1, True)]
)
def test_an_interrupt_may_end_it_where_they_are_on(code: bytes, rip: int, hlt: bool) -> None:
    assert looked_at(code, rip, IF | 2, hlt=hlt) is None


def test_an_instruction_that_is_not_mapped_says_nothing() -> None:
    registers = {"cr0": 0x8000_0011, "cr3": 0, "cr4": 0x20, "efer": 0x500, "eflags": 2}
    guest = cast("Attached", Memory(b"\xeb\xfe", 0))
    assert stuck(guest, registers | {"rip": 1 << 40}, 40) is None


# ------------------------------------------------------------------------------- on its way


class Scripted:
    """A guest that stops where it is told to: a register file for each stop, None where it runs on."""

    def __init__(self, *stops: dict[str, int] | None, ended: str | None = None) -> None:
        self._stops = list(stops)
        self._ended = ended
        self._now: dict[str, int] = {}
        self.breaks: set[int] = set()
        self.most = 0
        self.memory = Memory(b"\xeb\xfe", 0x100)

    def break_at(self, virt: int) -> None:
        self.breaks.add(virt)
        self.most = max(self.most, len(self.breaks))

    def unbreak(self, virt: int) -> None:
        self.breaks.remove(virt)

    def go(self, *, seconds: float) -> bool:
        if not self._stops:
            return False
        stop = self._stops.pop(0)
        self._now = stop or LOST
        return stop is not None

    def stop(self) -> None:
        pass

    def raw(self) -> dict[str, int]:
        return self._now

    def read(self, phys: int, size: int) -> bytes | None:
        return self.memory.read(phys, size)

    def halted(self) -> bool:
        return False

    def ended(self) -> str | None:
        return None if self._stops else self._ended


LOST = {"cr0": 0x8000_0011, "cr3": 0, "cr4": 0x20, "efer": 0x500, "eflags": 2, "rip": CODE + 0x100}


def followed(guest: Scripted) -> Followed:
    return follow(cast("Attached", guest), built(), begun=0.5, seconds=60, said=lambda _: None)


@cache
def built() -> Handover:
    return sound().handover


def at(place: Place) -> dict[str, int]:
    return {**LOST, "rip": place.virt, "rbx": 0}


def stops() -> list[dict[str, int]]:
    return [at(each) for each in {each.virt: each for each in places(built())}.values()]


def test_a_guest_that_comes_to_its_last_place_has_not_ended_and_has_no_breakpoint_left() -> None:
    guest = Scripted(*stops())
    got = followed(guest)
    assert got.ended is None
    assert [each.rip for each in got.passed] == [each["rip"] for each in stops()]
    assert got.passed[-1].seconds >= 0.5
    assert guest.breaks == set()
    assert guest.most == min(AT_ONCE, len(stops())), "a CPU has no more, and KVM refuses the fifth"


def test_a_guest_that_goes_in_circles_is_told_at_once() -> None:
    got = followed(Scripted(stops()[0], None))
    assert len(got.passed) == 1
    assert got.ended == f"it goes in circles at {CODE + 0x100:#x}"


def test_a_reset_is_told_as_what_it_was() -> None:
    got = followed(Scripted(stops()[0], ended="RESET"))
    assert got.ended == "the machine was reset: a triple fault, where nobody asked for it"


class Ends(Scripted):
    """A guest whose QEMU ends while it is being stopped, as one with -no-reboot does by a reset."""

    def __init__(self, ended: str | None) -> None:
        super().__init__(stops()[0], None)
        self.became: str | None = None
        self.becomes = ended

    def stop(self) -> None:
        self.became = self.becomes
        raise MachineError("QEMU has closed its gdb socket, or has ended")

    def ended(self) -> str | None:
        return self.became


def test_a_guest_that_ends_just_before_it_is_looked_at_is_told_and_what_fails_is_not_hidden() -> (
    None
):
    got = followed(Ends("SHUTDOWN"))
    assert len(got.passed) == 1
    assert (got.ended or "").startswith("the machine was reset or shut down")
    with pytest.raises(MachineError, match="closed its gdb socket"):
        followed(Ends(None))


# ---------------------------------------------------------------------------------- the console


def test_the_first_line_is_the_first_that_ends_and_has_a_letter(tmp_path: Path) -> None:
    file = tmp_path / "console"
    file.write_bytes(b"the old kernel's\n")
    console = Console(str(file))
    with file.open("ab") as said:
        for text, line in ((b"\r\n  \r\n", None), (b"[    0.0", None), (b"00] Linux", None)):
            said.write(text)
            said.flush()
            assert console.line() == line
        said.write(b" version 7\r\nmore\n")
    assert console.line() == "[    0.000] Linux version 7"


def test_what_was_said_before_is_skipped(tmp_path: Path) -> None:
    file = tmp_path / "console"
    file.write_bytes(b"")
    console = Console(str(file))
    file.write_bytes(b"Decompressing Linux...\nBoot")
    console.skip()
    with file.open("ab") as said:
        said.write(b"\nLinux\n")
    assert console.line() == "Linux"


@given(st.lists(st.binary(max_size=40), max_size=12))
def test_any_bytes_in_any_pieces_give_the_same_line(pieces: list[bytes]) -> None:
    with tempfile.NamedTemporaryFile() as whole, tempfile.NamedTemporaryFile() as parted:
        at_once, by_and_by = Console(whole.name), Console(parted.name)
        whole.write(b"".join(pieces))
        whole.flush()
        found = None
        for piece in pieces:
            parted.write(piece)
            parted.flush()
            found = found or by_and_by.line()
        assert found == at_once.line()


def test_a_console_that_is_no_file_is_refused(tmp_path: Path) -> None:
    for each in (tmp_path, tmp_path / "none"):
        with pytest.raises(BadInput, match="--console: is not a file that QEMU writes to"):
            Console(str(each))


def test_a_console_that_is_taken_away_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "console"
    file.write_bytes(b"")
    console = Console(str(file))
    file.unlink()
    for ask in (console.line, console.skip):
        with pytest.raises(BadInput, match="cannot be read: No such file"):
            ask()
