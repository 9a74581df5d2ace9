"""kexec on bare Linux through its ports: what is asked, what is refused before it, what is told after it."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.perform.fake_linux import FILES, Became, FakeLinux
from tightrope.abi.kexec import FileFlag
from tightrope.errors import BadInput, PerformError
from tightrope.memory import Extent
from tightrope.perform.linux.kexec import FileLoad, LinuxKexec, reasons
from tightrope.perform.linux.state import read_state
from tightrope.perform.load_file import Load, LoadSegment, Taker

MIB = 1 << 20
REGION = Extent(0x2000_0000, 0x2800_0000)


def segment(at: int, size: int = 4096, data: bytes = b"\xf4") -> LoadSegment:
    return LoadSegment(destination=Extent.sized(at, size), data=memoryview(data))


PLAIN = Load(
    segments=(segment(64 * MIB),),
    entry=64 * MIB,
    legacy=False,
    crash=False,
    rehearsed="holds",
    taker=Taker.LINUX,
)
CRASH = replace(PLAIN, segments=(segment(REGION.start),), entry=REGION.start, crash=True)
BY_FILE = FileLoad(
    kernel=7, initrd=8, command_line=b"quiet", crash=False, is_bzimage=True, signed=False
)


def told(load: Load | FileLoad, **files: str | None) -> list[str]:
    """The answers that are told of a load on a machine whose files differ: path by its last name."""
    changed = dict(FILES)
    for name, text in files.items():
        (path,) = [each for each in FILES if each.endswith(f"/{name}")]
        if text is None:
            del changed[path]
        else:
            changed[path] = text.encode()
    return [each.answer for each in reasons(read_state(changed.get), load)]


@pytest.mark.parametrize("load", [PLAIN, CRASH, BY_FILE], ids=["plain", "crash", "files"])
def test_what_is_right_is_not_refused_and_is_asked_as_it_is(load: Load | FileLoad) -> None:
    linux = FakeLinux()
    LinuxKexec(linux, linux.file).load(load)
    if isinstance(load, FileLoad):
        assert linux.file_loads == [(7, 8, b"quiet", FileFlag(0))]
    else:
        (one,) = load.segments
        rows = [(one.destination.start, 4096, b"\xf4")]
        assert linux.loads == [(load.entry, rows, int(load.crash))]


@pytest.mark.parametrize(
    ("load", "files", "answers"),
    [
        (PLAIN, {"kexec_load_disabled": "1\n"}, ["EPERM"]),
        (PLAIN, {"kexec_load_limit_reboot": "0\n"}, ["EPERM"]),
        (PLAIN, {"kexec_load_limit_reboot": "1\n"}, []),
        (PLAIN, {"kexec_load_limit_panic": "0\n"}, []),
        (CRASH, {"kexec_load_limit_panic": "0\n"}, ["EPERM"]),
        (PLAIN, {"status": "CapEff:\t0000000000000000\n"}, ["EPERM"]),
        (PLAIN, {"status": "CapEff:\t0000000000400000\n"}, []),
        (PLAIN, {"lockdown": "none [integrity] confidentiality\n"}, ["EPERM"]),
        (BY_FILE, {"lockdown": "none [integrity] confidentiality\n"}, ["EPERM"]),
        (
            replace(BY_FILE, signed=True),
            {"lockdown": "none [integrity] confidentiality\n"},
            [],
        ),
        (
            replace(BY_FILE, signed=True),
            {
                "lockdown": "none [integrity] confidentiality\n",
                "keys": "1 I------ 1 perm 1f0b0000 0 0 keyring   .platform: empty\n",
            },
            ["EPERM"],
        ),
        (
            replace(BY_FILE, signed=True),
            {"lockdown": "none [integrity] confidentiality\n", "keys": ""},
            [],
        ),
        (CRASH, {"iomem": "00100000-3ffdffff : System RAM\n"}, ["EADDRNOTAVAIL"]),
        (CRASH, {"iomem": "00000000-00000000 : System RAM\n"}, []),
        (replace(CRASH, entry=64 * MIB), {}, ["EADDRNOTAVAIL", "ours"]),
        (replace(CRASH, segments=(segment(64 * MIB),)), {}, ["EADDRNOTAVAIL", "ours"]),
        (replace(PLAIN, segments=(segment(REGION.start),), entry=REGION.start), {}, ["ours"]),
        (replace(PLAIN, segments=(segment(0xA0000),), entry=0xA0000), {}, ["ours"]),
        (replace(PLAIN, entry=0), {}, ["ours"]),
        (
            replace(CRASH, segments=(segment(REGION.start, REGION.size),)),
            {},
            ["ENOMEM"],
        ),
        (replace(BY_FILE, is_bzimage=False), {}, ["ENOEXEC"]),
        (replace(BY_FILE, command_line=b"x" * 2016), {}, []),
        (replace(BY_FILE, command_line=b"x" * 2017), {}, ["EINVAL"]),
        (BY_FILE, {"arch": "i686\n"}, ["ENOSYS"]),
        (
            PLAIN,
            {"config-6.12.117+deb13-amd64": "CONFIG_KEXEC_FILE=y\n"},
            ["ENOSYS"],
        ),
        (
            BY_FILE,
            {"config-6.12.117+deb13-amd64": "CONFIG_KEXEC_FILE=y\nCONFIG_KEXEC_SIG_FORCE=y\n"},
            ["ENODATA"],
        ),
        (PLAIN, {"config-6.12.117+deb13-amd64": None}, []),
        (
            PLAIN,
            {"cpuinfo": "flags\t: tdx_host_platform\nbugs\t: tdx_pw_mce\n"},
            ["EOPNOTSUPP"],
        ),
        (PLAIN, {"cpuinfo": "flags\t: tdx_host_platform\nbugs\t: spectre_v1\n"}, []),
        (replace(PLAIN, segments=(segment(64 * MIB, 500 * MIB),)), {}, ["EINVAL", "ours"]),
        (replace(PLAIN, segments=tuple(segment((64 + n) * MIB) for n in range(16))), {}, []),
        (
            replace(PLAIN, segments=tuple(segment((64 + n) * MIB) for n in range(17))),
            {},
            ["EINVAL"],
        ),
        (replace(PLAIN, segments=(segment(64 * MIB, data=bytes(4097)),)), {}, ["EINVAL"]),
    ],
)
def test_a_refusal_is_told_with_its_errno_and_its_twin_is_not(
    load: Load | FileLoad, files: dict[str, str | None], answers: list[str]
) -> None:
    assert told(load, **files) == answers


def test_what_would_be_refused_is_never_asked() -> None:
    linux = FakeLinux()
    linux.files["/proc/sys/kernel/kexec_load_disabled"] = b"1\n"
    with pytest.raises(BadInput, match="kexec_load_disabled is 1"):
        LinuxKexec(linux, linux.file).load(PLAIN)
    assert linux.loads == []


def test_a_failed_crash_load_says_that_kdump_is_gone_and_a_failed_plain_one_that_it_is_not() -> (
    None
):
    linux = FakeLinux(refuse=errno.EINVAL)
    linux.files["/sys/kernel/kexec_crash_loaded"] = b"1\n"
    linux.files["/sys/kernel/kexec_loaded"] = b"1\n"
    kexec = LinuxKexec(linux, linux.file)
    with pytest.raises(PerformError, match="still there") as plain:
        kexec.load(PLAIN)
    assert plain.value.number == errno.EINVAL
    with pytest.raises(PerformError, match="no kdump now"):
        kexec.load(CRASH)


def test_unloading_is_a_load_of_nothing_and_says_why_it_is_refused() -> None:
    linux = FakeLinux()
    kexec = LinuxKexec(linux, linux.file)
    kexec.unload(crash=True)
    assert linux.loads == [(0, [], 1)]
    linux.refuse = errno.EPERM
    linux.files["/proc/sys/kernel/kexec_load_limit_reboot"] = b"0\n"
    with pytest.raises(PerformError, match="no load is left"):
        kexec.unload(crash=False)


def test_unloading_goes_by_files_where_the_other_call_is_not_built_in() -> None:
    linux = FakeLinux(refuse=errno.ENOSYS)
    with pytest.raises(PerformError):
        LinuxKexec(linux, linux.file).unload(crash=True)
    assert linux.file_loads == [(-1, -1, b"", FileFlag.UNLOAD | FileFlag.ON_CRASH)]


def test_a_jump_needs_an_image_and_says_so_when_it_comes_back() -> None:
    linux = FakeLinux(came_back=errno.EBUSY)
    kexec = LinuxKexec(linux, linux.file)
    with pytest.raises(BadInput, match="nothing is loaded"):
        kexec.jump()
    assert linux.jumps == 0
    kexec.load(PLAIN)
    with pytest.raises(PerformError, match="the old kernel runs on"):
        kexec.jump()
    assert linux.jumps == 1


def test_where_systemd_runs_the_machine_it_is_asked_and_the_kernel_is_not() -> None:
    linux = FakeLinux()
    linux.files |= {"/proc/1/comm": b"systemd\n", "/sys/kernel/kexec_loaded": b"1\n"}
    with pytest.raises(Became) as became:
        LinuxKexec(linux, linux.file).jump()
    assert became.value.args == (("systemctl", "kexec"),)
    assert linux.jumps == 0
    linux.files["/proc/1/comm"] = b"systemd-nspawn\n"
    assert LinuxKexec(linux, linux.file).way == "reboot(2)"


def test_the_highest_crash_region_is_the_one_that_is_loaded_into() -> None:
    low, high = "20000000-27ffffff : Crash kernel", "1af000000-1bf000000 : Crash kernel"
    state = read_state({"/proc/iomem": f"{high}\n{low}\n".encode()}.get)
    assert state.crash_region == Extent(0x1_AF00_0000, 0x1_BF00_0001)


@given(st.dictionaries(st.sampled_from(sorted(FILES)), st.binary(max_size=200)))
def test_any_bytes_in_any_file_are_a_state(files: dict[str, bytes]) -> None:
    state = read_state({**FILES, **files}.get)
    assert list(reasons(state, PLAIN)) == list(reasons(state, PLAIN))
