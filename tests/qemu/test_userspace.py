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
from tightrope.deeds.rehearse import rehearse
from tightrope.deeds.until import Userspace
from tightrope.machine.qemu.qemu import is_said
from tightrope.model import Console, Paging, Protocol, Verdict
from tightrope.plan import Request

ROWS = [
    ("686", Paging.I386, None, False),
    ("686-pae", Paging.PAE, None, False),
    ("686-pae", Paging.PAE, None, True),
    ("cloud-amd64", Paging.X86_64, Protocol.LINUX_64, False),
    ("cloud-amd64", Paging.X86_64, Protocol.LINUX_32, False),
    ("cloud-amd64", Paging.LA57, Protocol.LINUX_64, False),
    ("cloud-amd64", Paging.LA57, None, True),
    ("amd64-6.12", Paging.X86_64, Protocol.LINUX_64, False),
    ("amd64-7.3", Paging.X86_64, Protocol.LINUX_64, False),
    ("cloud-amd64-7.3", Paging.LA57, Protocol.LINUX_64, False),
]


def boot(
    flavour: str, paging: Paging, protocol: Protocol | None, said: str, *, bare: bool
) -> tuple[Verdict, Console]:
    """The walk, and what the console said until the word came, or did not."""
    path = debian_kernel(flavour)
    architecture = "i386" if flavour.startswith("686") else "amd64"
    kernel = image.read(path.read_bytes(), path.name)
    machine = qemu()
    try:
        got = rehearse(
            image.unpacked(kernel) if bare else kernel,
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


def test_a_kernel_that_prints_its_command_line_has_not_said_the_word() -> None:
    word = token()
    printed = f"[    0.000000] Command line: console=ttyS0 tightrope.token={word} panic=-1"
    assert not is_said(word, [printed, "Run /init as init process"])
    assert is_said(word, [printed, f"tightrope: userspace {word} 6.1.0 x86_64"])


def test_a_kernel_without_an_init_does_not_get_to_its_userspace() -> None:
    """It prints its command line, with the word in it, and panics."""
    path, word = debian_kernel("cloud-amd64"), token()
    machine = qemu()
    try:
        got = rehearse(
            image.read(path.read_bytes(), path.name),
            old_kernel(Paging.X86_64),
            Request(command_line=f"console=ttyS0 panic=-1 tightrope.token={word}"),
            until=Userspace(token=word, seconds=BOOT_SECONDS),
            machine=machine,
        )
    finally:
        machine.close()
    assert [finding.rule for finding in got.findings] == ["userspace-reached"]
    assert got.console is not None
    assert any(f"tightrope.token={word}" in line for line in got.console.lines)
    assert "the machine shut down" in got.findings[0].message
    assert "panic" in " ".join(got.console.lines[-40:])


@pytest.mark.parametrize(("flavour", "paging", "protocol", "bare"), ROWS)
def test_the_new_kernels_init_says_its_word(
    flavour: str, paging: Paging, protocol: Protocol | None, bare: bool
) -> None:
    word = token()
    got, console = boot(flavour, paging, protocol, word, bare=bare)
    assert got.findings == ()
    assert console.stopped == word, console
    release = debian_kernel(flavour).name.removeprefix("vmlinuz-")
    machine = "i686" if flavour.startswith("686") else "x86_64"
    # Among the lines: on a busy computer the guest says more before its CPU is stopped.
    assert f"tightrope: userspace {word} {release} {machine}" in console.lines
