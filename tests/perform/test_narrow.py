"""Kernels of 32 bits leave for one another and for one of 64: the calls are those of a process of 32 bits.

    686 --plan--> 686-pae --plan--> cloud-amd64

Each plan was rehearsed here through the leaving kernel's own relocation code; the first one's initrd has the
second one in it.
"""

from __future__ import annotations

import gzip

from tests.conftest import debian_kernel
from tests.perform import narrow
from tests.perform.test_real_linux import release, userspace_after
from tests.qemu.pcs import QUIET, token
from tests.qemu.pcs import initramfs as wide_initramfs
from tightrope import host, image
from tightrope.deeds import old_kernel, performable
from tightrope.deeds.rehearse import rehearse
from tightrope.model import Paging
from tightrope.plan import Request

MEBIBYTES = 512


def planned(old: str, new: str, paging: Paging, initrd: bytes, words: str) -> bytes:
    """A plan from one of Debian's kernels to another, rehearsed; what `load` takes."""
    path, leaving = debian_kernel(new), debian_kernel(old)
    code = old_kernel.read(leaving.read_bytes(), leaving.name)
    verdict = rehearse(
        image.read(path.read_bytes(), path.name),
        code.host(host.read(host.example(paging, pc=MEBIBYTES), "a PC")),
        code.request(Request(initrd=initrd, command_line=words, from_top=True)),
        design=code.participant,
    )
    load = performable.load(verdict)
    assert load is not None, verdict.findings
    return load


def test_a_chain_of_32_bits_ends_in_64() -> None:
    word = token()
    words = f"{QUIET} tightrope.token={word}"
    second = planned("686-pae", "cloud-amd64", Paging.PAE, wide_initramfs("amd64"), words)
    carried = gzip.compress(narrow.initramfs({"plan": second}), 1)
    first = planned("686", "686-pae", Paging.I386, carried, QUIET)
    with narrow.NarrowLinux("686", {"plan": first}, MEBIBYTES).up() as guest:
        for kernel in ("686", "686-pae"):
            assert guest.do("uname -r") == (0, [release(kernel)])
            status, lines = guest.do("tightrope load plan --via kexec_file_load --really")
            assert (status, "has its places already" in lines[-1]) == (2, True), lines
            status, lines = guest.do("tightrope load plan --really")
            assert (status, lines[-1]) == (0, "loaded: a kexec image"), lines
            status, lines = guest.do("tightrope status")
            assert (status, lines[1]) == (0, "loaded          yes"), lines
            if kernel == "686":
                guest.pc.say("tightrope exec --really\n")
                guest.wait(guest.greeting)
        said = userspace_after(guest, "tightrope exec --really", word)
    assert said == f"tightrope: userspace {word} {release('cloud-amd64')} x86_64"
