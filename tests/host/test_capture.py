"""Capturing a machine: what its files tell, what they hide, what is assumed, and that it rehearses.

Machines are made as trees of files; what was captured is read back by `host.read`.
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope import host, image, shipped
from tightrope.deeds.rehearse import rehearse
from tightrope.errors import HostError, PlanError
from tightrope.host.capture import capture, cpuinfo
from tightrope.host.capture.places import _in_use
from tightrope.host.capture.tree import BOOT_PARAMS, MEMMAP, PATHS, read_tree
from tightrope.memory import Extent, RegionKind
from tightrope.model import Host, Outcome, Paging
from tightrope.plan import Request

MIB, GIB = 1 << 20, 1 << 30
Files = dict[str, str | OSError]

IOMEM = """\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
0009fc00-0009ffff : Reserved
000f0000-000fffff : System ROM
00100000-7ffdffff : System RAM
  2e200000-2f202e86 : Kernel code
  2f400000-2fe0ffff : Kernel rodata
  30000000-302b7e7f : Kernel data
  3083c000-30ffffff : Kernel bss
  6f000000-7effffff : Crash kernel
7ffe0000-7fffffff : ACPI Tables
b0000000-bfffffff : PCI ECAM 0000 [bus 00-ff]
  b0000000-bfffffff : Reserved
fed1c000-fed1ffff : Reserved
100000000-17fffffff : System RAM
  17e000000-17effffff : Crash kernel
"""
KALLSYMS = """\
0000000000000000 A fixed_percpu_data
ffffffff9a200000 T _text
ffffffff9a200000 T _stext
ffffffff9ac01000 T relocate_kernel
ffffffff9d000000 B _end
ffffffffc0201000 t relocate_kernel\t[trap]
"""
FLAGS = "fpu vme de pse msr pae pge nx pdpe1gb lm fsgsbase smep smap umip pcid xsave"
CPUINFO = f"""\
processor\t: 0
flags\t\t: {FLAGS}
address sizes\t: 46 bits physical, 48 bits virtual
"""
MEMINFO = """\
MemTotal:        4000000 kB
MemFree:         1000000 kB
MemAvailable:    3000000 kB
DirectMap4k:      100000 kB
DirectMap2M:     3900000 kB
DirectMap1G:           0 kB
"""
DENIED = PermissionError(errno.EACCES, "Permission denied")
ABSENT = FileNotFoundError(errno.ENOENT, "No such file or directory")


def memmap(*rows: tuple[int, int, str]) -> Files:
    """/sys/firmware/memmap with these (start, last byte, type)."""
    files: Files = {}
    for number, (start, last, kind) in enumerate(rows):
        for key, value in (("start", f"{start:#x}"), ("end", f"{last:#x}"), ("type", kind)):
            files[f"{MEMMAP}/{number}/{key}"] = f"{value}\n"
    return files


def kcore(text: int, phys: int, direct: int) -> str:
    """The start of /proc/kcore: text, vmalloc (no physical address), RAM."""
    loads = [
        (text, phys, 46 * MIB),
        (0xFFFF_C900_0000_0000, (1 << 64) - 1, 1 << 45),
        (direct + 0x1000, 0x1000, 0x9E000),
    ]
    head = b"\x7fELF\x02\x01\x01".ljust(32, b"\0") + struct.pack("<QQIHHH", 64, 0, 0, 64, 56, 3)
    data = head.ljust(64, b"\0")
    for virt, where, size in loads:
        data += struct.pack("<IIQQQQQQ", 1, 7, virt & 0xFFFF_FFFF, virt, where, size, size, 4096)
    return data.decode("latin-1")


def zero_page(*, rsdp: int = 0, efi: bool = False) -> str:
    """The old kernel's boot_params, with the memory map of the machine below."""
    page = bytearray(4096)
    struct.pack_into("<Q", page, 0x70, rsdp)
    rows = [
        (0, 0x9FC00, 1),
        (0x9FC00, 0x400, 2),
        (MIB, 0x7FFE_0000 - MIB, 1),
        (0x7FFE_0000, 0x2_0000, 3),
        (3 * GIB, 4096, 99),
        (4 * GIB, 2 * GIB, 1),
    ]
    page[0x1E8] = len(rows)
    for number, row in enumerate(rows):
        struct.pack_into("<QQI", page, 0x2D0 + 20 * number, *row)
    if efi:
        struct.pack_into("<4s7I", page, 0x1C0, b"EL64", 0x7F00_0018, 48, 1, 0x7E00_0000, 480, 1, 0)
    return page.decode("latin-1")


def as_root() -> Files:
    """A 4 GiB PC with KASLR and two crash regions, as root sees it."""
    return {
        "/proc/cmdline": "root=/dev/vda1 crashkernel=256M\n",
        "/proc/cpuinfo": CPUINFO,
        "/proc/iomem": IOMEM,
        "/proc/kallsyms": KALLSYMS,
        "/proc/kcore": kcore(0xFFFF_FFFF_9A20_0000, 0x2E20_0000, 0xFFFF_9A58_4000_0000),
        "/proc/meminfo": MEMINFO,
        "/proc/sys/kernel/kexec_load_disabled": "0\n",
        BOOT_PARAMS: zero_page(rsdp=0xF_5A40),
        "/sys/hypervisor/type": ABSENT,
        "/sys/kernel/kexec_crash_loaded": "1\n",
        "/sys/kernel/kexec_crash_size": f"{256 * MIB}\n",
        "/sys/kernel/kexec_loaded": "0\n",
        "/sys/kernel/security/lockdown": "[none] integrity confidentiality\n",
        **memmap(
            (0, 0x9FBFF, "System RAM"),
            (0x9FC00, 0x9FFFF, "Reserved"),
            (MIB, 0x7FFD_FFFF, "System RAM"),
            (0x7FFE_0000, 0x7FFF_FFFF, "ACPI Tables"),
            (4 * GIB, 6 * GIB - 1, "System RAM"),
        ),
    }


def as_nobody() -> Files:
    """The same machine without privileges: zeros where addresses were."""
    hidden_map: Files = {path: DENIED for path in as_root() if path.startswith(MEMMAP)}
    lines = [f"00000000-00000000 : {line.split(' : ')[1]}" for line in IOMEM.splitlines()]
    symbols = [f"{'0' * 16}{line[16:]}" for line in KALLSYMS.splitlines()]
    return (
        as_root()
        | hidden_map
        | {
            "/proc/iomem": "\n".join(lines) + "\n",
            "/proc/kallsyms": "\n".join(symbols) + "\n",
            "/proc/kcore": DENIED,
        }
    )


def captured(files: Files) -> tuple[Host, tuple[str, ...], str]:
    """The host, the notes, the file."""
    got = capture(files)
    return host.read(got.toml, "captured"), got.notes, got.toml


def noted(notes: tuple[str, ...], words: str) -> bool:
    return any(words in note for note in notes)


def test_roots_view_is_taken_as_it_is() -> None:
    machine, notes, toml = captured(as_root())
    assert (machine.text.virt, machine.text.phys) == (0xFFFF_FFFF_9A20_0000, 0x2E20_0000)
    assert machine.text.size == 0x3100_0000 - 0x2E20_0000
    assert machine.relocation == 0xFFFF_FFFF_9AC0_1000
    assert (machine.direct_map.virt, machine.direct_map.page_size) == (
        0xFFFF_9A58_4000_0000,
        2 * MIB,
    )
    # The highest is where the image goes, whatever its size; the low one is RAM for it.
    assert machine.crash_region == Extent(0x17E00_0000, 0x17F00_0000)
    assert [each.extent for each in machine.crash_memory] == [Extent(0x6F00_0000, 0x7F00_0000)]
    assert machine.rsdp == 0xF_5A40
    assert machine.cpu.physical_bits == 46
    assert machine.cpu.gbpages
    assert not machine.cpu.la57
    assert machine.cr4 == 0x37_0EF0
    assert machine.memory.kind_at(0x7FFE_0000) is RegionKind.ACPI
    assert not noted(notes, "could not read")
    assert not noted(notes, "zeros")
    assert "relocation = 0xffff_ffff_9ac0_1000  # /proc/kallsyms (relocate_kernel)" in toml
    assert "a crash kernel is loaded: yes" in toml


def test_what_is_in_use_is_busy_as_far_as_it_is_told() -> None:
    machine, notes, _ = captured(as_root())
    in_use = [each.extent for each in machine.busy if each.what == "memory in use"]
    # Rounded up to a sixteenth of the memory, since where it lies is assumed anyway.
    assert sum(each.size for each in in_use) == 1 << 30
    taken = [
        machine.private,
        machine.crash_region,
        Extent.sized(machine.text.phys, machine.text.size),
    ]
    assert not any(a.overlaps(b) for a in in_use for b in taken if b is not None)
    assert noted(notes, "lowest addresses")


@pytest.mark.parametrize(
    ("total", "free", "used"),
    [
        (4 << 30, 3 << 30, 1 << 30),
        (4 << 30, (3 << 30) - 4096, (1 << 30) + (256 << 20)),
        (4 << 30, (3 << 30) + 4096, 1 << 30),
        (4 << 30, 4096, (4 << 30) - 4096),  # rounded up nothing would be free
        (4 << 30, 4 << 30, 0),
        (4 << 30, 5 << 30, 0),
    ],
)
def test_what_is_in_use_is_a_round_number_that_leaves_enough(
    total: int, free: int, used: int
) -> None:
    meminfo = f"MemTotal: {total >> 10} kB\nMemAvailable: {free >> 10} kB\nDirectMap1G: 1 kB\n"
    assert (
        _in_use(*(cpuinfo.meminfo(meminfo)[each] for each in ("MemTotal", "MemAvailable"))) == used
    )


def test_zeros_are_hidden_values_not_addresses() -> None:
    machine, notes, toml = captured(as_nobody())
    for path in ("/proc/iomem", "/proc/kallsyms"):
        assert noted(notes, f"{path} shows zeros")
    assert noted(notes, "could not read /proc/kcore: Permission denied")
    assert noted(notes, f"could not read {MEMMAP}: Permission denied")
    # The zero page is readable by everyone and has the map.
    assert "The memory map: /sys/kernel/boot_params/data" in toml
    assert machine.memory.ram[1] == Extent(MIB, 0x7FFE_0000)
    assert machine.memory.kind_at(3 * GIB) is RegionKind.RESERVED
    assert machine.text.virt == 0xFFFF_FFFF_8100_0000
    assert noted(notes, "assumed: the kernel's text mapped at 0xffffffff81000000")
    assert noted(notes, "assumed: the relocation code")
    # The size of the crash region is no secret; its place is.
    assert machine.crash_region is not None
    assert machine.crash_region.size == 256 * MIB
    assert noted(notes, "assumed: the crash region")


def test_every_assumption_is_in_the_notes_and_beside_its_field() -> None:
    for files in (as_root(), as_nobody()):
        _, notes, toml = captured(files)
        beside = {
            line.partition("  # ")[2] for line in toml.splitlines() if "  # assumed: " in line
        }
        assert beside <= set(notes)
        assert all(f"# note: {note}" in toml for note in notes)


def test_hidden_firmware_memmap_is_recognised() -> None:
    zeros = memmap(*[(0, 0, "System RAM")] * 3)
    files = {path: got for path, got in as_root().items() if not path.startswith(MEMMAP)} | zeros
    _, notes, toml = captured(files)
    assert noted(notes, f"{MEMMAP} shows zeros")
    assert f"The memory map: {BOOT_PARAMS}" in toml


def test_without_a_firmware_map_iomem_serves() -> None:
    files = {path: got for path, got in as_root().items() if not path.startswith(MEMMAP)}
    files |= {MEMMAP: ABSENT, BOOT_PARAMS: ABSENT}
    machine, notes, toml = captured(files)
    assert noted(notes, f"could not read {MEMMAP}: No such file")
    assert "The memory map: /proc/iomem" in toml
    assert machine.memory.ram[0] == Extent(0x1000, 0x9FC00)
    # A bus is not memory; a row of the firmware's inside one is, as kexec-tools reads it.
    assert machine.memory.kind_at(0xB000_0000) is RegionKind.RESERVED
    assert machine.memory.kind_at(0xA000_0000) is None
    assert machine.rsdp is None


def test_with_nothing_but_meminfo_a_pc_is_assumed() -> None:
    machine, notes, _ = captured({"/proc/cpuinfo": CPUINFO, "/proc/meminfo": MEMINFO})
    assert noted(notes, "assumed: a PC's memory map")
    assert sum(each.size for each in machine.memory.ram) >= 4000000 << 10
    assert noted(notes, "could not read /proc/kallsyms: not among the files")


def test_without_any_word_about_ram_there_is_no_host() -> None:
    with pytest.raises(HostError, match="no file says where RAM is"):
        capture({})
    with pytest.raises(HostError, match="no x86_64 CPU"):
        capture(as_root() | {"/proc/cpuinfo": "processor : 0\nFeatures : fp asimd\n"})
    with pytest.raises(HostError, match="not an x86_64 kernel's"):
        capture(as_root() | {"/proc/kallsyms": "c1000000 T _text\n"})


def test_the_direct_map_comes_from_kcore_and_is_assumed_without_it() -> None:
    machine, notes, _ = captured(as_root() | {"/proc/kcore": DENIED})
    assert machine.direct_map.virt == 0xFFFF_8880_0000_0000
    assert noted(notes, "assumed: the direct map")
    # Before 4.19 the physical addresses in it were zeros.
    old = kcore(0xFFFF_FFFF_9A20_0000, 0, 0xFFFF_9A58_4000_0000).replace(
        "\0\x10\0\0\0\0\0\0", "\0" * 8
    )
    machine, notes, _ = captured(as_root() | {"/proc/kcore": old})
    assert machine.direct_map.virt == 0xFFFF_8880_0000_0000


def test_without_kallsyms_kcore_tells_where_the_text_is() -> None:
    machine, notes, _ = captured(as_root() | {"/proc/kallsyms": ABSENT, "/proc/iomem": DENIED})
    assert (machine.text.virt, machine.text.phys) == (0xFFFF_FFFF_9A20_0000, 0x2E20_0000)
    assert machine.text.size == 46 * MIB
    assert noted(notes, "could not read /proc/kallsyms: No such file")
    assert noted(notes, "assumed: the relocation code")


def test_five_levels_are_five_levels() -> None:
    five = CPUINFO.replace("nx ", "nx la57 ").replace(
        "46 bits physical, 48", "52 bits physical, 57"
    )
    files = as_root() | {
        "/proc/cpuinfo": five,
        "/proc/kcore": kcore(0xFFFF_FFFF_9A20_0000, 0x2E20_0000, 0xFF11_0000_0000_0000),
    }
    machine, _, _ = captured(files)
    assert (machine.paging, machine.cpu.la57) == (Paging.LA57, True)
    assert machine.cr4 & 1 << 12
    assert machine.direct_map.virt == 0xFF11_0000_0000_0000
    # no5lvl: the kernel runs with 4, and an old one shows the flag all the same.
    files["/proc/kcore"] = kcore(0xFFFF_FFFF_9A20_0000, 0x2E20_0000, 0xFFFF_8880_0000_0000)
    four, _, _ = captured(files | {"/proc/cmdline": "no5lvl\n"})
    assert (four.paging, four.cr4 & 1 << 12) == (Paging.X86_64, 0)


def test_a_virtual_machine_xen_and_a_lockdown_are_said() -> None:
    _, notes, toml = captured(
        as_root()
        | {
            "/proc/cpuinfo": CPUINFO.replace("nx ", "nx hypervisor "),
            "/sys/hypervisor/type": "xen\n",
            "/proc/xen/capabilities": ABSENT,
            "/sys/hypervisor/guest_type": ABSENT,
            "/sys/kernel/security/lockdown": "none [integrity] confidentiality\n",
            "/sys/kernel/kexec_loaded": ABSENT,
        }
    )
    assert "a virtual machine" in toml
    assert "lockdown: none [integrity] confidentiality" in toml
    for words in (
        "in a PV guest all of these addresses are pseudo-physical",
        "locked down",
        "offers no kexec",
    ):
        assert noted(notes, words)


@pytest.mark.parametrize(
    ("kind", "capabilities", "says"),
    [
        ("PV\n", "control_d\n", "this is the dom0 of a Xen: .* pseudo-physical"),
        ("PVH\n", "control_d\n", "this is the dom0 of a Xen"),
        (ABSENT, "control_d\n", "this is the dom0 of a Xen"),
        ("PV\n", "", "this is a PV guest of a Xen: .* pseudo-physical"),
        ("PV\n", ABSENT, "this is a PV guest of a Xen"),
    ],
)
def test_pseudo_physical_memory_is_not_described_as_the_machines(
    kind: str | OSError, capabilities: str | OSError, says: str
) -> None:
    files = as_root() | {
        "/sys/hypervisor/type": "xen\n",
        "/sys/hypervisor/guest_type": kind,
        "/proc/xen/capabilities": capabilities,
    }
    with pytest.raises(HostError, match=says) as caught:
        capture(files)
    assert "tightrope perform xen --json" in str(caught.value)


@pytest.mark.parametrize("kind", ["HVM", "PVH"])
def test_a_guest_with_a_machine_of_its_own_is_captured(kind: str) -> None:
    files = as_root() | {
        "/sys/hypervisor/type": "xen\n",
        "/sys/hypervisor/guest_type": f"{kind}\n",
        "/proc/xen/capabilities": "\n",
    }
    _, notes, _ = captured(files)
    assert noted(notes, f"gives this guest ({kind}) a machine of its own")


@pytest.mark.parametrize(
    ("line", "told", "image", "low"),
    [
        ("crashkernel=192M", 192, (4 * GIB - 2 * GIB, 192), None),
        # 6.12 counts both, 6.1 the image's alone.
        ("crashkernel=192M,high crashkernel=72M,low", 264, (6 * GIB, 192), 72),
        ("crashkernel=192M,high crashkernel=72M,low", 192, (6 * GIB, 192), 72),
        ("crashkernel=192M,high", 448, (6 * GIB, 192), 256),
        ("crashkernel=192M,high", 192, (6 * GIB, 192), 256),
        ("crashkernel=192M,high crashkernel=0,low", 192, (6 * GIB, 192), None),
        # It did not fit below 4 GiB; of several the last one counts.
        ("crashkernel=64M crashkernel=0x300M", 768 + 256, (6 * GIB, 768), 256),
        # Not in a form that says its size.
        ("crashkernel=2G-:192M crashkernel=1G-2G:64M,2G-:192M", 192, (2 * GIB, 192), None),
        (
            "crashkernel=192M@64M crashkernel=12Q,low crashkernel=" + 5000 * "9",
            192,
            (2 * GIB, 192),
            None,
        ),
    ],
)
def test_of_two_crash_regions_whose_places_nobody_tells_both_are_assumed(
    line: str, told: int, image: tuple[int, int], low: int | None
) -> None:
    """`image`: below what it lies, and its MiB."""
    files = as_nobody() | {
        "/proc/cmdline": f"root=/dev/vda1 {line}\n",
        "/sys/kernel/kexec_crash_size": f"{told * MIB}\n",
    }
    machine, notes, toml = captured(files)
    assert machine.crash_region is not None
    end, size = image
    assert machine.crash_region.size == size * MIB
    assert end - 64 * MIB < machine.crash_region.end <= end
    beside = [each.extent for each in machine.crash_memory]
    assert [each.size for each in beside] == ([] if low is None else [low * MIB])
    assert all(each.end <= 4 * GIB and not each.overlaps(machine.crash_region) for each in beside)
    assert noted(notes, "assumed: the low part of the crash region") == bool(beside)
    assert ("Crash kernel) and crash_cma_ranges" in toml) is False


def test_a_crashkernel_that_nobody_places_is_said() -> None:
    files = as_nobody() | {"/sys/kernel/kexec_crash_size": ABSENT}
    machine, notes, _ = captured(files)
    assert machine.crash_region is None
    assert noted(notes, "crashkernel= is on the command line")


def test_efi_tables_are_firmware() -> None:
    machine, _, _ = captured(as_root() | {BOOT_PARAMS: zero_page(efi=True)})
    found = {each.what: each.extent for each in machine.firmware}
    assert found["EFI system table"].start == 0x1_7F00_0018
    assert found["EFI memory map"] == Extent.sized(0x7E00_0000, 480)


def test_overlapping_entries_become_a_map_in_which_ram_gives_way() -> None:
    files = as_root() | memmap(
        (0, 6 * GIB - 1, "System RAM"),
        (0x9FC00, 0xFFFFF, "Reserved"),
        (0x7FFE_0000, GIB * 4 - 1, "Whatever"),
        (0x7FFF_0000, 0x7FFF_FFFF, "ACPI Non-volatile Storage"),
        (4 * GIB, 6 * GIB - 1, "System RAM"),
    )
    machine, _, _ = captured(files)
    assert machine.memory.ram == (
        Extent(0, 0x9FC00),
        Extent(MIB, 0x7FFE_0000),
        Extent(4 * GIB, 6 * GIB),
    )
    assert machine.memory.kind_at(0x7FFF_0000) is RegionKind.NVS
    assert machine.memory.kind_at(3 * GIB) is RegionKind.RESERVED


def test_the_same_files_give_the_same_text() -> None:
    files = as_root()
    assert capture(files) == capture(dict(reversed(files.items())))


def test_a_made_tree_is_read_with_its_errors(tmp_path: Path) -> None:
    files = as_root()
    for path, got in files.items():
        if isinstance(got, str):
            (tmp_path / path[1:]).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path[1:]).write_bytes(got.encode("latin-1"))
    found = read_tree(str(tmp_path))
    assert capture(found) == capture(files)
    assert isinstance(found["/sys/hypervisor/type"], FileNotFoundError)
    assert isinstance(read_tree(str(tmp_path / "absent"))[MEMMAP], FileNotFoundError)


@pytest.mark.parametrize("files", [as_root(), as_nobody()], ids=["root", "nobody"])
def test_a_made_machine_is_rehearsable(files: Files) -> None:
    assert rehearsed(host.read(capture(files).toml, "made")) is Outcome.HOLDS


# -------------------------------------------------------------------------------------- garbage

PIECES = st.sampled_from(
    [*IOMEM.splitlines(), *KALLSYMS.splitlines(), *CPUINFO.splitlines(), *MEMINFO.splitlines()]
)
GARBAGE = (
    st.text(st.characters(max_codepoint=255), max_size=60)
    | st.lists(PIECES, max_size=12).map("\n".join)
    | st.integers(0, 1 << 70).map(hex)
    | st.integers(0, 1 << 70).map(str)
    | st.sampled_from([DENIED, ABSENT, OSError()])
)


@given(st.dictionaries(st.sampled_from(sorted([*as_root(), MEMMAP])), GARBAGE, max_size=8))
def test_any_contents_give_a_readable_host_or_a_host_error(garbage: Files) -> None:
    for files in (as_root() | garbage, garbage):
        try:
            found = capture(files)
        except HostError:
            continue
        assert host.read(found.toml, "captured").memory.ram
        assert all(note.isprintable() for note in found.notes)


@given(
    st.lists(st.tuples(st.integers(0, 0xD00), st.binary(max_size=40)), max_size=8),
    st.binary(max_size=400),
)
def test_any_binary_file_gives_a_readable_host_or_a_host_error(
    patches: list[tuple[int, bytes]], core: bytes
) -> None:
    page = bytearray(zero_page().encode("latin-1"))
    for at, data in patches:
        page[at : at + len(data)] = data
    head = b"\x7fELF\x02\x01\x01".ljust(32, b"\0") + struct.pack("<QQIHHH", 64, 0, 0, 64, 56, 9)
    files = as_nobody() | {
        BOOT_PARAMS: page.decode("latin-1"),
        "/proc/kcore": (head.ljust(64, b"\0") + core).decode("latin-1"),
    }
    try:
        found = capture(files)
    except HostError:
        return
    assert host.read(found.toml, "captured").memory.ram


# ------------------------------------------------------------------------------------ this machine


def rehearsed(old: Host) -> Outcome:
    """The shipped kernel, walked to its first instruction."""
    initrd = shipped.example_initrd()
    request = Request(
        initrd=initrd, initrd_source="initrd", command_line=shipped.initrd_argument(initrd)
    )
    return rehearse(image.read(shipped.read(), "the shipped kernel"), old, request).outcome


def test_this_machine_is_captured_without_being_changed_and_rehearses() -> None:
    files = read_tree()
    assert set(PATHS) <= set(files)
    assert isinstance(files["/proc/meminfo"], str)
    machine, notes, _ = captured(files)
    total = next(
        line for line in files["/proc/meminfo"].splitlines() if line.startswith("MemTotal")
    )
    assert sum(each.size for each in machine.memory.ram) >= int(total.split()[1]) << 10
    cpu = files["/proc/cpuinfo"]
    if isinstance(cpu, str):
        assert f"{machine.cpu.physical_bits} bits physical" in cpu
    if os.geteuid():
        assert notes
    try:
        assert rehearsed(machine) is Outcome.HOLDS
    except PlanError:
        # Where most memory is in use there may be no room, and then that is the whole reason.
        assert rehearsed(replace(machine, busy=())) is Outcome.HOLDS
