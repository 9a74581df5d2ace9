"""Loads that are right but for one thing, asked of the Linux under this process: what is said, what was told.

    asked_linux.py            every load, as the machine is
    asked_linux.py for-good   the same, the crash region given back, every load again; then without rights

Rules: a row is a load and what is changed on the machine before it.  Run as a program it asks each row of
the real kernel and prints, as JSON on a line for each time, the errno it answered (0: taken) and the errnos
that `refusals` gave beforehand.  What is loaded is unloaded again, and nothing is jumped to.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from tightrope.abi.kexec import FileFlag
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.perform.linux import signature
from tightrope.perform.linux.calls import CallFailed, Linux
from tightrope.perform.linux.kexec import FileLoad, reasons
from tightrope.perform.linux.lock import open_for_writing
from tightrope.perform.linux.state import machine_file, read_state
from tightrope.perform.load_file import Load, LoadSegment, Taker

MIB = 1 << 20
KERNEL = "k2"
"""The path of a bzImage in the guest."""
SIGNED = "signed"
"""The path of a kernel that a distribution has signed."""
POLICY = "/sys/kernel/security/ima/policy"
APPRAISES = "appraise func=KEXEC_KERNEL_CHECK appraise_type=imasig\n"
LINE_LIMIT = 2016
"""Bytes without the zero."""


def segment(at: int, size: int = PAGE_SIZE, data: bytes = b"\xf4") -> LoadSegment:
    return LoadSegment(destination=Extent.sized(at, size), data=memoryview(data))


def loads(region: Extent | None, total: int) -> Iterator[tuple[str, Load]]:
    """By kexec_load: name and load."""
    base = Load(
        segments=(segment(64 * MIB),),
        entry=64 * MIB,
        legacy=False,
        crash=False,
        rehearsed="",
        taker=Taker.LINUX,
    )
    yield "fine", base
    for count in (16, 17):
        rows = tuple(segment((64 + n) * MIB) for n in range(count))
        yield f"{count} segments", replace(base, segments=rows)
    yield "not aligned", replace(base, segments=(segment(64 * MIB + 8),))
    yield "size not aligned", replace(base, segments=(segment(64 * MIB, 100),))
    yield "overlap", replace(base, segments=(segment(64 * MIB, 8192), segment(64 * MIB + 4096)))
    yield "touching", replace(base, segments=(segment(64 * MIB), segment(64 * MIB + 4096)))
    yield "more bytes than room", replace(base, segments=(segment(64 * MIB, data=bytes(8192)),))
    # The kernel counts pages, so the two sides of the bound are a page apart.
    half = total // 2 // PAGE_SIZE * PAGE_SIZE
    yield "more than half", replace(base, segments=(segment(64 * MIB, half + PAGE_SIZE),))
    crash = replace(base, crash=True)
    yield "crash, outside the region", crash
    if region:
        inside = replace(crash, segments=(segment(region.start),), entry=region.start)
        yield "crash, inside the region", inside
        yield "crash, entry outside", replace(inside, entry=64 * MIB)
        whole = segment(region.start, region.size)
        yield "crash, all of the region", replace(inside, segments=(whole,))


def errno_of(calls: Linux, load: Load | FileLoad) -> int:
    """What the kernel answers; what it takes is unloaded."""
    try:
        if isinstance(load, FileLoad):
            flags = FileFlag.NO_INITRAMFS | (FileFlag.ON_CRASH if load.crash else FileFlag(0))
            calls.kexec_file_load(load.kernel, -1, load.command_line, flags)
        else:
            calls.kexec_load(load.entry, load.segments, int(load.crash))
    except CallFailed as err:
        return err.number
    calls.kexec_load(0, (), int(load.crash))
    return 0


def file_loads() -> Iterator[tuple[str, FileLoad]]:
    """By kexec_file_load: name and load."""
    kernel = os.open(KERNEL, os.O_RDONLY)
    base = FileLoad(
        kernel=kernel, initrd=None, command_line=b"quiet", crash=False, is_bzimage=True, signed=None
    )
    yield "files, fine", base
    yield "files, longest line", replace(base, command_line=b"x" * LINE_LIMIT)
    yield "files, line too long", replace(base, command_line=b"x" * (LINE_LIMIT + 1))
    yield (
        "files, no bzImage",
        replace(base, kernel=os.open(__file__, os.O_RDONLY), is_bzimage=False),
    )
    yield "files, crash", replace(base, crash=True)


def by_signature() -> Iterator[tuple[str, FileLoad]]:
    """A distribution's kernel as it was signed, with another byte, and with a signature that is cut off."""
    with open(SIGNED, "rb") as file:
        data = file.read()
    middle = len(data) // 2
    table = data.rindex(b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02") - 12  # pkcs7-signedData
    for name, image in (
        ("as it was", data),
        ("another byte", data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]),
        ("another message", data[: table + 40] + b"\xff" + data[table + 41 :]),
    ):
        path = f"image of {name}"
        with open(path, "wb") as file:
            file.write(image)
        at = os.open(path, os.O_RDONLY)
        found = signature.read(partial(_of, at), len(image))
        base = dict(file_loads())["files, fine"]
        yield f"signed, {name}", replace(base, kernel=at, signed=True, signature=found)


def _of(at: int, size: int, offset: int) -> bytes:
    return os.pread(at, size, offset)


def lost(calls: Linux, image: Load) -> Iterator[tuple[str, int, list[int | None]]]:
    """A plain load that fails keeps the image of its kind, a crash load that fails drops it: 1 is still there."""
    for name, good, path in (
        ("kept", replace(image, crash=False), "/sys/kernel/kexec_loaded"),
        ("dropped", image, "/sys/kernel/kexec_crash_loaded"),
    ):
        calls.kexec_load(good.entry, good.segments, int(good.crash))
        bad = replace(good, segments=(segment(64 * MIB, 8192), segment(64 * MIB + 4096)))
        try:
            calls.kexec_load(bad.entry, bad.segments, int(bad.crash))
        except CallFailed as err:
            with open(path) as file:
                yield f"{name}: {file.read().strip()}", err.number, [err.number]
        calls.kexec_load(0, (), int(good.crash))


Row = tuple[str, int, list[int | None]]
"""A row's name, the kernel's errno, and the errnos told before."""
CRASH_SIZE = "/sys/kernel/kexec_crash_size"


def ask(calls: Linux, name: str, load: Load | FileLoad) -> Row:
    told = [each.number for each in reasons(read_state(machine_file), load)]
    return name, errno_of(calls, load), told


def rows(calls: Linux) -> Iterator[Row]:
    """Every load, on the machine as it is."""
    state = read_state(machine_file)
    every: list[tuple[str, Load | FileLoad]] = [*loads(state.crash_region, state.total_ram or 0)]
    every += file_loads()
    for name, load in every:
        yield ask(calls, name, load)
    yield ask(calls, "files, signed", replace(dict(file_loads())["files, fine"], signed=True))
    with open(KERNEL, "r+b"):
        kernel = os.open(KERNEL, os.O_RDONLY)
        written = (KERNEL,) if open_for_writing(kernel) else ()
        base = dict(file_loads())["files, fine"]
        yield ask(calls, "files, written", replace(base, kernel=kernel, written=written))
    if crash_image := dict(loads(state.crash_region, 0)).get("crash, inside the region"):
        yield from lost(calls, crash_image)


def write(path: str, word: str) -> None:
    with open(path, "w") as file:
        file.write(word)


def without_rights(calls: Linux) -> Iterator[Row]:
    """By signature, and then what is taken away for good."""
    fine, files = dict(loads(None, 0))["fine"], dict(file_loads())["files, fine"]
    signed_ones = list(by_signature())
    # With another byte it is taken as with another message, and taking one takes seconds.
    for name, image in signed_ones:
        if name != "signed, another byte":
            yield ask(calls, name, image)
    write("/sys/kernel/security/lockdown", "integrity")
    yield ask(calls, "locked down", fine)
    yield ask(calls, "files, signed, locked down", replace(files, signed=True))
    for name, image in signed_ones:
        yield ask(calls, f"{name}, locked down", image)
    if os.path.exists(POLICY):
        # As systemd has it: the kernel does not tell its rules again (CONFIG_IMA_READ_POLICY).
        os.makedirs("/etc/ima")
        write("/etc/ima/ima-policy", APPRAISES)
        write(POLICY, APPRAISES)
        yield ask(calls, "appraised", fine)
        os.setxattr(KERNEL, "security.ima", b"\x04\x04" + bytes(32))
        yield ask(calls, "files, appraised, a digest", replace(files, ima_signed=False))
        os.removexattr(KERNEL, "security.ima")
        yield ask(calls, "files, appraised", replace(files, ima_signed=False))
    if machine_file("/proc/sys/kernel/kexec_load_limit_reboot") is not None:
        write("/proc/sys/kernel/kexec_load_limit_reboot", "0")
        yield ask(calls, "no load left", fine)
        yield ask(calls, "files, no load left", files)
    write("/proc/sys/kernel/kexec_load_disabled", "1")
    yield ask(calls, "disabled", fine)
    yield ask(calls, "files, disabled", files)


if __name__ == "__main__":
    linux = Linux()
    print(json.dumps([*rows(linux)]), flush=True)
    if sys.argv[1:] == ["for-good"]:
        write(CRASH_SIZE, str(PAGE_SIZE))
        small = replace(dict(file_loads())["files, crash"], room=2 * PAGE_SIZE)
        print(json.dumps([[*ask(linux, "files, crash, too large", small)]]), flush=True)
        write(CRASH_SIZE, "0")
        print(json.dumps([*rows(linux)]), flush=True)
        print(json.dumps([*without_rights(linux)]), flush=True)
    sys.exit(0)
