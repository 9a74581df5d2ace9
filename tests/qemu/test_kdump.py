"""A described kernel crashes on a PC: the crash kernel comes up and /proc/vmcore has the dead one whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import debian_kernel
from tests.qemu.disk import Disk
from tests.qemu.pcs import BOOT_SECONDS, QUIET, initramfs, old_kernel, qemu, token
from tightrope import image, vmcore
from tightrope.cli import main
from tightrope.deeds.rehearse import rehearse
from tightrope.memory import Extent
from tightrope.model import Paging
from tightrope.plan import Request

REGION = Extent.sized(0x800_0000, 0xC00_0000)


def test_the_dead_kernels_tables_are_whole_in_the_core(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, word = debian_kernel("cloud-amd64"), token()
    with Disk() as disk:
        machine = qemu(drive=disk.descriptor)
        try:
            got = rehearse(
                image.read(path.read_bytes(), path.name),
                old_kernel(Paging.X86_64, 384, REGION),
                Request(
                    initrd=initramfs("amd64"),
                    command_line=f"{QUIET} nr_cpus=1 tightrope.do=vmcore tightrope.token={word}",
                    crash=True,
                ),
                machine=machine,
            )
            console = machine.userspace(f"tightrope: vmcore {word}", seconds=BOOT_SECONDS)
            core = disk.core(tmp_path / "vmcore")
        finally:
            machine.close()
    assert got.findings == ()
    assert console.stopped == f"tightrope: vmcore {word}", console
    dumped, world = vmcore.read(str(core)), got.handover.world
    for frame, page in world.tables.items():
        assert dumped.page(frame) == bytes(page)
    assert main(["pgd", str(core)]) == 0
    said = capsys.readouterr().out
    assert "all tables are whole" in said
    assert f"{world.pgd:#x}" in said
