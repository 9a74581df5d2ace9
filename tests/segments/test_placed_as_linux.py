"""Where kexec_file_load of a real kernel puts things, by its own word, and where it was told to be beforehand."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib import resources

import pytest

from tests.conftest import debian_kernel
from tests.perform.dom0 import BareLinux
from tightrope import host, image
from tightrope.deeds import file_load
from tightrope.memory import Extent, MemoryMap, Region, RegionKind
from tightrope.model import Host

MEBIBYTES = 640
LINE = "quiet"
INITRD = bytes(3_000_001)
ASKED = """
import ctypes, os, sys
line = ctypes.create_string_buffer(b"quiet")
at = [os.open(name, os.O_RDONLY) for name in ("kernel", "initrd")]
libc = ctypes.CDLL(None, use_errno=True)
got = libc.syscall(320, at[0], at[1], ctypes.c_ulong(6), line, ctypes.c_ulong(int(sys.argv[1])))
print(got, ctypes.get_errno())
"""
SAID = re.compile(r"Loaded (purgatory|boot_param|64bit kernel|initrd)\b.*? at 0x([0-9a-f]+)")
DEBUG = 8
"""KEXEC_FILE_DEBUG, since 6.8; before it dynamic debug says the same."""


def with_ram(lines: list[str]) -> Host:
    """A PC with the RAM that /proc/iomem lists."""
    ends = [line.split()[0].split("-") for line in lines]
    rows = [Extent(int(first, 16), int(last, 16) + 1) for first, last in ends]
    memory = MemoryMap(tuple(Region(extent=each, kind=RegionKind.RAM) for each in rows))
    return replace(host.read(host.example(pc=MEBIBYTES), "a PC"), memory=memory)


@pytest.mark.parametrize(("flavour", "flags"), [("cloud-amd64", 0), ("cloud-amd64-7.3", DEBUG)])
def test_what_linux_says_of_its_places_is_what_was_worked_out(flavour: str, flags: int) -> None:
    new = (resources.files("tightrope.shipped") / "kernel.bzimage").read_bytes()
    with BareLinux(flavour, mebibytes=MEBIBYTES).up() as guest:
        guest.put("kernel", new)
        guest.put("initrd", INITRD)
        guest.put("asked.py", ASKED.encode())
        guest.do("echo 'file kexec-bzimage64.c +p' > /proc/dynamic_debug/control")
        status, lines = guest.do(f"python asked.py {flags}")
        assert (status, lines[-1]) == (0, "0 0"), lines
        _, said = guest.do("dmesg")
        _, places = guest.do("grep '^[0-9].*System RAM' /proc/iomem")
    path = debian_kernel(flavour)
    told = file_load.load(
        path.read_bytes(), path.name, image.read(new, "shipped"), INITRD, LINE, with_ram(places)
    )
    seen = {name: int(at, 16) for line in said for name, at in SAID.findall(line)}
    names = ("purgatory", "boot_param", "64bit kernel", "initrd")
    starts = [each.destination.start for each in told.segments]
    assert seen == dict(zip(names, starts, strict=True))
