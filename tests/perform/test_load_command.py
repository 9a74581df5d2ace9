"""`tightrope load` as a user has it, on a Linux that is not there: what reaches the kernel is what was rehearsed."""

from __future__ import annotations

import errno
import json
import re
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path

import pytest

from tests.conftest import debian_kernel
from tests.makers import trees
from tests.perform.fake import Held
from tests.perform.fake_linux import FakeLinux
from tightrope import deeds, host
from tightrope.abi.kexec import FileFlag
from tightrope.cli import main
from tightrope.deeds import old_kernel, surveyed
from tightrope.deeds.surveyed import Survey
from tightrope.memory import Extent
from tightrope.model import Host, Named
from tightrope.perform import privcmd
from tightrope.perform.linux import calls, kept, lock, state

MIB = 1 << 20
PC = 640
KERNEL = "cloud-amd64"
RUNNING, RUNNING_IMAGE = surveyed.running, surveyed.running_image
SMALL = Path(str(resources.files("tightrope.shipped") / "kernel.bzimage"))


@contextmanager
def nobodys() -> Iterator[None]:
    yield


@cache
def running() -> tuple[bytes, str, old_kernel.OldKernel]:
    """The image of the kernel that runs there, its name, and its code; reading it takes seconds."""
    path = debian_kernel("amd64-6.12")
    data = path.read_bytes()
    return data, path.name, old_kernel.read(data, path.name)


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> FakeLinux:
    """A machine with the memory of QEMU's pc, its kernel Debian's 6.12, and a log that is kept."""
    fake = FakeLinux()
    fake.files["/proc/iomem"] = (
        f"00001000-0009fbff : System RAM\n00100000-{PC * MIB - 1:08x} : System RAM\n".encode()
    )
    linux_was_told = bytearray(4096)
    linux_was_told[0x1E8] = 2
    struct.pack_into("<QQI", linux_was_told, 0x2D0, 0, 0x9_FC00, 1)
    struct.pack_into("<QQI", linux_was_told, 0x2D0 + 20, MIB, (PC - 1) * MIB, 1)
    fake.files["/sys/kernel/boot_params/data"] = bytes(linux_was_told)
    data, name, code = running()
    monkeypatch.setattr(calls, "Linux", lambda: fake)
    run = tmp_path_factory.mktemp("run")
    real = state.machine_file

    def file(path: str) -> bytes | None:
        return real(path) if path.startswith(f"{run}/") else fake.file(path)

    monkeypatch.setattr(kept, "FOLDERS", (str(run),))
    monkeypatch.setattr(state, "machine_file", file)
    monkeypatch.setattr(lock, "locked", nobodys)
    monkeypatch.setattr(surveyed, "running", lambda: code)
    monkeypatch.setattr(surveyed, "running_image", lambda: (data, name))
    as_surveyed(monkeypatch, host.read(host.example(pc=PC), "a PC"))
    monkeypatch.setattr("syslog.openlog", lambda name, *_: fake.log_names.append(name))
    monkeypatch.setattr("syslog.syslog", fake.log.append)
    return fake


def as_surveyed(monkeypatch: pytest.MonkeyPatch, old: Host) -> None:
    monkeypatch.setattr(surveyed, "survey", lambda *_: Survey(host=old, notes=()))


def load(*words: str) -> int:
    return main(["load", str(debian_kernel(KERNEL)), *words])


def load_small(*words: str) -> int:
    """Linux's own purgatory is executed, whose digest of a kernel of Debian's takes ten seconds."""
    return main(["load", str(SMALL), *words])


def test_what_was_rehearsed_is_what_is_loaded(
    linux: FakeLinux, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load("--append", "quiet secret=word") == 0
    shown = capsys.readouterr()
    assert linux.loads == []
    assert "rehearsed: holds" in shown.out
    assert "say --really" in shown.err
    assert load("--append", "quiet secret=word", "--really", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rehearsed"], told["done"], told["call"]) == ("holds", True, "kexec_load")
    ((entry, rows, flags),) = linux.loads
    assert (entry, flags) == (told["entry"], 0)
    assert [(start, size, len(data)) for start, size, data in rows] == [
        (each["start"], each["size"], each["bytes"]) for each in told["segments"]
    ]
    names = [each["name"] for each in told["segments"]]
    assert {"kernel", "purgatory", "command line", "boot_params", "entry stub"} <= set(names)
    for each in told["segments"]:
        assert f"{each['bytes']:,} bytes, {each['name']}\n" in shown.out
    # The entry is the purgatory, which has the digest of every other segment.
    assert names[[start for start, _, _ in rows].index(entry)] == "purgatory"
    (purgatory,) = [data for start, _, data in rows if start == entry]
    assert b"tightrope: " in purgatory
    (line,) = linux.log
    assert told["files"][0]["sha256"] in line
    assert "secret" not in line
    # A line begins with the name that the log was opened with.
    assert (linux.log_names, line.split()[0]) == (["tightrope"], "kexec")


def test_where_the_running_kernel_has_no_image_the_way_without_one_is_named(
    linux: FakeLinux, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(surveyed, "running", RUNNING)
    monkeypatch.setattr(surveyed, "running_image", RUNNING_IMAGE)
    monkeypatch.setattr("platform.release", lambda: "6.12-nobodys")
    assert load_small() == 2
    told = capsys.readouterr().err
    assert "the running kernel: no image of 6.12-nobodys in /boot" in told
    assert "--no-rehearsal" in told
    assert load_small("--no-rehearsal") == 0


def test_a_crash_image_that_it_loaded_comes_back_with_the_same_bytes(
    linux: FakeLinux,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the plan that it was, and from a kernel that is planned and rehearsed anew."""
    region = Extent.sized(256 * MIB, 192 * MIB)
    rows = f"  {region.start:08x}-{region.end - 1:08x} : Crash kernel\n"
    linux.files["/proc/iomem"] += rows.encode()
    old = host.read(host.example(pc=PC, crash=region), "a PC")
    as_surveyed(monkeypatch, old)
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(debian_kernel(KERNEL).read_bytes())
    words = ("--crash", "--append", "quiet secret=word", "--really")
    assert main(["load", str(kernel), *words]) == 0
    (first,) = linux.loads
    capsys.readouterr()

    assert main(["status", "--json"]) == 0
    text = capsys.readouterr().out
    (last,) = json.loads(text)["last"]
    assert (last["crash"], last["rehearsed"], "secret" in text) == (True, "holds", False)
    assert last["files"][0]["name"] == str(kernel)
    assert main(["status"]) == 0
    assert "tightrope loaded a crash image by kexec_load" in capsys.readouterr().out

    linux.refuse_next = errno.EINVAL
    assert load("--crash", "--append", "single", "--really") == 2
    said = capsys.readouterr().err
    assert f"was dropped, and {kernel}, which tightrope had loaded, is loaded again" in said
    assert linux.loads[-1] == first
    assert linux.files["/sys/kernel/kexec_crash_loaded"] == b"1\n"

    kernel.write_bytes(debian_kernel("cloud-amd64-6.12").read_bytes())
    linux.refuse_next = errno.EINVAL
    assert load("--crash", "--append", "single", "--really") == 2
    said = capsys.readouterr().err
    assert (
        f"{kernel}, which tightrope had loaded, is not loaded again: {kernel}: is not what was"
        in said
    )
    assert len(linux.loads) == 4
    assert main(["unload", "--crash", "--really"]) == 0
    assert kept.read(state.machine_file, crash=True) is None


def test_a_full_run_is_told_and_it_is_loaded_all_the_same(
    linux: FakeLinux, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--no-rehearsal", "--really")
    assert load_small(*words) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(kept, "FOLDERS", ("/proc/self",))  # takes no file
    assert load_small(*words) == 0
    shown = capsys.readouterr()
    assert shown.out.endswith("loaded: a kexec image\n")
    assert "what was loaded is not kept, to be loaded again: /proc/self/" in shown.err
    assert (len(linux.loads), linux.file_loads) == (2, [])


def test_a_plan_says_what_its_rehearsal_said(
    linux: FakeLinux, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    linux.files["/proc/iomem"] = b"00100000-bfffffff : System RAM\n00001000-0009fbff : System RAM\n"
    written = str(tmp_path / "written")
    assert main(["rehearse", "--shipped", "--write", written, "-q"]) == 0
    capsys.readouterr()
    assert main(["load", written, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rehearsed"] == "holds"
    assert main(["load", written]) == 0
    shown = capsys.readouterr().out
    assert "rehearsed: holds, when it was written" in shown
    assert " bytes, kernel\n" in shown


def test_what_speaks_against_a_plan_names_its_segment(
    linux: FakeLinux, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = str(tmp_path / "written")
    assert main(["rehearse", "--shipped", "--write", written, "-q"]) == 0
    linux.files["/proc/iomem"] = b"00001000-000fffff : System RAM\n"
    capsys.readouterr()
    assert main(["load", written]) == 2
    said = capsys.readouterr().err
    assert re.search(r"kernel \[0x1000000, 0x\w+\), .* are not RAM", said), said


def test_without_verification_there_is_a_segment_less(
    linux: FakeLinux, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load("--really") == 0
    assert load("--really", "--no-verify") == 0
    (_, verified, _), (_, bare, _) = linux.loads
    assert len(verified) == len(bare) + 1
    assert not any(b"tightrope: " in data for _, _, data in bare)
    assert capsys.readouterr().err == ""


def test_what_falls_is_not_loaded(
    linux: FakeLinux, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    initrd = debian_kernel(KERNEL).parent / f"config-{debian_kernel(KERNEL).name.split('-', 1)[1]}"
    assert load("--initrd", str(initrd), "--really") == 2
    said = capsys.readouterr().err
    assert "the rehearsal says that it falls" in said
    assert "initrd-unpacks" in said
    assert linux.loads == []


def test_where_nothing_fits_the_reason_is_a_plans(
    linux: FakeLinux, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = host.read(host.example(pc=PC), "a PC")
    everything = Named(extent=Extent(2 * MIB, PC * MIB), what="somebody's")
    as_surveyed(monkeypatch, replace(old, preserved=(everything,)))
    assert load("--really") == 2
    assert "needs 0x" in capsys.readouterr().err
    assert linux.loads == []


def test_where_only_signed_images_are_taken_linuxs_own_places_are_rehearsed(
    linux: FakeLinux, capsys: pytest.CaptureFixture[str]
) -> None:
    linux.files["/sys/kernel/security/lockdown"] = b"none [integrity] confidentiality\n"
    assert load_small("--append", "quiet", "--really") == 0
    said = capsys.readouterr().out
    assert "rehearsed: holds" in said
    assert "places as kexec_file_load of Linux 6.12.118+deb13-amd64 finds them" in said
    assert (len(linux.file_loads), linux.loads) == (1, [])
    assert load_small("--really", "--no-rehearsal") == 0
    assert "rehearsed" not in capsys.readouterr().out
    assert (len(linux.file_loads), linux.loads) == (2, [])


APPRAISED = {
    "/etc/ima/ima-policy": b"appraise func=KEXEC_KERNEL_CHECK appraise_type=imasig\n",
    "/boot/config-6.12.117+deb13-amd64": b"CONFIG_KEXEC=y\nCONFIG_KEXEC_FILE=y\nCONFIG_IMA_APPRAISE=y\n",
}


@pytest.mark.parametrize(
    ("words", "more", "by_segments"),
    [
        ((), {}, True),
        (("--via", "kexec_file_load"), {}, False),
        # A crash kernel's places, unrehearsed, are left to Linux.
        (("--crash",), {}, False),
        # IMA lets nothing in but the file; what its signature is it judges by itself.
        ((), APPRAISED, False),
    ],
)
def test_without_a_rehearsal_the_places_are_ours_unless_linux_has_to_find_them(
    linux: FakeLinux,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    more: dict[str, bytes],
    by_segments: bool,
) -> None:
    linux.files |= more
    linux.files["/proc/iomem"] = (
        f"00100000-{PC * MIB - 1:08x} : System RAM\n  20000000-27ffffff : Crash kernel\n".encode()
    )
    monkeypatch.setattr("tightrope.deeds.loading._ima_signed", lambda _: True)
    assert load_small("--append", "quiet", "--no-rehearsal", "--really", *words) == 0
    assert (len(linux.loads), len(linux.file_loads)) == (by_segments, not by_segments)
    capsys.readouterr()


def test_a_crash_load_of_signed_images_is_rehearsed_in_linuxs_own_places(
    linux: FakeLinux, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    region = Extent.sized(256 * MIB, 192 * MIB)
    linux.files["/sys/kernel/security/lockdown"] = b"none [integrity] confidentiality\n"
    linux.files["/proc/iomem"] += (
        f"  {region.start:08x}-{region.end - 1:08x} : Crash kernel\n".encode()
    )
    as_surveyed(monkeypatch, host.read(host.example(pc=PC, crash=region), "a PC"))
    assert load_small("--crash", "--append", "quiet", "--really") == 0
    said = capsys.readouterr().out
    assert "rehearsed: holds" in said
    assert "places as kexec_file_load of Linux 6.12.118+deb13-amd64 finds them" in said
    ((_, _, _, flags),) = linux.file_loads
    assert flags & FileFlag.ON_CRASH
    assert linux.loads == []


def test_what_would_fall_in_linuxs_own_places_is_not_loaded(
    linux: FakeLinux, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Linux places from the top of memory, and there lies what it keeps for the next kernel."""
    via = ("--via", "kexec_file_load", "--really")
    old = host.read(host.example(pc=PC), "a PC")
    top = Named(extent=Extent(PC // 2 * MIB, PC * MIB), what="somebody's")
    as_surveyed(monkeypatch, replace(old, preserved=(top,)))
    for words, why in (
        ((), "the rehearsal says that it falls"),
        (("--crash",), "there is no crash region"),
        (("--unpack",), "takes a bzImage as it is"),
    ):
        assert load_small(*words, *via) == 2, words
        assert why in capsys.readouterr().err
    assert (linux.file_loads, linux.loads) == ([], [])


def test_who_may_not_is_told_before_anything_is_read(
    linux: FakeLinux, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    linux.files["/proc/self/status"] = b"CapEff:\t0000000000000000\n"
    assert main(["load", str(tmp_path / "none"), "--really"]) == 2
    assert "no CAP_SYS_BOOT" in capsys.readouterr().err


def test_in_dom0_the_plan_goes_to_the_hypervisor(
    linux: FakeLinux, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    xen = Held(memory=((0, 0x9F000, 1), (MIB, 0x3FF0_0000, 1)))
    files = {
        "/sys/hypervisor/type": "xen\n",
        "/proc/xen/capabilities": "control_d\n",
        "/proc/cpuinfo": "flags\t: fpu pse pae lm nx pdpe1gb\naddress sizes\t: 40 bits physical\n",
        "/proc/xen/xensyms": "ffff82d040200000 T kexec_reloc\n",
    }
    linux.files |= {name: text.encode() for name, text in files.items()}
    monkeypatch.setattr(privcmd, "Privcmd", lambda: nullcontext(xen))
    monkeypatch.setattr("tightrope.cli.files.text_or_none", files.get)
    assert load("--append", "quiet") == 0
    assert xen.loads == []
    assert "would load it by hypercall" in capsys.readouterr().err
    assert load("--append", "quiet", "--really") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "loaded: a kexec image, in Xen"
    ((kind, machine, entry, segments),) = xen.loads
    assert (kind, machine) == (0, 62)
    assert any(to <= entry < to + room for _, to, room in segments)
    assert (linux.loads, linux.file_loads) == ([], [])
    assert len(linux.log) == 1
    assert load("--append", "quiet", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == "tightrope/load/1"
    assert (told["call"], told["rehearsed"], told["done"]) == (
        "KEXEC_CMD_kexec_load", "holds", False,
    )  # fmt: skip
    assert [each["start"] for each in told["segments"]] == [to for _, to, _ in segments]
    assert load("--no-rehearsal", "--really") == 2
    assert "tightrope perform xen" in capsys.readouterr().err


def test_refusals_of_a_captured_machine_are_told_of_the_plan_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trees.plant(tmp_path, trees.machine())
    words = ["refusals", str(debian_kernel(KERNEL)), "--root", str(tmp_path)]
    assert main([*words, "--via", "kexec_load"]) == 0
    assert "nothing is known that speaks against it" in capsys.readouterr().out
    limit = tmp_path / "proc" / "sys" / "kernel" / "kexec_load_limit_reboot"
    limit.parent.mkdir(parents=True, exist_ok=True)
    limit.write_text("0\n")
    assert main([*words, "--via", "kexec_load"]) == 1
    assert "kexec_load: EPERM: kernel.kexec_load_limit_reboot is 0" in capsys.readouterr().out


def test_where_no_rehearsal_can_run_the_way_without_one_is_named(
    linux: FakeLinux, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(deeds, "surveyed")
    monkeypatch.setitem(sys.modules, "tightrope.deeds.surveyed", None)
    assert load("--really") == 2
    said = capsys.readouterr().err
    assert "a rehearsal cannot run here" in said
    assert "say --no-rehearsal" in said
    assert (linux.loads, linux.file_loads) == ([], [])
