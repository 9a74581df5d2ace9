"""Machines copied as trees, each condition of the field in another shape than `test_trees` has.

Trees are made; where two files contradict each other, the one that the kernel itself lives by wins.
"""

from __future__ import annotations

import struct

import pytest

from tests.makers import trees
from tests.makers.trees import GIB, MIB, Tree, iomem, kallsyms, machine, memmap
from tests.rehearse.runs import shipped_kernel
from tightrope import host
from tightrope.deeds.rehearse import rehearse
from tightrope.host.capture import capture
from tightrope.memory import Extent, RegionKind
from tightrope.model import Basis, Confidential, Host, Outcome, Paging
from tightrope.plan import Request

RELEASE, SYSTAB = "/proc/sys/kernel/osrelease", "/sys/firmware/efi/systab"
LINES = iomem().splitlines()
HIDDEN = "".join(f"00000000-00000000 : {each.split(' : ')[1]}\n" for each in LINES)


def captured(tree: Tree) -> Host:
    return host.read(capture(dict(tree)).toml, "captured")


def holds(old: Host) -> None:
    got = rehearse(shipped_kernel(), old, Request())
    assert (got.outcome, got.findings) == (Outcome.HOLDS, ())


def basis(old: Host, field: str) -> Basis:
    return {each.field: each.basis for each in old.facts}[field]


# ------------------------------------------------------------------------------- V since Linux 6.14


@pytest.mark.parametrize(
    ("release", "copied"),
    [
        ("6.13.0", False),
        ("6.13.12-300.fc41.x86_64", False),
        ("6.12.0-124.el10.x86_64", False),
        ("6.14.0-rc1", True),
        ("6.14.0", True),
        ("7.0.0", True),
        ("10.0.1", True),
    ],
)
def test_the_border_is_6_14(release: str, copied: bool) -> None:
    old = captured(machine() | {RELEASE: f"{release}\n"})
    assert (old.relocation is None) == copied
    assert basis(old, "relocation") is (Basis.DERIVED if copied else Basis.READ)


def test_a_symbol_that_says_data_is_believed_before_a_release_that_does_not() -> None:
    """A distribution's 6.12 with the code of 6.14."""
    old = captured(machine(kallsyms=kallsyms(relocate="d")) | {RELEASE: "6.12.0-200.el10\n"})
    assert (old.relocation, basis(old, "relocation")) == (None, Basis.DERIVED)


def test_without_symbols_and_release_v_is_assumed() -> None:
    assert basis(captured(machine(kallsyms="")), "relocation") is Basis.ASSUMED


# --------------------------------------------------------------------------------------- 5 levels


def kcore(*loads: tuple[int, int, int]) -> str:
    """The headers of /proc/kcore: (linear, physical, bytes)."""
    head = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 4, 62, 1, 0, 64, 0, 0, 64, 56, len(loads), 0, 0, 0
    )
    rows = [
        struct.pack("<IIQQQQQQ", 1, 7, 0x1000, virt, phys, size, size, 4096)
        for virt, phys, size in loads
    ]
    return (head + b"".join(rows)).decode("latin-1")


TEXT = (trees.TEXT_VIRT, trees.TEXT_PHYS, 0x200_0000)


@pytest.mark.parametrize("flags", ["", " la57"])
@pytest.mark.parametrize(
    ("direct", "paging"),
    [
        (0xFF11_0000_0000_0000, Paging.LA57),
        (0xFF2A_1234_4000_0000, Paging.LA57),
        (0xFFFF_8880_0000_0000, Paging.X86_64),
        (0xFFFF_9C3A_4000_0000, Paging.X86_64),
    ],
)
def test_where_the_direct_map_lies_says_how_many_levels_there_are(
    flags: str, direct: int, paging: Paging
) -> None:
    """Whatever flags /proc/cpuinfo shows: one was hidden, or is the CPU's and not the kernel's."""
    tree = machine(cpuinfo=trees.cpuinfo(trees.FLAGS + flags, 52))
    old = captured(tree | {"/proc/kcore": kcore((direct + MIB, MIB, 0x1000_0000), TEXT)})
    assert (old.paging, old.direct_map.virt) == (paging, direct)
    assert bool(old.cr4 & 1 << 12) == (paging is Paging.LA57)
    assert basis(old, "direct_map.virt") is Basis.READ
    holds(old)


def test_a_cpu_with_57_bits_and_no_flag_runs_with_4_levels() -> None:
    text = trees.cpuinfo(trees.FLAGS, 52).replace("48 bits virtual", "57 bits virtual")
    old = captured(machine(cpuinfo=text))
    assert (old.paging, old.cpu.la57, old.cr4 & 1 << 12) == (Paging.X86_64, False, 0)


# ------------------------------------------------------------------------------- EFI's systab


@pytest.mark.parametrize(
    ("text", "rsdp"),
    [
        ("ACPI=0x7ff00000\nACPI20=0x7ff00014\n", 0x7FF0_0014),
        ("SMBIOS3=0x7fe00000\nACPI20=0x7ff00014\nMPS=0x9f000\n", 0x7FF0_0014),
        ("ACPI=0x7ff00000\n", 0x7FF0_0000),
        ("ACPI20=0x0\nACPI=0x7ff00000\n", 0x7FF0_0000),
        ("ACPI20=0x0\nACPI=0x0\n", None),
        ("SMBIOS=0x7fe00000\n", None),
        ("ACPI20=7ff00014\n", None),
    ],
)
def test_the_newer_rsdp_that_is_one_is_taken(text: str, rsdp: int | None) -> None:
    for params in (trees.boot_params(rsdp=0), None):
        tree = machine(boot_params=params or "") | {SYSTAB: text}
        assert captured(tree).rsdp == rsdp
    # The loader's own word is what the running kernel used.
    assert captured(machine() | {SYSTAB: "ACPI20=0x7fe00014\n"}).rsdp == 0x7FF0_0014


# ---------------------------------------------------------------------------------------- memory

CXL = (
    "1080000000-207fffffff : CXL Window 0\n"
    "  1080000000-147fffffff : Soft Reserved\n"
    "    1080000000-147fffffff : dax0.0\n"
    "      1080000000-147fffffff : System RAM (kmem)\n"
    "  1480000000-207fffffff : Soft Reserved\n"
    "2080000000-217fffffff : Soft Reserved\n"
    "  2080000000-217fffffff : hmem.0\n"
)


def test_soft_reserved_memory_in_windows_and_devices_is_soft_reserved() -> None:
    told = captured(
        machine(iomem=iomem() + CXL)
        | memmap(
            *trees.FIRMWARE,
            (66 * GIB, 82 * GIB, "Soft Reserved"),
            (82 * GIB, 130 * GIB, "Soft Reserved"),
            (130 * GIB, 134 * GIB, "Soft Reserved"),
        )
    )
    alone = {
        path: text for path, text in machine(iomem=iomem() + CXL).items() if "memmap" not in path
    }
    for old in (told, captured(alone)):
        soft = [each.extent for each in old.memory if each.kind is RegionKind.SOFT_RESERVED]
        assert soft == [Extent(66 * GIB, 134 * GIB)]
        assert old.memory.ram[-1] == Extent(4 * GIB, 10 * GIB)
        holds(old)


def test_a_reserved_row_inside_ram_takes_it_away() -> None:
    inside = iomem().replace("80000000-80ff", "  7ff00000-7fffffff : Reserved\n80000000-80ff")
    tree = {path: text for path, text in machine(iomem=inside).items() if "memmap" not in path}
    old = captured(tree)
    assert old.memory.ram[1] == Extent(MIB, 0x7FF0_0000)
    assert old.memory.kind_at(0x7FF0_0000) is RegionKind.RESERVED
    holds(old)


@pytest.mark.parametrize("above", [True, False])
def test_of_several_low_crash_regions_each_is_ram_for_the_crash_kernel(above: bool) -> None:
    low = [(0x2000_0000, 0x2400_0000), (0x6000_0000, 0x7000_0000)]
    high = [(0x2_5000_0000, 0x2_6000_0000)] if above else []
    tree = machine(iomem=iomem([*low, *high])) | {"/sys/kernel/kexec_crash_size": "268435456\n"}
    old = captured(tree)
    *also, region = [Extent(*each) for each in (*low, *high)]
    assert old.crash_region == region
    assert [each.extent for each in old.crash_memory] == also


def test_a_crash_region_that_the_firmware_does_not_call_ram_is_left_out_and_said() -> None:
    """Rows that the command line added (memmap=1G@12G) are none of the firmware's."""
    beyond = "300000000-33fffffff : System RAM\n  300000000-30fffffff : Crash kernel\n"
    size = {"/sys/kernel/kexec_crash_size": "268435456\n"}
    tree = machine(iomem=iomem() + beyond) | size
    assert captured(tree).crash_region is None
    notes = capture(dict(tree)).notes
    assert "left out: a crash region at [0x300000000, 0x310000000), which is not all RAM" in notes
    within = machine(iomem=iomem([(0x2000_0000, 0x3000_0000)]) + beyond) | size
    assert captured(within).crash_region == Extent(0x2000_0000, 0x3000_0000)


LIMITED = [
    ("mem=2G", 4 * GIB, 10 * GIB),
    ("mem=2048M mem=8G", 4 * GIB, 10 * GIB),
    ("mem=0x80000000 mem=nopentium", 4 * GIB, 10 * GIB),
    ("memmap=0x80000000", 4 * GIB, 10 * GIB),
    ("mem=6G", 6 * GIB, 10 * GIB),
    ("memmap=64M$0x30000000", 0x3000_0000, 0x3400_0000),
    ("memmap=64M#0x30000000,1G!4G", 0x3000_0000, 0x3400_0000),
    ("memmap=64M%0x30000000-1+2", 0x3000_0000, 0x3400_0000),
    ("memmap=exactmap memmap=640K@0 memmap=2047M@1M", 4 * GIB, 10 * GIB),
]


@pytest.mark.parametrize(("words", "start", "end"), LIMITED, ids=[each[0] for each in LIMITED])
def test_with_iomem_hidden_the_command_line_says_what_the_kernel_leaves(
    words: str, start: int, end: int
) -> None:
    """Nothing is laid where the old kernel has no memory; the new one is told of all of it."""
    tree = machine(iomem=HIDDEN, cmdline=f"root=/dev/sda1 {words} -- mem=1M\n")
    old = captured(tree)
    left = [each.extent for each in old.busy if "does not use" in each.what]
    assert Extent(start, end) in left
    assert old.memory.ram[-1] == Extent(4 * GIB, 10 * GIB)
    got = rehearse(shipped_kernel(), old, Request())
    assert got.outcome is Outcome.HOLDS
    plan = got.handover.plan
    assert plan.control_page not in Extent(start, end)
    assert not any(frame << 12 in Extent(start, end) for frame in plan.sources.tolist())


@pytest.mark.parametrize(
    "words",
    [
        "mem=nopentium",
        "mem=16G",
        "mem=0",
        "memmap=1G@4G",
        "memmap=junk",
        "crashkernel=2G",
        "-- mem=2G",
    ],
)
def test_a_command_line_that_takes_nothing_away_takes_nothing_away(words: str) -> None:
    old = captured(machine(iomem=HIDDEN, cmdline=f"{words}\n"))
    assert not [each for each in old.busy if "does not use" in each.what]


def test_iomem_is_believed_before_the_command_line() -> None:
    """A loader's word that the kernel did not follow, or a limit above all there is."""
    old = captured(machine(cmdline="mem=2G\n"))
    assert not [each for each in old.busy if "does not use" in each.what]
    ram = ((0x1000, 0xA_0000), (MIB, 0x3000_0000), (0x3400_0000, 2 * GIB), (4 * GIB, 10 * GIB))
    old = captured(machine(iomem=iomem(ram=ram) + "30000000-33ffffff : Reserved\n"))
    [left] = [each.extent for each in old.busy if "does not use" in each.what]
    assert left == Extent(0x3000_0000, 0x3400_0000)
    holds(old)


# --------------------------------------------------------------------------- confidential guests


@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        ("tdx_guest", Confidential.TDX),
        ("hypervisor sev tdx_guest", Confidential.TDX),
        ("sev_snp hypervisor", Confidential.SNP),
        ("hypervisor sev_es", Confidential.ES),
        ("sev hypervisor sev_es", Confidential.ES),
        ("hypervisor sme", None),
        ("sme sev sev_es sev_snp", None),
    ],
)
def test_the_strictest_kind_of_guest_is_named(flags: str, kind: Confidential | None) -> None:
    old = captured(machine(cpuinfo=trees.cpuinfo(f"{trees.FLAGS} {flags}", 51)))
    assert old.confidential is kind
    assert ("confidential" in {each.field for each in old.assumed()}) == (kind is not None)


# ---------------------------------------------------------------------------------- a container


def test_zeros_of_one_file_do_not_hide_what_another_says() -> None:
    old = captured(machine(iomem=HIDDEN))
    assert basis(old, "memory") is Basis.READ
    assert old.relocation == trees.RELOCATE
    assert "text.phys" in {each.field for each in old.assumed()}
    symbols = "".join(f"{'0' * 16}{each[16:]}\n" for each in kallsyms().splitlines())
    old = captured(machine(kallsyms=symbols))
    assert old.text.phys == trees.TEXT_PHYS
    assert {"text.virt", "relocation"} <= {each.field for each in old.assumed()}
    rows = [(0, 1, "System RAM"), (0, 1, "System RAM"), (0, 1, "Reserved")]
    bare = {path: text for path, text in machine().items() if "memmap" not in path}
    old = captured(bare | memmap(*rows))
    assert old.memory.ram[1] == Extent(MIB, 2 * GIB)
    assert "memory" not in {each.field for each in old.assumed()}
