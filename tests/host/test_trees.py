"""Machines copied as trees of /proc and /sys: each condition of the field is captured for what it is.

Trees are made; they go through the command's door, and what came out is read back by `host.read`.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from tests.makers import trees
from tests.makers.trees import GIB, MIB, Tree, kallsyms, machine, memmap, plant
from tests.rehearse.runs import shipped_kernel
from tightrope import host
from tightrope.cli import main
from tightrope.deeds.rehearse import rehearse
from tightrope.host.capture import capture, read_copy
from tightrope.memory import Extent, RegionKind
from tightrope.model import Basis, Confidential, Host, Outcome, Paging, Verdict
from tightrope.plan import Request


def captured(folder: Path, tree: Tree) -> Host:
    """What `host capture --from DIR -o FILE` wrote."""
    out = folder / "host.toml"
    assert (
        main(["host", "capture", "--from", str(plant(folder / "tree", tree)), "-o", str(out)]) == 0
    )
    return host.read(out.read_text(), "captured")


def walked(old: Host, request: Request | None = None) -> Verdict:
    return rehearse(shipped_kernel(), old, request or Request())


def basis(old: Host, field: str) -> Basis:
    return {each.field: each.basis for each in old.facts}[field]


def source(old: Host, field: str) -> str:
    """Where a field comes from."""
    return {each.field: each.source for each in old.facts}[field]


def test_an_ordinary_machine_is_as_it_says(tmp_path: Path) -> None:
    old = captured(tmp_path, machine())
    assert (old.paging, old.relocation) == (Paging.X86_64, trees.RELOCATE)
    assert (old.text.virt, old.text.phys) == (trees.TEXT_VIRT, trees.TEXT_PHYS)
    assert old.memory.ram == tuple(Extent(*place) for place in trees.RAM)
    assert old.rsdp == 0x7FF0_0014
    assert old.cr4 == 0x37_0EF0
    assert (old.confidential, old.preserved, old.crash_memory) == (None, (), ())
    assert {each.field for each in old.assumed()} == {"private", "busy", "direct_map.virt"}
    assert walked(old).outcome is Outcome.HOLDS


# ------------------------------------------------------------------------------- V since Linux 6.14


@pytest.mark.parametrize(
    ("tree", "why"),
    [
        pytest.param(machine(kallsyms=kallsyms(relocate="d")), "is data", id="its letter"),
        pytest.param(
            machine(kallsyms=kallsyms((trees.RELOCATE + 8, "T", "kexec_va_control_page"))),
            "kexec_va_control_page",
            id="a variable of the control page",
        ),
        pytest.param(
            machine(kallsyms=kallsyms().replace("90080000 T reloc", "91610b00 T reloc")),
            "Kernel data",
            id="its place",
        ),
        pytest.param(
            machine() | {"/proc/sys/kernel/osrelease": "6.14.0-arch1\n"}, "Linux 6.14", id="6.14"
        ),
        pytest.param(
            machine(kallsyms="") | {"/proc/sys/kernel/osrelease": "7.3.4+deb14-amd64\n"},
            "Linux 7.3",
            id="7.3 without symbols",
        ),
    ],
)
def test_v_is_in_the_direct_map_where_relocate_kernel_is_data(
    tree: Tree, why: str, tmp_path: Path
) -> None:
    old = captured(tmp_path, tree)
    assert old.relocation is None
    [fact] = [each for each in old.facts if each.field == "relocation"]
    assert fact.basis is Basis.DERIVED
    assert why in fact.source
    assert walked(old).outcome is Outcome.HOLDS


@pytest.mark.parametrize("release", ["6.13.12", "6.1.0-18-amd64", "5.15.200", "6.9"])
def test_before_that_v_is_in_the_text(release: str, tmp_path: Path) -> None:
    old = captured(tmp_path, machine() | {"/proc/sys/kernel/osrelease": f"{release}\n"})
    assert (old.relocation, basis(old, "relocation")) == (trees.RELOCATE, Basis.READ)


# -------------------------------------------------------------------------------------- the CPU


def test_a_kernel_with_5_levels_has_5(tmp_path: Path) -> None:
    old = captured(tmp_path, machine(cpuinfo=trees.cpuinfo(f"{trees.FLAGS} la57", 52)))
    assert (old.paging, old.cpu.la57, old.cpu.physical_bits) == (Paging.LA57, True, 52)
    assert old.direct_map.virt == 0xFF11_0000_0000_0000
    assert old.cr4 & 1 << 12
    assert walked(old).outcome is Outcome.HOLDS


@pytest.mark.parametrize(
    ("flag", "bit"),
    [("fred", 32), ("lass", 27), ("user_shstk", 23), ("ibt", 23), ("ospke", 22), ("umip", 11)],
)
def test_a_flag_of_the_cpu_is_a_bit_of_cr4(flag: str, bit: int, tmp_path: Path) -> None:
    plain = trees.FLAGS.replace(" umip", "")
    old = captured(tmp_path, machine(cpuinfo=trees.cpuinfo(f"{plain} {flag}")))
    assert old.cr4 == 0x37_06F0 | 1 << bit
    assert basis(old, "registers") is Basis.DERIVED
    assert walked(old).outcome is Outcome.HOLDS


@pytest.mark.parametrize(
    ("vendor", "mitigation", "bit"),
    [
        ("AuthenticAMD", "Mitigation: Enhanced / Automatic IBRS; IBPB: conditional", 1),
        ("AuthenticAMD", "Mitigation: Retpolines; IBPB: conditional", 0),
        ("GenuineIntel", "Mitigation: Enhanced / Automatic IBRS; IBPB: conditional", 0),
    ],
)
def test_automatic_ibrs_is_a_bit_of_an_amd_cpus_efer(
    vendor: str, mitigation: str, bit: int, tmp_path: Path
) -> None:
    tree = machine(cpuinfo=trees.cpuinfo(vendor=vendor))
    tree["/sys/devices/system/cpu/vulnerabilities/spectre_v2"] = f"{mitigation}\n"
    assert captured(tmp_path, tree).efer == 0xD01 | bit << 21


@pytest.mark.parametrize(("release", "bit"), [("6.15.1", 1), ("6.12.117", 0)])
def test_translation_caching_is_set_from_6_15_on(release: str, bit: int, tmp_path: Path) -> None:
    tree = machine(cpuinfo=trees.cpuinfo(f"{trees.FLAGS} tce", vendor="AuthenticAMD"))
    tree["/proc/sys/kernel/osrelease"] = f"{release}\n"
    assert captured(tmp_path, tree).efer == 0xD01 | bit << 15


@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        ("hypervisor tdx_guest", Confidential.TDX),
        ("hypervisor sev sev_es sev_snp", Confidential.SNP),
        ("hypervisor sev sev_es", Confidential.ES),
        ("hypervisor sev", Confidential.SEV),
        ("hypervisor", None),
        # A machine that could run such guests is none.
        ("sev sev_es sev_snp", None),
    ],
)
def test_a_confidential_guest_is_named_and_the_verdict_says_what_is_not_known(
    flags: str, kind: Confidential | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = captured(tmp_path, machine(cpuinfo=trees.cpuinfo(f"{trees.FLAGS} {flags}", 51)))
    assert old.confidential is kind
    assert ("confidential" in {each.field for each in old.assumed()}) == (kind is not None)
    capsys.readouterr()
    assert main(["rehearse", "--shipped", "--host", str(tmp_path / "host.toml")]) == 0
    said = capsys.readouterr().out
    if kind is None:
        assert "any other guest" not in said
    else:
        assert f"confidential: tables and memory of a {kind.value} guest" in said


# -------------------------------------------------------------------------------------- memory


def test_an_rsdp_that_only_efi_names_is_read(tmp_path: Path) -> None:
    tree = machine(boot_params=trees.boot_params(rsdp=0))
    assert captured(tmp_path / "none", tree).rsdp is None
    tree["/sys/firmware/efi/systab"] = "ACPI20=0x7ff00014\nACPI=0x7ff00000\nSMBIOS3=0x7fe00000\n"
    tree["/sys/firmware/efi/config_table"] = "0x7f9ee018\n"
    old = captured(tmp_path / "efi", tree)
    assert (old.rsdp, basis(old, "rsdp")) == (0x7FF0_0014, Basis.READ)
    tables = {each.what: each.extent.start for each in old.firmware}
    assert tables["EFI configuration tables"] == 0x7F9E_E018
    tree["/sys/firmware/efi/systab"] = "ACPI=0x7ff00000\n"
    assert captured(tmp_path / "old", tree).rsdp == 0x7FF0_0000


def runtime_map(*rows: tuple[int, int, int]) -> dict[str, str]:
    """/sys/firmware/efi/runtime-map, as drivers/firmware/efi/runtime-map.c prints (type, address, pages)."""
    base = "/sys/firmware/efi/runtime-map"
    tree: dict[str, str] = {}
    for number, (kind, start, pages) in enumerate(rows):
        for key, value in (
            ("type", kind),
            ("phys_addr", start),
            ("virt_addr", 0xFFFF_FFFE_F000_0000 + start),
            ("num_pages", pages),
            ("attribute", 0x8000_0000_0000_000F),
        ):
            tree[f"{base}/{number}/{key}"] = f"{value:#x}\n"
    return tree


def test_memory_of_efis_runtime_services_is_firmwares(tmp_path: Path) -> None:
    rows = [(6, 0x7F00_0000, 0x10), (5, 0x7F10_0000, 8), (11, 0xE000_0000, 0x1000)]
    odd = [(5, 0x123, 1), (5, 1 << 51, 1 << 51), (6, 0x7F20_0000, 0), (2, 0x7F30_0000, 1)]
    old = captured(tmp_path, machine() | runtime_map(*rows, *odd))
    assert source(old, "firmware") == "the BIOS area; /sys/firmware/efi/runtime-map"
    theirs = [each for each in old.firmware if each.what.startswith("EFI runtime")]
    assert [(each.extent.start, each.extent.size, each.what) for each in theirs] == [
        (0x7F00_0000, 0x1_0000, "EFI runtime services' data"),
        (0x7F10_0000, 0x8000, "EFI runtime services' code"),
    ]
    got = walked(old)
    assert got.outcome is Outcome.HOLDS
    for segment in got.handover.plan.segments:
        assert not any(segment.destination.overlaps(each.extent) for each in theirs)


def test_what_the_old_kernels_loader_left_is_named_and_not_handed_on(tmp_path: Path) -> None:
    base = "/sys/kernel/boot_params/setup_data"
    tree = machine() | {
        f"{base}/0/type": "0x9\n",
        f"{base}/1/type": "0x77\n",
        f"{base}/2/type": "?",
    }
    notes = capture(read_copy(str(plant(tmp_path, tree)))).notes
    assert [note for note in notes if "setup_data" in note] == [
        "setup_data of the old kernel's loader is not handed on: a seed for random numbers (type 0x9)",
        "setup_data of the old kernel's loader is not handed on: of a kind not known here (type 0x77)",
    ]


def test_soft_reserved_and_persistent_memory_have_kinds_of_their_own(tmp_path: Path) -> None:
    tree = machine() | memmap(
        *trees.FIRMWARE,
        (66 * GIB, 130 * GIB, "Soft Reserved"),
        (130 * GIB, 131 * GIB, "Persistent Memory"),
        (131 * GIB, 132 * GIB, "Persistent Memory (legacy)"),
    )
    old = captured(tmp_path, tree)
    kinds = {each.extent.start: each.kind for each in old.memory}
    assert kinds[66 * GIB] is RegionKind.SOFT_RESERVED
    assert (kinds[130 * GIB], kinds[131 * GIB]) == (RegionKind.PMEM, RegionKind.PRAM)
    got = walked(old)
    assert got.outcome is Outcome.HOLDS
    params = got.handover.plan.boot_params
    [page] = [bytes(each.data) for each in got.handover.plan.segments if params in each.destination]
    rows = page[0x2D0 : 0x2D0 + 20 * page[0x1E8]]
    types = {
        int.from_bytes(rows[at : at + 8], "little"): int.from_bytes(
            rows[at + 16 : at + 20], "little"
        )
        for at in range(0, len(rows), 20)
    }
    assert [types[place * GIB] for place in (66, 130, 131)] == [0xEFFF_FFFF, 7, 12]


def test_of_two_crash_regions_the_highest_has_the_image_and_the_low_one_is_ram_for_it(
    tmp_path: Path,
) -> None:
    low, high = (0x6000_0000, 0x7000_0000), (0x2_5000_0000, 0x2_6000_0000)
    tree = machine(iomem=trees.iomem([low, high]), cmdline="crashkernel=256M,high\n")
    tree["/sys/kernel/kexec_crash_size"] = "536870912\n"
    tree["/sys/kernel/kexec/crash_cma_ranges"] = "24000000-33ffffff\n"
    tree |= notes()
    old = captured(tmp_path, tree)
    assert old.crash_region == Extent(*high)
    assert [each.extent for each in old.crash_memory] == [
        Extent(*low),
        Extent(0x2400_0000, 0x3400_0000),
    ]
    plain = walked(old).handover.plan
    for extent in (low, high):
        assert not any(each.destination.overlaps(Extent(*extent)) for each in plain.segments)
    got = walked(old, Request(crash=True))
    assert got.outcome is Outcome.HOLDS
    region = Extent(*high)
    assert all(region.covers(each.destination) for each in got.handover.plan.segments)
    page = next(
        bytes(each.data)
        for each in got.handover.plan.segments
        if got.handover.plan.boot_params in each.destination
    )
    ram = [
        int.from_bytes(page[at : at + 8], "little")
        for at in range(0x2D0, 0x2D0 + 20 * page[0x1E8], 20)
        if page[at + 16] == 1
    ]
    assert {low[0], 0x2400_0000} <= set(ram)


def notes() -> Tree:
    """What root reads of the notes for a crash kernel, of two CPUs."""
    return {
        "/sys/kernel/vmcoreinfo": "0x0000000041c24000 1024\n",
        "/sys/devices/system/cpu/cpu0/crash_notes": "43b8400\n",
        "/sys/devices/system/cpu/cpu0/crash_notes_size": "368\n",
        "/sys/devices/system/cpu/cpu11/crash_notes": "43c8400\n",
        "/sys/devices/system/cpu/cpu11/crash_notes_size": "368\n",
    }


def test_notes_for_a_crash_kernel_are_read_both_numbers_of_vmcoreinfo_in_hex(
    tmp_path: Path,
) -> None:
    old = captured(tmp_path, machine() | notes())
    assert [(each.what, each.extent) for each in old.crash_notes] == [
        ("CPU 0's registers", Extent.sized(0x43B_8400, 368)),
        ("CPU 11's registers", Extent.sized(0x43C_8400, 368)),
        ("vmcoreinfo", Extent.sized(0x41C2_4000, 0x1024)),
    ]
    assert basis(old, "crash_note") is Basis.READ
    taken = [old.private, *(each.extent for each in old.busy)]
    assert not any(a.overlaps(b.extent) for a in taken[:1] for b in old.crash_notes)


def test_a_crash_region_without_notes_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = machine(iomem=trees.iomem([(0x6000_0000, 0x7000_0000)]))
    tree["/sys/kernel/kexec_crash_size"] = "268435456\n"
    captured(tmp_path / "without", tree)
    assert "without them it has no /proc/vmcore" in capsys.readouterr().err
    captured(tmp_path / "with", tree | notes())
    assert "/proc/vmcore" not in capsys.readouterr().err


def test_memory_that_the_old_kernel_was_told_to_leave_is_not_its_own(tmp_path: Path) -> None:
    tree = machine(iomem=trees.iomem(ram=trees.RAM[:2]), cmdline="root=/dev/sda1 mem=2G\n")
    old = captured(tmp_path, tree)
    # The new kernel is told of all of it, the old one lays nothing there.
    assert old.memory.ram[-1] == Extent(4 * GIB, 10 * GIB)
    got = walked(old)
    assert got.outcome is Outcome.HOLDS
    plan = got.handover.plan
    assert plan.control_page < 2 * GIB
    assert int(plan.sources.max()) < 2 * GIB >> 12


def test_a_container_hides_what_it_hides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zeros = "".join(
        f"00000000-00000000 : {each.split(' : ')[1]}\n" for each in trees.iomem().splitlines()
    )
    symbols = "".join(f"{'0' * 16}{each[16:]}\n" for each in kallsyms().splitlines())
    tree = {
        path: text
        for path, text in machine(iomem=zeros, kallsyms=symbols).items()
        if "memmap" not in path and "boot_params" not in path
    }
    old = captured(tmp_path, tree)
    assert {"memory", "text.virt", "text.phys", "relocation"} <= {e.field for e in old.assumed()}
    assert "shows zeros" in capsys.readouterr().err
    assert source(old, "firmware") == "the BIOS area"  # of no file that it could not read
    assert walked(old).outcome is Outcome.HOLDS


def test_where_rows_overlap_ram_gives_way(tmp_path: Path) -> None:
    tree = machine() | memmap(*trees.FIRMWARE, (0x7FF0_0000, 0x8010_0000, "Reserved"))
    old = captured(tmp_path, tree)
    assert old.memory.ram[1] == Extent(MIB, 0x7FF0_0000)
    assert old.memory.kind_at(0x8010_0000) is RegionKind.ACPI


@pytest.mark.parametrize(
    ("line", "on"),
    [
        ("kho=on", True),
        ("kho=1 kho_scratch=10%", True),
        ("kho=off kho=Yes", True),
        ("kho=on kho=maybe", True),
        ("kho=off", False),
        ("kho=on kho=No", False),
        ("kho=", False),
        ("kho_scratch=512M", False),
        ("root=/dev/sda1 name.kho=on", False),
    ],
)
def test_kho_turned_on_by_the_command_line_is_an_assumption_of_what_it_keeps(
    tmp_path: Path, line: str, on: bool
) -> None:
    """The last word that kstrtobool takes is the one."""
    old = captured(tmp_path, machine(cmdline=f"{line}\n"))
    assert ("preserved" in {each.field for each in old.assumed()}) is on


def test_the_screen_is_read_as_the_loader_described_it(tmp_path: Path) -> None:
    screen = bytes(range(64))
    old = captured(tmp_path, machine(boot_params=trees.boot_params(screen=screen)))
    assert (old.screen, basis(old, "screen_info")) == (screen, Basis.READ)


# -------------------------------------------------------------------------------- a copied tree


def test_what_is_no_tree_or_no_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["host", "capture", "--from", str(tmp_path)]) == 2
    assert "has neither proc nor sys in it" in capsys.readouterr().err
    tree = plant(tmp_path / "tree", machine())
    os.unlink(tree / "proc/kallsyms")
    os.mkfifo(tree / "proc/kallsyms")  # nobody writes: a read would never end
    assert main(["host", "capture", "--from", str(tree)]) == 0
    assert "could not read /proc/kallsyms: is not a regular file" in capsys.readouterr().err


def test_a_file_that_exists_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "host.toml"
    out.write_text("mine")
    tree = plant(tmp_path / "tree", machine())
    assert main(["host", "capture", "--from", str(tree), "-o", str(out)]) == 2
    assert "exists: say --force to replace it" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert main(["host", "capture", "--from", str(tree), "-o", str(out), "--force"]) == 0
    assert "[cpu]" in out.read_text()


def efi_machine() -> dict[str, str]:
    """A machine that EFI started: boot_params' efi_info, and all of /sys/firmware/efi."""
    page = bytearray(trees.boot_params(rsdp=0).encode("latin-1"))
    info = (b"EL64", 0x7FED_EC98, 48, 1, 0x7E00_0000, 480, 0, 0)
    page[0x1C0:0x1E0] = struct.pack("<4s7I", *info)
    page[0x1EC] = 3
    return machine(boot_params=page.decode("latin-1")) | {
        "/sys/firmware/efi/systab": "ACPI20=0x7ff00014\nACPI=0x7ff00000\nSMBIOS=0x7fe00000\n",
        "/sys/firmware/efi/config_table": "0x7f9ee018\n",
        "/sys/firmware/efi/fw_vendor": "0x7fe8d018\n",
        "/sys/kernel/boot_params/setup_data/0/type": "0x4\n",
        **runtime_map((6, 0x7F00_0000, 0x10), (5, 0x7F10_0000, 8)),
    }


def test_efi_is_captured_whole(tmp_path: Path) -> None:
    old = captured(tmp_path, efi_machine())
    efi = old.efi
    assert efi is not None
    assert basis(old, "efi") is Basis.READ
    assert (efi.system_table, efi.config_table, efi.fw_vendor, efi.smbios) == (
        0x7FED_EC98, 0x7F9E_E018, 0x7FE8_D018, 0x7FE0_0000,
    )  # fmt: skip
    assert (efi.descriptor_size, efi.descriptor_version) == (48, 1)
    assert (efi.loader.value, efi.secure_boot.value) == ("EL64", "enabled")
    assert [(each.type, each.phys, each.pages, each.virt) for each in efi.runtime] == [
        (6, 0x7F00_0000, 0x10, 0xFFFF_FFFF_6F00_0000),
        (5, 0x7F10_0000, 8, 0xFFFF_FFFF_6F10_0000),
    ]
    assert host.read(host.write(old, []), "again").efi == efi


@pytest.mark.parametrize(
    "lost",
    [
        "/sys/firmware/efi/config_table",
        "/sys/firmware/efi/fw_vendor",
        "/sys/firmware/efi/runtime-map/1/virt_addr",
        "/sys/firmware/efi/runtime-map/0/attribute",
    ],
)
def test_efi_that_is_told_in_part_is_said_not_to_be_handed_on(lost: str, tmp_path: Path) -> None:
    tree = efi_machine()
    del tree[lost]
    plant(tmp_path, tree)
    found = capture(read_copy(str(tmp_path)))
    assert host.read(found.toml, "copy").efi is None
    where = lost if "runtime-map" not in lost else "/sys/firmware/efi/runtime-map"
    [note] = [each for each in found.notes if "runtime services are not handed on" in each]
    assert where in note
    assert any("setup_data" in each and "EFI's tables" in each for each in found.notes)
