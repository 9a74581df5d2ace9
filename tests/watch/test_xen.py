"""Xen in a guest's memory: found by Debian's own bytes, also where XPTI leaves one page of it mapped, and told
in one line where it is not; what it has loaded is read or refused.  Real guests are in test_watch.py."""

from __future__ import annotations

from functools import cache
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import debian_kernel
from tests.watch.test_kernel import KERNEL, LARGE, MMU, PAGE, Made
from tightrope.deeds.watch.loaded import read_list
from tightrope.deeds.watch.memory import GuestMemory
from tightrope.deeds.watch.width import WIDE
from tightrope.deeds.watch.xen import HEADER, TEXTS, GuestXen, find_xen, read_image, resources
from tightrope.errors import BadInput, ImageError, TightropeError
from tightrope.image import kallsyms, vmlinux
from tightrope.machine.attached import Attached
from tightrope.memory import Extent
from tightrope.model import ZERO_FRAME

VERSIONS = {"xen-amd64": "4.17", "xen-amd64-4.20": "4.20"}


@cache
def code(flavour: str) -> bytes:
    """A hypervisor's one segment, as it lies from its _start on."""
    segments = vmlinux.hypervisor(debian_kernel(flavour).read_bytes(), flavour)
    assert segments is not None
    (segment,) = segments
    return bytes(segment.data)


def runs(flavour: str, text: int, *, xpti: bool = False) -> Made:
    """A guest under this Xen; with `xpti` one page of its first 2 MiB is mapped."""
    guest = Made(text, text + LARGE)
    guest.data[LARGE : LARGE + len(code(flavour))] = code(flavour)
    if xpti:
        table, page = 6 * LARGE, 5
        entry = MMU.cr3
        for low in (39, 30, 21):
            at = (entry & -PAGE) + (text >> low & 511) * 8
            entry = int.from_bytes(guest.data[at : at + 8], "little")
        guest.data[at : at + 16] = (table | 3).to_bytes(16, "little")
        guest.data[table + 8 * page : table + 8 * page + 8] = (LARGE + page * PAGE | 3).to_bytes(
            8, "little"
        )
    return guest


def memory(guest: Made) -> GuestMemory:
    return GuestMemory(cast("Attached", guest))


def found(guest: Made, image: bytes | None = None) -> GuestXen | None:
    return find_xen(memory(guest), MMU, image, "--from")


@pytest.mark.parametrize("xpti", [False, True], ids=["mapped", "XPTI"])
@pytest.mark.parametrize("flavour", VERSIONS)
@pytest.mark.parametrize("text", TEXTS)
def test_debians_xen_is_found_by_its_own_bytes(text: int, flavour: str, xpti: bool) -> None:
    known = found(runs(flavour, text, xpti=xpti))
    assert known is not None
    assert (known.text, known.phys, known.version) == (text, LARGE, VERSIONS[flavour])
    at = known.address("kexec_reloc") - text
    assert code(flavour)[at:].startswith(known.code)
    labels = known.participant.code.symbols
    assert 0 < labels["after_table_a"] < labels["identity_mapped"] < labels["relocate_pages"]
    # push %rbx; cld; mov %rdi, %rbx: relocate_pages in both (kexec_reloc.S).
    assert known.code[labels["relocate_pages"] :].startswith(bytes.fromhex("53fc4889fb"))


def test_a_guest_without_xen_has_none() -> None:
    assert found(Made(*KERNEL)) is None


def test_a_xen_is_known_by_its_image_as_well() -> None:
    by_image = found(runs("xen-amd64", TEXTS[0]), debian_kernel("xen-amd64").read_bytes())
    assert by_image is not None
    assert by_image.version == "4.17"


@pytest.mark.parametrize(
    ("image", "error", "said"),
    [
        ("xen-amd64-4.20", ImageError, "--from: kexec_reloc: is not the Xen that the guest runs"),
        ("cloud-amd64", ImageError, "--from: is not Xen, and the guest runs under one"),
    ],
)
def test_another_image_is_one_line(image: str, error: type[TightropeError], said: str) -> None:
    with pytest.raises(error, match=f"^{said}"):
        found(runs("xen-amd64", TEXTS[0]), debian_kernel(image).read_bytes())


def test_a_xen_without_symbols_is_one_line() -> None:
    with pytest.raises(BadInput, match=r"a Xen whose symbols cannot be read: .* --from"):
        found(Made(TEXTS[0], TEXTS[0] + LARGE))


@given(st.binary(max_size=1 << 14), st.integers(0, 1 << 21))
def test_whatever_bytes_lie_there_symbols_are_found_or_not(noise: bytes, at: int) -> None:
    data = bytearray(code("xen-amd64"))
    data[at : at + len(noise)] = noise
    got = kallsyms.of_hypervisor(memoryview(data))
    assert got is None or got[1] == LARGE


# ----------------------------------------------------------------------------- what is loaded

ROWS, LIST = 4 * LARGE, 4 * LARGE + PAGE
"""Machine addresses that `loaded` lays things at."""


def loaded(**changes: int) -> tuple[GuestXen, GuestMemory, int]:
    """A guest under Xen that has loaded two segments and one without a buffer."""
    guest = runs("xen-amd64", TEXTS[0])
    kernel = found(guest)
    assert kernel is not None
    value = {"kind": 0, "arch": 62, "start": 0x10_0000, "count": 3, "head": LIST} | changes
    at = LARGE + 2 * LARGE - PAGE  # at the end of what is mapped
    rows = at + 256
    virt = TEXTS[0] + at - LARGE
    guest.data[at : at + HEADER.size] = HEADER.pack(
        value["kind"], value["arch"], value["start"], value["count"], virt + 256, value["head"]
    )
    for number, row in enumerate(
        [(1, PAGE, 0x10_0000, 2 * PAGE), (0, 0, 0, 0x10_0000), (1, 10, 0x20_0000, PAGE)]
    ):
        for word, number_of in enumerate(row):
            place = rows + 32 * number + 8 * word
            guest.data[place : place + 8] = number_of.to_bytes(8, "little")
    words = [0x10_0001, 5 * LARGE | 8, 0x10, 0x20_0001, 5 * LARGE + PAGE | 8, 4]
    guest.data[LIST : LIST + 8 * len(words)] = b"".join(e.to_bytes(8, "little") for e in words)
    return kernel, memory(guest), virt


def test_what_is_loaded_is_read_with_pages_that_are_cleared() -> None:
    kernel, lies, at = loaded()
    image = read_image(lies, kernel, at)
    assert (image.crash, image.start, image.broken) == (False, 0x10_0000, None)
    assert [extent.start for extent, _ in image.segments] == [0x10_0000, 0x20_0000]
    assert image.mapped == (Extent(0, 0x10_0000),)
    assert image.destinations.tolist() == [0x100, 0x101, 0x200]
    assert image.sources.tolist() == [5 * LARGE >> 12, ZERO_FRAME, (5 * LARGE >> 12) + 1]


@pytest.mark.parametrize("change", [{"kind": 2}, {"arch": 8}, {"count": 0}, {"count": 16}])
def test_what_is_no_kexec_image_is_one_line(change: dict[str, int]) -> None:
    kernel, lies, at = loaded(**change)
    with pytest.raises(BadInput, match="is called with no kexec_image"):
        read_image(lies, kernel, at)


def test_a_list_that_leads_nowhere_is_told_as_such() -> None:
    kernel, lies, at = loaded(head=1 << 39)
    assert "where there is no memory" in (read_image(lies, kernel, at).broken or "")


def test_linux_clears_nothing_by_its_list() -> None:
    _, lies, _ = loaded()
    *_, broken = read_list(lies, LIST | 2, WIDE)
    assert broken == "0x10 is not a word of a list"


def test_a_memory_map_of_too_many_rows_is_one_line() -> None:
    kernel, lies, _ = loaded()
    with pytest.raises((BadInput, TightropeError)):
        list(resources(lies, kernel, crash=False))
