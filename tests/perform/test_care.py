"""What surrounds a load: one lock, what is read back, a dropped crash image, a signal in the middle."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import REPOSITORY
from tests.perform.fake_linux import FakeLinux
from tests.perform.test_linux import CRASH, PLAIN
from tightrope.errors import BadInput, PerformError
from tightrope.perform.linux import kept as kept_room
from tightrope.perform.linux.kdump import LOADERS, Again
from tightrope.perform.linux.kept import Kept
from tightrope.perform.linux.kexec import LinuxKexec, told
from tightrope.perform.linux.lock import NAME, locked, open_for_writing
from tightrope.perform.linux.readback import disagreements
from tightrope.perform.linux.refusals import UNSEEN
from tightrope.perform.linux.state import Limits, State, machine_file, read_state

STATE = read_state(FakeLinux().file)
LOADED = replace(STATE, loaded=True)


def test_a_second_one_is_refused_and_told_who_holds_the_lock(tmp_path: Path) -> None:
    again = pytest.raises(BadInput, match=f"process {os.getpid()}")
    with locked([str(tmp_path)]), again, locked([str(tmp_path)]):
        pass
    with locked(["/no/such/folder", str(tmp_path)]):
        assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput), locked([str(tmp_path)]):
        pass
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("before", "after", "crash", "says"),
    [
        (STATE, LOADED, False, []),
        (STATE, STATE, False, ["is not loaded"]),
        (STATE, replace(STATE, loaded=None), False, []),
        (replace(STATE, crash_loaded=True), LOADED, False, ["a crash image was there and is gone"]),
        (STATE, replace(LOADED, crash_loaded=True), True, ["a kexec image is there and was not"]),
        (STATE, replace(STATE, crash_loaded=True, crash_size=0x800_0000), True, []),
        (
            STATE,
            replace(STATE, crash_loaded=True, crash_size=0x400_0000),
            True,
            ["lists 0x8000000"],
        ),
        (
            replace(STATE, limits=Limits(reboot=3, crash=None)),
            replace(LOADED, limits=Limits(reboot=2, crash=None)),
            False,
            [],
        ),
        (
            replace(STATE, limits=Limits(reboot=3, crash=None)),
            replace(LOADED, limits=Limits(reboot=3, crash=None)),
            False,
            ["was 3 and is 3, not 2"],
        ),
    ],
)
def test_what_is_read_back_is_compared(
    before: State, after: State, crash: bool, says: list[str]
) -> None:
    found = disagreements(before, after, crash=crash)
    assert len(found) == len(says)
    assert all(word in each for word, each in zip(says, found, strict=True))


@given(st.booleans(), st.one_of(st.none(), st.booleans()), st.one_of(st.none(), st.integers(1, 9)))
def test_a_load_that_did_what_it_should_disagrees_with_nothing(
    crash: bool, other: bool | None, left: int | None
) -> None:
    limits = Limits(reboot=left, crash=left)
    was = replace(STATE, loaded=other, crash_loaded=other, limits=limits)
    less = None if left is None else left - 1
    now = (
        replace(was, crash_loaded=True, limits=replace(limits, crash=less))
        if crash
        else replace(was, loaded=True, limits=replace(limits, reboot=less))
    )
    assert disagreements(was, now, crash=crash) == ()


def test_a_dropped_crash_image_is_brought_back_by_what_the_machine_has_for_it() -> None:
    linux = FakeLinux(refuse=errno.EADDRNOTAVAIL)
    linux.files |= {"/sys/kernel/kexec_crash_loaded": b"1\n", LOADERS[0].path: b"#!/bin/sh\n"}
    with pytest.raises(PerformError, match="`/usr/sbin/kdump-config load` has loaded its own"):
        LinuxKexec(linux, linux.file).load(CRASH)
    assert linux.runs == [("/usr/sbin/kdump-config", "load")]


def test_what_did_not_come_back_is_told_and_a_plain_load_runs_nothing() -> None:
    linux = FakeLinux(refuse=errno.EADDRNOTAVAIL, brings_back=False)
    linux.files |= {"/sys/kernel/kexec_crash_loaded": b"1\n", LOADERS[1].path: b""}
    with pytest.raises(
        PerformError, match="no kdump now: `/usr/bin/kdumpctl restart` ended with 0"
    ):
        LinuxKexec(linux, linux.file).load(CRASH)
    linux.files |= {"/sys/kernel/kexec_crash_loaded": b"1\n"}
    linux.runs.clear()
    with pytest.raises(PerformError):
        LinuxKexec(linux, linux.file).load(PLAIN)
    assert linux.runs == []


def again(linux: FakeLinux, *, works: bool) -> Again:
    """What tightrope had loaded, which can be loaded once more, or not."""

    def load() -> None:
        if not works:
            raise BadInput("is not what was loaded", source="/boot/vmlinuz")
        linux.files["/sys/kernel/kexec_crash_loaded"] = b"1\n"

    return Again(name="/boot/vmlinuz", load=load)


def test_what_tightrope_had_loaded_comes_back_before_the_distributions_is_tried() -> None:
    linux = FakeLinux(refuse=errno.EADDRNOTAVAIL)
    linux.files |= {"/sys/kernel/kexec_crash_loaded": b"1\n", LOADERS[0].path: b"#!/bin/sh\n"}
    kexec = LinuxKexec(linux, linux.file)
    with pytest.raises(PerformError, match=r"dropped, and /boot/vmlinuz, .* is loaded again$"):
        kexec.load(CRASH, again(linux, works=True))
    assert linux.runs == []
    with pytest.raises(PerformError, match=r"kdump-config load` has .* is not what was loaded$"):
        kexec.load(CRASH, again(linux, works=False))
    assert linux.runs == [("/usr/sbin/kdump-config", "load")]
    del linux.files[LOADERS[0].path]
    linux.files["/sys/kernel/kexec_crash_loaded"] = b"1\n"
    with pytest.raises(PerformError, match=r"no kdump now: /boot/vmlinuz.*none of kdump-config"):
        kexec.load(CRASH, again(linux, works=False))


KEPT = Kept(
    crash=True,
    call="kexec_load",
    files=(("/boot/vmlinuz-ä\udc80", "ab" * 32, 7), ("/boot/initrd", "cd" * 32, 8)),
    written=False,
    command_line="quiet secret=1",
    unpack=True,
    on_damage="halt",
    rehearsed="holds",
    uid=0,
    at=1_800_000_000,
)


@pytest.mark.parametrize("kept", [KEPT, replace(KEPT, crash=False, on_damage=None)])
def test_what_was_loaded_is_kept_for_root_alone_and_read_as_it_was(
    tmp_path: Path, kept: Kept
) -> None:
    folders = ["/no/such/folder", str(tmp_path)]
    assert kept_room.write(kept, folders) is None
    assert kept_room.read(machine_file, crash=kept.crash, folders=folders) == kept
    assert kept_room.read(machine_file, crash=not kept.crash, folders=folders) is None
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    kept_room.forget(crash=kept.crash, folders=folders)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_kept_is_told_and_what_was_there_is_no_longer_believed(
    tmp_path: Path,
) -> None:
    assert kept_room.write(KEPT, [str(tmp_path)]) is None
    folder = Path("/proc/self")  # takes no file
    assert "/proc/self" in (kept_room.write(KEPT, [str(folder)]) or "")
    assert kept_room.write(KEPT, ["/no/such/folder"]) == "there is no /no/such/folder"


@given(
    st.binary(max_size=100)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(sorted(asdict(KEPT))), inner)
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_bytes_are_what_was_kept_or_nothing(data: bytes) -> None:
    assert kept_room.read(lambda _: data, crash=True) is None


@given(st.sampled_from(sorted(asdict(KEPT))), st.none() | st.booleans() | st.integers() | st.text())
def test_a_field_of_another_kind_is_nothing_that_was_kept(name: str, value: object) -> None:
    said = {**asdict(KEPT), name: value}
    found = kept_room.read(lambda _: json.dumps(said).encode(), crash=True)
    assert found is None or asdict(found) == said


def test_a_lock_in_a_full_folder_locks_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    again = pytest.raises(BadInput, match=r"process \?")
    with locked([str(tmp_path)]), again, locked([str(tmp_path)]):
        pass


def test_a_file_that_somebody_writes_is_seen_and_one_that_somebody_reads_is_not(
    tmp_path: Path,
) -> None:
    file = tmp_path / "vmlinuz"
    file.write_bytes(b"x")
    with file.open("rb") as ours, file.open("rb"):
        assert open_for_writing(ours.fileno()) is False
        with file.open("r+b"):
            assert open_for_writing(ours.fileno()) is True
        assert open_for_writing(ours.fileno()) is False


@pytest.mark.parametrize("number", [errno.EBUSY, errno.ENOMEM])
def test_what_cannot_be_seen_before_the_call_is_explained_after_it(number: int) -> None:
    linux = FakeLinux(refuse=number)
    with pytest.raises(PerformError, match=re.escape(UNSEEN[number])):
        LinuxKexec(linux, linux.file).load(PLAIN)


SIGNALLED = """
import os, signal, sys, time
from tightrope.cli import main, signals
from tightrope.cli.command import command
@command('change', help='change', examples=())
def change(options):
    if {sheltered}:
        with signals.sheltered('it is loaded'):
            os.kill(os.getpid(), {number})
            time.sleep(signals.GRACE + 0.5)
            print('loaded to the end', file=sys.stderr)
    else:
        os.kill(os.getpid(), {number})
        time.sleep(5)
    return 0
sys.exit(main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("sheltered", [True, False])
def test_a_signal_waits_for_a_change_and_what_was_changed_is_told(
    sheltered: bool, number: signal.Signals
) -> None:
    program = SIGNALLED.format(sheltered=sheltered, number=int(number))
    done = subprocess.run(
        [sys.executable, "-c", program, "change"], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 128 + number
    ends = "it is loaded" if sheltered else "nothing was changed"
    assert done.stderr.splitlines()[-1].endswith(f"; {ends}")
    assert ("loaded to the end" in done.stderr) is sheltered


SMALL = str(REPOSITORY / "src" / "tightrope" / "shipped" / "kernel.bzimage")


@pytest.mark.parametrize(
    "words",
    [
        ["load", "/bin/true", "--no-rehearsal"],
        ["load", SMALL, "--no-rehearsal"],
        ["load", SMALL, "--crash", "--via", "kexec_load", "--no-rehearsal"],
        ["load", "/bin/true", "--no-rehearsal", "--via", "kexec_file_load", "--json"],
        ["refusals", "/bin/true"],
        ["status"],
        ["status", "--json"],
        ["unload"],
        ["exec"],
    ],
)
def test_without_a_rehearsal_python_is_enough(words: list[str]) -> None:
    """An interpreter without site-packages finds everything that is imported on the way."""
    program = (
        f"import sys; sys.path[:] = [{str(REPOSITORY / 'src')!r}, *sys.path]\n"
        "from tightrope.cli import main\n"
        f"main({words!r})\n"
        "import sysconfig; std = sysconfig.get_path('stdlib')\n"
        "names = {n.partition('.')[0] for n, m in sys.modules.items()"
        " if (getattr(m, '__file__', None) or std).startswith(std)"
        " and 'site-packages' not in (getattr(m, '__file__', None) or '')}\n"
        "print(sorted({n.partition('.')[0] for n in sys.modules} - names - {'tightrope'}))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
    assert "a mistake of ours" not in done.stderr
    assert "needs" not in done.stderr


def test_a_jump_that_live_update_may_refuse_at_its_end_says_so_before() -> None:
    linux = FakeLinux()
    assert LinuxKexec(linux, linux.file).cautions() == ()
    path = "/boot/config-6.12.117+deb13-amd64"
    linux.files[path] = linux.files[path] + b"CONFIG_LIVEUPDATE=y\n"
    (caution,) = LinuxKexec(linux, linux.file).cautions()
    assert "refuses the jump at its end" in caution


@pytest.mark.parametrize(
    ("file", "status", "deed"), [(b"1\n", "yes", "jump"), (None, "not known", "ask for the jump")]
)
def test_exec_says_no_more_than_status_knows(file: bytes | None, status: str, deed: str) -> None:
    linux = FakeLinux()
    linux.files.pop("/sys/kernel/kexec_loaded")
    if file is not None:
        linux.files["/sys/kernel/kexec_loaded"] = file
    kexec = LinuxKexec(linux, linux.file)
    assert f"loaded          {status}" in told(kexec.state())
    assert kexec.deed == f"{deed}, by {kexec.way}"
    assert ["is not known" in each for each in kexec.cautions()] == [True] * (file is None)
