"""QEMU: walks a second, and seconds from V to a real kernel's first line and to its userspace.

Rules: what is timed is what the tests do; each figure is a single run.
"""

from __future__ import annotations

import time

from bench.clock import seconds, show
from tests.conftest import debian_kernel
from tests.makers.bzimage import bzimage
from tests.qemu.pcs import BOOT_SECONDS, initramfs, old_kernel, token
from tightrope import image, plan
from tightrope.deeds.rehearse import build
from tightrope.machine.qemu import Qemu
from tightrope.model import Paging
from tightrope.plan import Request

KERNELS = (
    ("cloud-amd64", "amd64", Paging.X86_64, "LZ4"),
    ("amd64", "amd64", Paging.X86_64, "XZ"),
    ("686", "i386", Paging.I386, "XZ"),
    ("686-pae", "i386", Paging.PAE, "XZ"),
)


def walks() -> None:
    """A tiny handover, each time on a new PC that its firmware has booted."""
    machine = Qemu()
    tiny = image.read(bzimage(init_size=0x3000), "tiny")
    for paging in Paging:
        built = build(plan.prepare(tiny, old_kernel(paging), Request()), design="two-tables")
        taken = seconds(lambda built=built: machine.run(built), runs=5)  # type: ignore[misc]
        show(f"small handovers on a whole PC, {paging.value}", f"{1 / taken:.1f} /s")
    machine.close()


def boots() -> None:
    """From V on: the first line that a kernel says, and the line of its init."""
    for flavour, architecture, paging, packing in KERNELS:
        for bare in (False, True):
            _boot(flavour, architecture, paging, "unpacked" if bare else packing, bare=bare)


def _boot(flavour: str, architecture: str, paging: Paging, packing: str, *, bare: bool) -> None:
    path = debian_kernel(flavour)
    kernel, word = image.read(path.read_bytes(), path.name), token()
    kernel = image.unpacked(kernel) if bare else kernel
    machine = Qemu()
    try:
        line = f"console=ttyS0 earlyprintk=ttyS0,115200 panic=-1 tightrope.token={word}"
        request = Request(
            initrd=initramfs(architecture),
            command_line=line,
        )
        built = build(plan.prepare(kernel, old_kernel(paging), request), design="two-tables")
        started = time.monotonic()
        machine.run(built)
        walked = time.monotonic() - started
        began = time.monotonic()
        heard = machine.userspace(word, seconds=BOOT_SECONDS)
        first = machine.heard_at(f"Linux version {path.name.removeprefix('vmlinuz-')}")
    finally:
        machine.close()
    if heard.stopped != word or first is None:
        raise SystemExit(f"{flavour} did not get to its userspace: {heard.stopped}")
    show(
        f"{flavour} ({packing}) from its entry to its first line",
        f"{first - began:.1f} s",
        f"{heard.seconds:.1f} s to its userspace; PC, firmware and walk {walked:.1f} s before",
    )
