"""Which crash kernel a machine would load, by the files of kdump-tools and kdump-utils."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.errors import BadInput
from tightrope.kdump.configuration import TOOLS, UTILS, assignments, configured, root_modules

MACHINE = {
    "/proc/sys/kernel/osrelease": "6.1.0-57-amd64\n",
    "/proc/cmdline": "root=/dev/sda1 ro quiet crashkernel=256M,high hugepages=4\n",
}
DEBIAN = """# as Debian ships it
USE_KDUMP=1
KDUMP_KERNEL=/var/lib/kdump/vmlinuz
KDUMP_INITRD=/var/lib/kdump/initrd.img
KDUMP_COREDIR="/var/crash"
#KDUMP_CMDLINE_APPEND="not this"
"""
FEDORA = """KDUMP_KERNELVER=""
KDUMP_COMMANDLINE=""
KDUMP_COMMANDLINE_REMOVE="hugepages hugepagesz quiet"
KDUMP_COMMANDLINE_APPEND="irqpoll nr_cpus=1 \\
reset_devices"
KDUMP_IMG="vmlinuz"
"""


def found(files: dict[str, str], there: set[str]) -> tuple[str, str | None, str]:
    got = configured({**MACHINE, **files}.get, there.__contains__)
    return got.kernel, got.initrd, got.command_line


def test_kdump_tools_as_debian_ships_it() -> None:
    there = {"/var/lib/kdump/vmlinuz", "/var/lib/kdump/initrd.img"}
    assert found({TOOLS: DEBIAN}, there) == (
        "/var/lib/kdump/vmlinuz",
        "/var/lib/kdump/initrd.img",
        "root=/dev/sda1 ro quiet reset_devices systemd.unit=kdump-tools-dump.service nr_cpus=1"
        " irqpoll usbcore.nousb",
    )


def test_kdump_tools_without_names_takes_the_running_kernels() -> None:
    said = 'USE_KDUMP=1\nKDUMP_CMDLINE="root=/dev/sdb"\nKDUMP_CMDLINE_APPEND="1 nr_cpus=1"\n'
    kernel = "/boot/vmlinuz-6.1.0-57-amd64"
    assert found({TOOLS: said}, {kernel}) == (kernel, None, "root=/dev/sdb 1 nr_cpus=1")


def test_kdump_utils_as_fedora_ships_it() -> None:
    kernel = "/lib/modules/6.1.0-57-amd64/vmlinuz"
    initrd = "/var/lib/kdump/initramfs-6.1.0-57-amd64kdump.img"
    line = "root=/dev/sda1 ro irqpoll nr_cpus=1 reset_devices"
    assert found({UTILS: FEDORA}, {kernel, initrd}) == (kernel, initrd, line)


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "neither /etc/default/kdump-tools nor"),
        ({TOOLS: "USE_KDUMP=0\n"}, "no crash kernel is loaded"),
        ({TOOLS: DEBIAN}, "/var/lib/kdump/vmlinuz is not there"),
    ],
)
def test_what_loads_nothing_is_said(files: dict[str, str], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        found(files, set())


@given(st.text())
def test_any_text_is_a_list_of_assignments(text: str) -> None:
    assert all(name for name in assignments(text))


def test_the_modules_of_the_disk_under_the_root() -> None:
    links = {
        "/sys/dev/block/259:1": "/sys/devices/pci0/0000:00:02.0/nvme/nvme0/nvme0n1/nvme0n1p1",
        "/sys/devices/pci0/0000:00:02.0/driver/module": "/sys/module/nvme",
    }
    mounts = "22 1 0:20 / /proc rw - proc proc rw\n25 1 259:1 / / rw - ext4 /dev/nvme0n1p1 rw\n"
    assert root_modules(links.get, mounts) == {"nvme"}
    assert root_modules(links.get, "") == frozenset()
    assert root_modules(lambda path: None, mounts) == frozenset()
