"""Every kernel that Debian ships for these machines: it holds to its entry, for a kexec and for a crash.

    bookworm 6.1    trixie 6.12    sid 7.2    backports 7.3, and its installer    Xen, GNU Mach, GRUB

Rules: false alarms are looked for here; what each kernel says after its entry is asked in tests/machine
(the emulator) and tests/qemu (userspace).
"""

from __future__ import annotations

import pytest

from tests.conftest import debian_kernel
from tests.makers import cpio
from tightrope import host, image
from tightrope.deeds.rehearse import rehearse
from tightrope.errors import ImageError
from tightrope.memory import Extent
from tightrope.model import Outcome, Paging
from tightrope.plan import Request

LINUX = [
    f"{flavour}{version}"
    for version in ("", "-6.12", "-7.2", "-7.3")
    for flavour in ("amd64", "cloud-amd64")
] + ["netboot-amd64"]
OTHERS = ["xen-amd64", "xen-amd64-4.20", "gnumach", "grub"]
CRASH = Extent.sized(0x3300_0000, 0x2000_0000)


@pytest.mark.parametrize("crash", [False, True], ids=["kexec", "crash"])
@pytest.mark.parametrize("paging", [Paging.X86_64, Paging.LA57])
@pytest.mark.parametrize("flavour", LINUX)
def test_a_linux_kernel_of_debian_holds(flavour: str, paging: Paging, crash: bool) -> None:
    path = debian_kernel(flavour)
    old = host.read(host.example(paging, crash=CRASH if crash else None), "an example")
    got = rehearse(
        image.read(path.read_bytes(), path.name),
        old,
        Request(initrd=cpio.initrd(1 << 20), command_line="quiet", crash=crash),
    )
    assert (got.outcome, got.findings) == (Outcome.HOLDS, ())


@pytest.mark.parametrize("flavour", OTHERS)
def test_another_kernel_of_debian_holds(flavour: str) -> None:
    path = debian_kernel(flavour)
    got = rehearse(
        image.read(path.read_bytes(), path.name),
        host.read(host.example(), "an example"),
        Request(command_line="quiet"),
    )
    assert (got.outcome, got.findings) == (Outcome.HOLDS, ())


def test_ipxe_does_not_say_how_much_memory_it_needs() -> None:
    """Boot protocol 2.07: without init_size nothing can be placed around it."""
    path = debian_kernel("ipxe")
    with pytest.raises(ImageError, match=r"boot protocol 2\.07 does not say how much memory"):
        image.read(path.read_bytes(), path.name)
