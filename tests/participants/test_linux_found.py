"""relocate_kernel in Debian's kernels, and in images that have none, or one that is not known."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import debian_kernel
from tightrope.errors import ImageError
from tightrope.image import vmlinux
from tightrope.memory import PAGE_SIZE, Virt
from tightrope.model.vmlinux import LinkedSegment, Symbols, Vmlinux
from tightrope.participants.linux import Convention, Found, find

CONVENTIONS = {
    "amd64": Convention.LINUX_6,
    "cloud-amd64": Convention.LINUX_6,
    "686": Convention.LINUX_I386,
    "686-pae": Convention.LINUX_I386,
    "amd64-6.12": Convention.LINUX_6,
    "cloud-amd64-6.12": Convention.LINUX_6,
    "amd64-7.2": Convention.LINUX_7,
    "cloud-amd64-7.2": Convention.LINUX_7,
    "amd64-7.3": Convention.LINUX_7,
    "cloud-amd64-7.3": Convention.LINUX_7,
}


def found(flavour: str) -> Found:
    return find(vmlinux.read(debian_kernel(flavour).read_bytes(), flavour))


@pytest.fixture(scope="module")
def six() -> Found:
    return found("amd64")


@pytest.fixture(scope="module")
def seven() -> Found:
    return found("cloud-amd64-7.3")


@pytest.mark.parametrize("flavour", CONVENTIONS)
def test_every_debian_kernel_has_a_known_convention(flavour: str) -> None:
    kernel = vmlinux.read(debian_kernel(flavour).read_bytes(), flavour)
    got = find(kernel)
    assert got.convention is CONVENTIONS[flavour]
    assert got.version is not None
    assert kernel.at(got.virt, len(got.code)) == got.code
    unnamed = Vmlinux(
        source=flavour,
        bits=kernel.bits,
        version=kernel.version,
        segments=kernel.segments,
        symbols=None,
    )
    if got.convention is Convention.LINUX_7:
        # Its variables have no place without symbols.
        with pytest.raises(ImageError, match="no symbols"):
            find(unnamed)
    else:
        # Found by its signature, it is the same.
        again = find(unnamed)
        assert (again.virt, again.code) == (got.virt, got.code)
        assert again.symbols.items() <= got.symbols.items()


def test_six_is_a_page_of_text_and_half_of_it_is_copied(six: Found) -> None:
    assert six.virt % PAGE_SIZE == 0
    assert (len(six.page), len(six.code)) == (PAGE_SIZE, 2048)
    assert six.page.startswith(six.code)


def test_seven_carries_its_variables_gdt_and_idt(seven: Found) -> None:
    at = seven.symbols
    # A 32-bit and a 64-bit code segment, and a data segment (SDM 3.4.5); the null descriptor, which no
    # CPU reads, holds the limit that the code pushes for lgdt.
    gdt = [
        int.from_bytes(seven.code[at["kexec_debug_gdt"] + 8 * n :][:8], "little") for n in range(4)
    ]
    assert [hex(each) for each in gdt] == [
        "0x1f",
        "0xcf9a000000ffff",
        "0xaf9a000000ffff",
        "0xcf92000000ffff",
    ]
    # 16 gates, empty in the image: machine_kexec_prepare() fills them in.
    assert seven.code[at["kexec_debug_idt"] :] == bytes(16 * 16)
    assert seven.code[at["kexec_pa_table_page"] :][:8] == bytes(8)


# ------------------------------------------------------------------------- what is not known


def kernel_of(
    code: bytes, symbols: Mapping[str, int] | None, *, virt: int = 0xFFFF_FFFF_8100_0000
) -> Vmlinux:
    """A 64-bit kernel that is nothing but this code."""
    table = None
    if symbols is not None:
        rows = sorted((virt + offset, name) for name, offset in symbols.items())
        lines = [f"\nt{name}".encode() for _, name in rows]
        lengths = np.array([len(line) for line in lines], np.int64)
        table = Symbols(
            names=b"".join(lines) + b"\n",
            starts=np.cumsum(lengths) - lengths,
            addresses=np.array([address for address, _ in rows], np.uint64),
        )
    segment = LinkedSegment(virt=Virt(virt), data=memoryview(code))
    return Vmlinux(source="a kernel", bits=64, version="6.1", segments=(segment,), symbols=table)


def names(found: Found) -> dict[str, int]:
    return {**found.symbols, "_text": 0} | (
        {"__relocate_kernel_end": len(found.code)} if found.convention is Convention.LINUX_7 else {}
    )


def test_code_alone_is_enough(six: Found, seven: Found) -> None:
    for each, data in ((six, six.page), (seven, seven.code)):
        again = find(kernel_of(data, names(each)))
        assert (again.convention, again.code) == (each.convention, each.code)


def test_a_kernel_without_relocate_kernel_is_refused(six: Found) -> None:
    with pytest.raises(ImageError, match="relocate_kernel: has no relocate_kernel"):
        find(kernel_of(six.page, {"_text": 0, "kexec_load": 8}))
    with pytest.raises(ImageError, match="stand nowhere"):
        find(kernel_of(bytes(PAGE_SIZE), None))


def test_a_signature_that_stands_twice_is_no_signature(six: Found) -> None:
    with pytest.raises(ImageError, match="in 2 places"):
        find(kernel_of(six.page * 2, None))


@pytest.mark.parametrize(
    ("offset", "was", "becomes", "why"),
    [
        (0x40, "4c8b4e10", "4c8b4e08", "the root is another word of the array"),
        (0x3A, "4d89c4", "909090", "nothing is kept of the fifth argument"),
        (0x5D, "410f22d9", "90909090", "CR3 is not written"),
        (0x61, "498da000100000", "498da000080000", "the stack is elsewhere"),
    ],
)
def test_code_of_another_shape_is_not_known(
    six: Found, offset: int, was: str, becomes: str, why: str
) -> None:
    assert six.page[offset:].startswith(bytes.fromhex(was)), why
    other = six.page.replace(bytes.fromhex(was), bytes.fromhex(becomes), 1)
    with pytest.raises(ImageError, match="is not known"):
        find(kernel_of(other, names(six)))


def test_code_that_keeps_six_in_the_middle_of_a_page_is_not_known(six: Found) -> None:
    moved = bytes(64) + six.page
    with pytest.raises(ImageError, match="is not known"):
        find(kernel_of(moved, {name: at + 64 for name, at in names(six).items()}))


@pytest.mark.parametrize("lost", ["kexec_pa_table_page", "kexec_debug_idt", "identity_mapped"])
def test_seven_without_one_of_its_variables_is_not_known(seven: Found, lost: str) -> None:
    kept = {name: at for name, at in names(seven).items() if name != lost}
    with pytest.raises(ImageError, match="is not known"):
        find(kernel_of(seven.code, kept))


@pytest.mark.parametrize("size", [0, 1, 0x60, 0x7F, 2047])
def test_code_that_is_cut_off_is_refused(six: Found, size: int) -> None:
    with pytest.raises(ImageError):
        find(kernel_of(six.page[:size], names(six)))


@given(code=st.binary(min_size=2048, max_size=4096), identity=st.integers(-8, 4096))
def test_any_bytes_are_known_or_refused(code: bytes, identity: int) -> None:
    with pytest.raises(ImageError):
        find(kernel_of(code, {"_text": 0, "relocate_kernel": 0, "identity_mapped": identity}))
