"""From a described old kernel into Debian's kernels and on to an init that says the word it was given.

old kernel   new kernel            entry
i386         686                   32-bit
PAE          686-pae               32-bit
x86_64       cloud-amd64           64-bit and 32-bit
5-level      cloud-amd64           64-bit
"""

from __future__ import annotations

import pytest

from tests.conftest import debian_kernel
from tests.qemu.pcs import BOOT_SECONDS, QUIET, initramfs, old_kernel, qemu, token
from tightrope import image
from tightrope.model import Console, Paging, Protocol, Verdict
from tightrope.plan import Request
from tightrope.rehearse import rehearse

ROWS = [
    ("686", Paging.I386, None),
    ("686-pae", Paging.PAE, None),
    ("cloud-amd64", Paging.X86_64, Protocol.LINUX_64),
    ("cloud-amd64", Paging.X86_64, Protocol.LINUX_32),
    ("cloud-amd64", Paging.LA57, Protocol.LINUX_64),
]


def boot(
    flavour: str, paging: Paging, protocol: Protocol | None, said: str
) -> tuple[Verdict, Console]:
    """The walk, and what the console said until the word came, or did not."""
    path = debian_kernel(flavour)
    architecture = "i386" if flavour.startswith("686") else "amd64"
    machine = qemu()
    try:
        got = rehearse(
            image.read(path.read_bytes(), path.name),
            old_kernel(paging),
            Request(
                initrd=initramfs(architecture),
                command_line=f"{QUIET} tightrope.token={said}",
                protocol=protocol,
            ),
            machine=machine,
        )
        return got, machine.userspace(said, seconds=BOOT_SECONDS)
    finally:
        machine.close()


@pytest.mark.slow
@pytest.mark.parametrize(("flavour", "paging", "protocol"), ROWS)
def test_the_new_kernels_init_says_its_word(
    flavour: str, paging: Paging, protocol: Protocol | None
) -> None:
    word = token()
    got, console = boot(flavour, paging, protocol, word)
    assert got.findings == ()
    assert console.stopped == word, console
    release = debian_kernel(flavour).name.removeprefix("vmlinuz-")
    machine = "i686" if flavour.startswith("686") else "x86_64"
    assert console.lines[-1] == f"tightrope: userspace {word} {release} {machine}"
