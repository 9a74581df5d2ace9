"""A real old kernel: booted, stopped, and walked from into the next one.

old, with KASLR     new             what
cloud-amd64         cloud-amd64     kexec
amd64-7.3           cloud-amd64     kexec
686-pae             686-pae         kexec
cloud-amd64-7.3     cloud-amd64     a crash, and the dead kernel's memory in /proc/vmcore
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import drgn
import pytest

from tests.conftest import debian_kernel
from tests.qemu.disk import Disk
from tests.qemu.pcs import BOOT_SECONDS, QUIET, initramfs, qemu, token
from tests.vmcore.kdumps import makedumpfile
from tightrope import image, vmcore
from tightrope.deeds.booted import OldKernel, rehearse_booted
from tightrope.deeds.until import Userspace
from tightrope.errors import MachineError
from tightrope.kdump.capture import Wanted, capture
from tightrope.kdump.compressed import Packing
from tightrope.machine.qemu import Qemu, guest
from tightrope.machine.qemu.guest import Standing
from tightrope.machine.qemu.pc import Pc
from tightrope.memory import PAGE_SIZE as PAGE
from tightrope.memory import Extent, subtract
from tightrope.model import Buffer, Handover, Outcome, Paging, Run, Step, Verdict
from tightrope.plan import Request
from tightrope.vmcore.information import information
from tightrope.vmcore.planned import may_write, planned

NOWHERE = {
    "cloud-amd64": 0xFFFF_FFFF_8100_0000,
    "amd64-7.3": 0xFFFF_FFFF_8100_0000,
    "686-pae": 0xC100_0000,
}
"""Where the text of each is without KASLR."""


DIES = "cloud-amd64-7.3"
"""The kernel that crashes: crash 9.0.2 finds no log in what it leaves."""


@pytest.fixture
def machine() -> Iterator[Qemu]:
    made = qemu()
    yield made
    made.close()


def walk_from(
    machine: Qemu,
    old: str,
    new: str,
    said: str,
    *,
    do: str = "",
    crash: bool = False,
    drive: int | None = None,
    seconds: float = BOOT_SECONDS,
) -> Verdict:
    path = debian_kernel(new)
    return rehearse_booted(
        OldKernel(
            kernel=debian_kernel(old).read_bytes(),
            initrd=initramfs("i386" if old.startswith("686") else "amd64"),
            # KASLR may put the kernel in the middle: the larger half holds what is reserved.
            mebibytes=512 if crash else 384,
            reserve="192M" if crash else "128M",
            drive=drive,
        ),
        image.read(path.read_bytes(), path.name),
        Request(
            initrd=initramfs("i386" if new.startswith("686") else "amd64"),
            command_line=f"{QUIET} {do} tightrope.token={said}",
            crash=crash,
        ),
        until=Userspace(token=f"tightrope: vmcore {said}" if do else said, seconds=seconds),
        machine=machine,
        boot_seconds=BOOT_SECONDS,
    )


@pytest.mark.parametrize(
    ("old", "new", "paging"),
    [
        ("cloud-amd64", "cloud-amd64", Paging.X86_64),
        ("amd64-7.3", "cloud-amd64", Paging.X86_64),
        ("686-pae", "686-pae", Paging.PAE),
    ],
)
def test_a_running_kernel_hands_over(machine: Qemu, old: str, new: str, paging: Paging) -> None:
    word = token()
    got = walk_from(machine, old, new, word)
    assert (got.outcome, got.findings) == (Outcome.HOLDS, ())
    assert got.console is not None
    release = debian_kernel(new).name.removeprefix("vmlinuz-")
    # Among the lines: on a busy computer the guest says more before its CPU is stopped.
    said = [each for each in got.console.lines if each.startswith(f"tightrope: userspace {word} ")]
    assert [release in each for each in said] == [True]
    world, plan = got.handover.world, got.handover.intent
    assert world.host.paging is paging
    assert world.host.text.virt != NOWHERE[old], "KASLR is on"
    # Its memory was copied over, so the walk was no empty one; its tables are many, and its own.
    assert plan.destinations.tolist() != plan.sources.tolist()
    assert len(world.tables) > 15
    assert "current-pgd-kept" in got.rules


def digest(page: Buffer) -> bytes:
    return hashlib.blake2b(page, digest_size=16).digest()


class Watched(Qemu):
    """Keeps digests of the memory that a PC has when its CPU stands at V, page by page."""

    was: Mapping[int, bytes]

    def walk(
        self, pc: Pc, handover: Handover, look: Callable[[Step], None] = lambda step: None
    ) -> Run:
        outside = subtract(handover.world.host.memory.ram, may_write(handover.world.host))
        self.was = {
            at: digest(pc.ram.read(Extent.sized(at, PAGE)))
            for each in outside
            for at in range(-(-each.start // PAGE) * PAGE, each.end & -PAGE, PAGE)
        }
        return super().walk(pc, handover, look)


def test_a_real_crash_leaves_its_memory_to_the_crash_kernel(tmp_path: Path) -> None:
    word = token()
    qemu().close()  # skips where there is none
    with Disk() as disk:
        machine = Watched(walk_seconds=60)
        try:
            got = walk_from(
                machine,
                DIES,
                "cloud-amd64",
                word,
                do="tightrope.do=vmcore nr_cpus=1",
                crash=True,
                drive=disk.descriptor,
            )
            assert (got.outcome, got.findings) == (Outcome.HOLDS, ())
            core = disk.core(tmp_path / "vmcore")
        finally:
            machine.close()
    # Nothing was copied: every page table is to the last byte what it was, and so is the core's.
    assert got.handover.intent.in_place == len(got.handover.intent.destinations)
    dumped = vmcore.read(str(core))
    assert vmcore.pgd(dumped).whole
    speaks_for_itself(core)
    for frame, page in got.handover.world.tables.items():
        assert dumped.page(frame) == bytes(page)
    # Nor was anything else: outside of the region the dump is the memory at the call, to the last byte.
    host = got.handover.world.host
    assert planned(vmcore.pgd(dumped), host).differ == ()
    pages = ((at, was, dumped.page(at)) for at, was in machine.was.items())
    assert [at for at, was, page in pages if page is None or digest(page) != was] == []
    assert len(machine.was) * PAGE > 256 << 20
    assert len(set(machine.was.values())) > 5_000


def speaks_for_itself(core: Path) -> None:
    """A real kernel's core: its log and symbols are read, it is saved in each format, and others open that."""
    release = debian_kernel(DIES).name.removeprefix("vmlinuz-")
    dump = vmcore.read(str(core))
    found = information(dump)
    assert found.release == release
    assert found.untold == ()
    assert found.log[0].text.startswith(f"Linux version {release} ")
    assert [each.sequence for each in found.log] == list(range(len(found.log)))
    assert found.tainted == 0
    pgd = int(vmcore.pgd(dump).root.phys)
    saved = []
    for packing in (None, *Packing):
        done = capture(
            Wanted(vmcore=str(core), folder=str(core.parent / f"saved {packing}"), packing=packing)
        )
        assert (done.whole, done.log_lines >= len(found.log)) == (True, True)
        assert done.log is not None
        assert f"Linux version {release} " in done.log.read_text(encoding="utf-8")
        program = drgn.Program()
        program.set_core_dump(str(done.copied.path))
        assert program.read(pgd, 4096, True) == dump.page(pgd)
        saved.append(done.copied.path)
    plain, zlib, _ = saved  # Debian builds makedumpfile without zstd
    for number, path in enumerate((core, plain, zlib)):
        (filtered,) = makedumpfile(path, "-l", "-d", "31", out=core.parent / f"filtered {number}")
        small = vmcore.read(str(filtered))
        assert vmcore.pgd(small).whole
        assert information(small).log == found.log
        assert filtered.stat().st_size < core.stat().st_size // 2


def test_a_table_that_is_written_before_the_copy_is_found(
    machine: Qemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = guest.lay_over

    def careless(standing: Standing, handover: Handover) -> None:
        before(standing, handover)
        frame = max(handover.world.tables)
        view = standing.pc.ram.view(frame + 4095, 1)
        assert view is not None
        view[0] ^= 0x40  # a bit that no walk looks at

    monkeypatch.setattr(guest, "lay_over", careless)
    got = walk_from(machine, "cloud-amd64", "cloud-amd64", token(), seconds=0.1)
    assert got.findings[0].rule == "current-pgd-kept"
    assert got.findings[0].step is Step.TABLE_B


def test_an_old_kernel_that_does_not_come_up_is_one_line_with_its_last_words(
    machine: Qemu,
) -> None:
    with pytest.raises(
        MachineError, match=r"did not tell .* the CPU is at 0x.*console says"
    ) as got:
        rehearse_booted(
            OldKernel(kernel=debian_kernel("cloud-amd64").read_bytes(), initrd=b""),
            image.read(debian_kernel("cloud-amd64").read_bytes(), "new"),
            Request(),
            until=Userspace(token="never"),
            machine=machine,
            boot_seconds=1,
        )
    assert "\n" not in str(got.value)
