"""kdump check in QEMU: a crash kernel that gets there, and one for each reason why it does not."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path

import drgn
import pytest

from tests.conftest import debian_kernel
from tests.kdump.guests import PRODS, SAVES, initramfs
from tests.makers.screens import screen
from tests.qemu.pcs import BOOT_SECONDS, old_kernel, qemu
from tests.vmcore.kdumps import makedumpfile
from tightrope import image, vmcore
from tightrope.cli.crash_kernel import opened
from tightrope.deeds import old_kernel as old_kernels
from tightrope.deeds.blackout import CMA
from tightrope.deeds.kdump_check import Asked, check, shown
from tightrope.deeds.kdump_check.deed import ONLY_GUESSED
from tightrope.errors import BadInput
from tightrope.memory import Extent
from tightrope.model import Backup, Memory, Named, Outcome, Paging
from tightrope.model.crash_boot import Cause, CrashBoot, Reached, ShownCore
from tightrope.model.pgd import Wholeness
from tightrope.plan import Request
from tightrope.views.crash_boot import VIEW

MIB = 1 << 20
RESERVED = 256 << 10
"""At the top of a PC's RAM: ACPI's tables."""
LINE = "root=UUID=7167d09e ro quiet nr_cpus=1 reset_devices cryptomgr.notests"


def tried(
    mebibytes: int,
    *,
    initrd: bytes | None = None,
    paging: Paging = Paging.X86_64,
    drive: int | None = None,
    lent: Extent | None = None,
) -> CrashBoot:
    """Debian's cloud kernel in a region of that size, on a PC with 448 MiB.

    `lent` is memory of CMA for it.
    """
    qemu().close()  # skips where there is none
    code = _code()
    path = debian_kernel("cloud-amd64")
    region = Extent.sized(0x1000_0000, mebibytes * MIB)
    request = Request(initrd=initrd, initrd_source="small", command_line=LINE, crash=True)
    old = old_kernel(paging, 448, region)
    if lent is not None:
        old = replace(old, crash_memory=(Named(extent=lent, what=f"{CMA} of the crash kernel"),))
    return check(
        Asked(
            image=image.read(path.read_bytes(), path.name),
            host=code.host(old),
            request=code.request(request),
            design=code.participant,
            code=path.name,
            drive=drive,
            seconds=BOOT_SECONDS,
        )
    )


@functools.cache
def _code() -> old_kernels.OldKernel:
    path = debian_kernel("cloud-amd64")
    return old_kernels.read(path.read_bytes(), path.name)


def test_a_crash_kernel_that_works_says_so_and_shows_a_whole_dump(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its /proc/vmcore is read by three: `pgd`, makedumpfile and drgn."""

    def looked(head: bytes, memory: Memory, backup: tuple[Backup, ...]) -> ShownCore:
        with shown.written(head, memory, backup) as path:
            for level in ("0", "31"):
                makedumpfile(Path(path), "-l", "-d", level, out=tmp_path / level)
            for each in (path, str(tmp_path / "0"), str(tmp_path / "31")):
                core = vmcore.read(each)
                program = drgn.Program()
                program.set_core_dump(each)
                image = core.notes.number("SYMBOL(swapper_pg_dir)", 16)
                assert image is not None
                root = vmcore.pgd(core)
                assert root.answer is Wholeness.WHOLE, (each, root.faults)
                assert program.read(image, 4096) == core.page(root.root.phys)
        return plain(head, memory, backup)

    plain = shown.shown
    monkeypatch.setattr(shown, "shown", looked)
    got = tried(160, initrd=initramfs(), paging=Paging.LA57)
    assert (got.outcome, got.reached, got.cause) == (Outcome.HOLDS, Reached.INIT, None), got.why
    used, core = got.used, got.shown
    assert core is not None
    # As the core header has it: text and what is left of RAM, its notes, the tables that were laid.
    assert (core.cpus, core.whole, core.pgd) == (1, True, "whole")
    assert core.rows == 3
    assert used.total is not None
    assert used.least is not None
    assert used.peak is not None
    assert used.least < used.total < used.size == 160 * MIB
    assert used.touched is not None
    assert used.touched >= used.peak - MIB
    assert got.findings == ()
    # All RAM but its region and the first MiB; its tables, notes and more lie there.
    assert got.kept is not None
    assert got.kept.size == 447 * MIB - 160 * MIB - RESERVED
    assert 32 << 10 < got.kept.held < 32 * MIB
    assert (got.kept.changed, got.waits) == ((), 0)
    assert got.console is not None
    assert not [line for line in got.console.lines if "/.tightrope/init: " in line]
    assert "quiet" not in got.command_line
    rules = {each.rule for each in got.asked}
    assert {"table-a-maps-v", "crash-region-only"} <= rules
    assert not rules & ONLY_GUESSED
    document = json.loads(json.dumps(VIEW.facts(got)))
    assert (document["verdict"], document["reached"]) == ("holds", "init")


@pytest.mark.parametrize("ballast", [False, True], ids=["kernel", "initrd"])
def test_a_region_that_is_too_small_is_told_with_its_numbers(ballast: bool) -> None:
    """For the kernel alone, and for an initrd that is unpacked there."""
    got = tried(96, initrd=initramfs(40 * MIB)) if ballast else tried(62, initrd=initramfs())
    assert (got.outcome, got.cause) == (Outcome.FALLS, Cause.MEMORY), got
    assert any("Memory: " in line and "available" in line for line in got.evidence)
    assert "out of memory" in got.why


def test_memory_of_cma_is_its_memory_and_the_wait_for_it_is_told() -> None:
    """The region that is too small above, with CMA memory at another place."""
    lent = Extent.sized(0x1600_0000, 80 * MIB)
    got = tried(62, initrd=initramfs(), lent=lent)
    assert (got.outcome, got.reached) == (Outcome.HOLDS, Reached.INIT), got.why
    assert got.used.size == (62 + 80) * MIB
    assert got.used.total is not None
    assert got.used.total > 62 * MIB
    assert got.kept is not None
    assert got.kept.size == 447 * MIB - (62 + 80) * MIB - RESERVED
    assert got.kept.changed == ()
    assert got.shown is not None
    assert (got.shown.whole, got.waits) == (True, 10.0)
    assert "10 s of waiting" in " ".join(screen(VIEW, got).split())


def test_what_is_written_outside_of_the_region_is_told_to_the_byte() -> None:
    """An init that writes two bytes by way of /dev/mem: no plan could tell."""
    prodded = tried(160, initrd=initramfs(init=PRODS))
    assert (prodded.outcome, prodded.cause) == (Outcome.FALLS, Cause.OUTSIDE), prodded.why
    assert prodded.kept is not None
    assert prodded.kept.changed == (Extent.sized(0x400_0000, 4096),)
    assert "it writes outside of its region: 4 KiB at and behind 0x4000000" in prodded.why


def test_what_has_no_initrd_is_told_apart() -> None:
    got = tried(128)
    assert (got.outcome, got.cause, got.reached) == (
        Outcome.FALLS,
        Cause.INITRD,
        Reached.KERNEL,
    ), got
    assert "no initrd" in got.why
    assert got.shown is None


def test_what_does_not_fit_is_told_without_a_boot() -> None:
    got = tried(40, initrd=initramfs())
    assert (got.outcome, got.cause, got.reached) == (
        Outcome.FALLS,
        Cause.MEMORY,
        Reached.NOWHERE,
    )
    assert "do not fit into the region" in got.why
    assert got.console is None
    assert got.asked == ()


def test_with_a_disk_a_dump_is_saved_and_the_disk_is_what_it_was(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    before = b"untouched".ljust(4 * MIB, b"\0")
    disk.write_bytes(before)
    with opened(str(disk)) as drive:
        got = tried(128, initrd=initramfs(init=SAVES), drive=drive)
    assert (got.outcome, got.reached) == (Outcome.HOLDS, Reached.SAVED), got.why
    assert disk.read_bytes() == before


def test_a_host_without_crashkernel_is_refused_before_anything_is_started() -> None:
    """As kexec refuses to load there: nothing is reserved."""
    path = debian_kernel("cloud-amd64")
    asked = Asked(
        image=image.read(path.read_bytes(), path.name),
        host=old_kernel(Paging.X86_64, 448),
        request=Request(command_line=LINE, crash=True),
    )
    with pytest.raises(BadInput, match="has no crash region: crashkernel= reserved nothing"):
        check(asked)
