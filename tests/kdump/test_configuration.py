"""Which crash kernel a machine would load, by the files of kdump-tools and kdump-utils."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.errors import BadInput
from tightrope.kdump import target
from tightrope.kdump.configuration import (
    TOOLS,
    UTILS,
    assignments,
    configured,
    needed_modules,
    root_modules,
)
from tightrope.kdump.target import UTILS_CONF, Place, Target, of_tools, of_utils

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


def test_without_a_kernel_its_initrd_is_the_running_kernels_whatever_is_said() -> None:
    said = "USE_KDUMP=1\nKDUMP_INITRD=/own/initrd\nKDUMP_CMDLINE=a\nKDUMP_CMDLINE_APPEND=b\n"
    there = {"/own/initrd", "/boot/vmlinux-6.1.0-57-amd64", "/boot/initrd.img-6.1.0-57-amd64"}
    assert found({TOOLS: said}, there) == (
        "/boot/vmlinux-6.1.0-57-amd64",
        "/boot/initrd.img-6.1.0-57-amd64",
        "a b",
    )


def test_with_a_kernel_and_no_initrd_none_is_loaded_and_one_that_is_not_there_loads_nothing() -> (
    None
):
    said = "USE_KDUMP=1\nKDUMP_KERNEL=/own/kernel\nKDUMP_CMDLINE=a\nKDUMP_CMDLINE_APPEND=b\n"
    there = {"/own/kernel", "/boot/initrd.img-6.1.0-57-amd64"}
    assert found({TOOLS: said}, there) == ("/own/kernel", None, "a b")
    own = f"{said}KDUMP_INITRD=/own/initrd\n"
    assert found({TOOLS: own}, {*there, "/own/initrd"}) == ("/own/kernel", "/own/initrd", "a b")
    with pytest.raises(BadInput, match="/own/initrd is not there: kdump-config loads no crash"):
        found({TOOLS: own}, there)


def test_what_an_earlier_line_assigned_is_put_in_and_what_a_shell_works_out_is_not_guessed() -> (
    None
):
    kernel = "/boot/vmlinuz-6.1.0-57-amd64"
    said = 'USE_KDUMP=1\nMORE="nr_cpus=1 irqpoll"\nKDUMP_CMDLINE=r\nKDUMP_CMDLINE_APPEND="$MORE ${MORE}x"\n'
    assert found({TOOLS: said}, {kernel})[2] == "r nr_cpus=1 irqpoll nr_cpus=1 irqpollx"
    for value in ("$(uname -r)", "`uname -r`", "$NOWHERE", "${MORE:-x}"):
        for name in ("KDUMP_KERNEL", "KDUMP_CMDLINE_APPEND", "KDUMP_CMDLINE"):
            with pytest.raises(BadInput, match="is for a shell to work out: name --kernel"):
                found({TOOLS: f'USE_KDUMP=1\n{name}="{value}"\n'}, {kernel})
        # What is not asked for may be anything.
        assert found({TOOLS: f'USE_KDUMP=1\nOTHER="{value}"\n'}, {kernel})[0] == kernel
        with pytest.raises(BadInput, match="KDUMP_KERNELVER"):
            found({UTILS: f'KDUMP_KERNELVER="{value}"\n'}, {kernel})


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
        "/sys/module/nvme/initstate": "/sys/module/nvme/initstate",
    }
    mounts = "22 1 0:20 / /proc rw - proc proc rw\n25 1 259:1 / / rw - ext4 /dev/nvme0n1p1 rw\n"
    assert root_modules(links.get, mounts) == {"nvme"}
    assert root_modules(links.get, "") == frozenset()
    assert root_modules(lambda path: None, mounts) == frozenset()
    # A driver that is built in is in no initrd.
    del links["/sys/module/nvme/initstate"]
    assert root_modules(links.get, mounts) == frozenset()


CONF = """# as kdump-utils ships it
#raw /dev/vg/lv_kdump
path /var/crash
core_collector makedumpfile -l --message-level 7 -d 31
"""


@pytest.mark.parametrize(
    ("text", "place", "where", "folder", "collector"),
    [
        (None, Place.ROOT, "", "/var/crash", "makedumpfile -l --message-level 7 -d 31"),
        (CONF, Place.ROOT, "", "/var/crash", "makedumpfile -l --message-level 7 -d 31"),
        (
            "ext4 UUID=03138356-5e61-4ab3-b58e-27507ac41937\npath\t/dumps  # there",
            Place.DEVICE, "UUID=03138356-5e61-4ab3-b58e-27507ac41937", "/dumps",
            "makedumpfile -l --message-level 7 -d 31",
        ),
        ("raw /dev/sdb1", Place.RAW, "/dev/sdb1", "/var/crash", "makedumpfile -F -l --message-level 7 -d 31"),
        ("nfs s:/export\ncore_collector cp", Place.NFS, "s:/export", "/var/crash", "cp"),
        ("ssh u@s\nsshkey /etc/k", Place.SSH, "u@s", "/var/crash", "makedumpfile -F -l --message-level 7 -d 31"),
        (
            'dracut_args --omit "cfg80211 snd" --add "ifcfg"\nfailure_action shell', Place.ROOT, "",
            "/var/crash", "makedumpfile -l --message-level 7 -d 31",
        ),
        (
            'dracut_args --mount "/dev/sdc1 /mnt xfs defaults"', Place.DEVICE, "/dev/sdc1",
            "/var/crash", "makedumpfile -l --message-level 7 -d 31",
        ),
    ],
)  # fmt: skip
def test_where_kdump_utils_saves_a_dump(
    text: str | None, place: Place, where: str, folder: str, collector: str
) -> None:
    assert of_utils(text) == Target(place=place, where=where, folder=folder, collector=collector)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nfs s:/export\nssh u@s", "more than one target"),
        ("path /a\npath /b", "said twice"),
        ("path", "without a value"),
        ("net u@s", "is gone"),
    ],
)
def test_what_kdumpctl_refuses_loads_nothing(text: str, why: str) -> None:
    kernel = "/boot/vmlinuz-6.1.0-57-amd64"
    with pytest.raises(BadInput, match=why):
        found({UTILS: FEDORA, UTILS_CONF: text}, {kernel})


def test_kdump_conf_alone_is_a_configuration() -> None:
    kernel = "/boot/vmlinuz-6.1.0-57-amd64"
    files = {UTILS_CONF: "nfs s:/export", **MACHINE}
    got = configured(files.get, {kernel}.__contains__)
    assert (got.kernel, got.target.place) == (kernel, Place.NFS)


def test_where_kdump_tools_saves_a_dump() -> None:
    shipped = of_tools(assignments(DEBIAN))
    assert (shipped.place, shipped.folder) == (Place.ROOT, "/var/crash")
    said = 'SSH="u@s"\nNFS="s:/x"\nMAKEDUMP_ARGS="-c -d 1"\nKDUMP_COREDIR=/dumps\n'
    there = of_tools(assignments(said))
    assert (there.place, there.where, there.folder) == (Place.SSH, "u@s", "/dumps")
    assert there.collector == "makedumpfile -c -d 1 -F"
    assert of_tools({"MAKEDUMP_ARGS": "-F -l"}).collector == "makedumpfile -F -l"


def test_the_modules_of_a_target_are_its_disks_and_those_asked_for() -> None:
    links = {
        "/dev/disk/by-uuid/1": "/dev/sdb1",
        "/sys/class/block/sdb1": "/sys/devices/pci0/0000:00:03.0/ata1/host0/block/sdb/sdb1",
        "/sys/devices/pci0/0000:00:03.0/driver/module": "/sys/module/ata-piix",
        "/sys/module/ata-piix/initstate": "x",
    }
    saves = of_utils("xfs UUID=1\nextra_modules gfs2 dm-multipath")
    assert needed_modules(links.get, "", saves) == {"ata_piix", "gfs2", "dm_multipath"}
    assert needed_modules(links.get, "", of_utils("ssh u@s\nextra_modules e1000")) == {"e1000"}
    assert needed_modules(lambda path: None, "", of_utils("raw /dev/sdb1")) == frozenset()
    assert target.device('LABEL="x"') == "/dev/disk/by-label/x"
    assert target.device("/dev/sdb1") == "/dev/sdb1"


@given(st.text())
def test_any_kdump_conf_is_a_target_or_a_refusal(text: str) -> None:
    with contextlib.suppress(BadInput):
        assert of_utils(text).folder
