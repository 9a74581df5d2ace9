"""Symbols recovered from the image alone: each layout, Debian's kernels, and bytes that hold none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.conftest import debian_kernel
from tests.makers.kallsyms import Layout, Symbol, laid
from tightrope.errors import ImageError
from tightrope.image import kallsyms, vmlinux
from tightrope.memory import Virt
from tightrope.model.vmlinux import LinkedSegment, Symbols, Vmlinux

TEXT = 0xFFFF_FFFF_8100_0000
TEXT_32 = 0xC100_0000
KERNELS = [
    *("amd64", "cloud-amd64", "686", "686-pae", "amd64-6.12", "cloud-amd64-6.12"),
    *("amd64-7.2", "cloud-amd64-7.2", "amd64-7.3", "cloud-amd64-7.3"),
]


def many(text: int, count: int = 1500, per_cpu: int = 0) -> list[Symbol]:
    """`_text`, names of every length up to two bytes of it, and per-CPU symbols below."""
    low = [Symbol(0x1000 * n, "A", f"percpu_{n}") for n in range(per_cpu)]
    names = [f"__pfx_{'relocate_' * (n % 20)}f{n}{'x' * (n % 149)}" for n in range(count)]
    return [
        *low,
        Symbol(text, "T", "_text"),
        *(Symbol(text + 16 * (n // 3), "t", name) for n, name in enumerate(names, 1)),
    ]


def recovered(data: bytes, text: int = TEXT, bits: int = 64) -> Symbols | None:
    return kallsyms.recover([LinkedSegment(virt=Virt(text), data=memoryview(data))], bits)


def as_rows(symbols: Symbols) -> list[tuple[int, str, str]]:
    lines = symbols.names.decode().split("\n")[1:-1]
    return [
        (int(address), line[0], line[1:])
        for address, line in zip(symbols.addresses, lines, strict=True)
    ]


@pytest.mark.parametrize(
    ("layout", "alignment"),
    [
        (Layout.OFFSETS_FIRST, 8),
        (Layout.OFFSETS_LAST, 8),
        (Layout.BY_PLACE, 8),
        (Layout.BY_PLACE, 4),
    ],
)
def test_every_layout_gives_every_symbol(layout: Layout, alignment: int) -> None:
    for count in (1500, 1501):
        wanted = many(TEXT, count)
        data = laid(
            wanted, virt=TEXT, layout=layout, alignment=alignment, before=b"some text\0" * 99
        )
        symbols = recovered(data)
        assert symbols is not None
        assert as_rows(symbols) == wanted


@pytest.mark.parametrize("layout", [Layout.OFFSETS_FIRST, Layout.OFFSETS_LAST])
def test_per_cpu_symbols_are_small_numbers(layout: Layout) -> None:
    wanted = many(TEXT, per_cpu=40)
    symbols = recovered(laid(wanted, virt=TEXT, layout=layout, absolute_per_cpu=True))
    assert symbols is not None
    assert as_rows(symbols) == wanted


def test_addresses_of_32_bits() -> None:
    wanted = many(TEXT_32)
    data = laid(wanted, virt=TEXT_32, bits=32, layout=Layout.OFFSETS_FIRST, alignment=4)
    symbols = recovered(data, TEXT_32, 32)
    assert symbols is not None
    assert as_rows(symbols) == wanted


@settings(max_examples=25)
@given(
    names=st.lists(
        st.text("abcdefgh_0123456789.kernl", min_size=1, max_size=300), min_size=600, max_size=900
    ),
    layout=st.sampled_from(Layout),
    before=st.binary(max_size=40),
    gap=st.integers(0, 0x1000),
)
def test_any_names_come_back(names: list[str], layout: Layout, before: bytes, gap: int) -> None:
    wanted = [
        Symbol(TEXT, "T", "_text"),
        *(Symbol(TEXT + gap * n, "b", name) for n, name in enumerate(names, 1)),
    ]
    symbols = recovered(laid(wanted, virt=TEXT, layout=layout, before=before))
    assert symbols is not None
    assert as_rows(symbols) == wanted


def test_a_name_that_stands_twice_has_no_address_and_two() -> None:
    wanted = [*many(TEXT), Symbol(TEXT + 0x9000, "t", "twice"), Symbol(TEXT + 0x9008, "t", "twice")]
    symbols = recovered(laid(wanted, virt=TEXT))
    assert symbols is not None
    assert symbols.address("twice") is None
    assert symbols.addresses_of("twice") == (TEXT + 0x9000, TEXT + 0x9008)
    # The end of another name is no name.
    assert symbols.addresses_of("text") == ()
    assert symbols.addresses_of("no such symbol") == ()


@pytest.mark.parametrize("kept", [0.0, 0.2, 0.5, 0.8, 0.9])
def test_tables_that_are_cut_off_are_none(kept: float) -> None:
    data = laid(many(TEXT), virt=TEXT)
    assert recovered(data[: int(len(data) * kept)]) is None


@pytest.mark.parametrize("what", ["names", "marker", "offset", "token"])
def test_one_wrong_byte_where_it_shows_gives_nothing_rather_than_something(what: str) -> None:
    wanted = many(TEXT)
    data = bytearray(laid(wanted, virt=TEXT, alignment=8))
    number_at = data.index(len(wanted).to_bytes(4, "little"))
    tokens_at = data.index(b"0\0001\0002\0003\0004\0")
    at = {
        # The length of the first name, a marker, the offset of a symbol in the middle, a token's end.
        "names": number_at + 8,
        "marker": data.rindex(bytes(4), 0, tokens_at - 0x60) + 4,
        "offset": len(data) - 23 - 4 * len(wanted) // 2 // 4 * 4,
        "token": tokens_at + 1,
    }[what]
    data[at] ^= 0x40
    data[at + 1] ^= 0x40
    assert recovered(bytes(data)) is None


@given(st.binary(max_size=4096))
def test_any_bytes_are_symbols_or_none(data: bytes) -> None:
    assert recovered(b"0\0001\0002\0003\0004\0005\0006\0007\0008\0009\0" + data) is None


# ------------------------------------------------------------------------------ Debian's kernels


@pytest.fixture(scope="module", params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> Vmlinux:
    path: Path = debian_kernel(request.param)
    return vmlinux.read(path.read_bytes(), request.param)


def exports(kernel: Vmlinux) -> list[tuple[int, str]]:
    """Address and name of what the kernel exports to modules: another table, of the linker's making.

    An entry of __ksymtab is three words of 32 bits: the symbol, its name and its namespace, each counted
    from its own place (Linux include/linux/export-internal.h).
    """
    runs = []
    for segment in kernel.segments:
        data = bytes(segment.data)
        words = np.frombuffer(data[: len(data) // 4 * 4], "<i4").astype(np.int64)
        targets = 4 * np.arange(len(words)) + words
        at = data.find(b"kfree\0")
        while at >= 0:
            hits = np.nonzero(targets == at)[0]
            runs += [list(_run(kernel, segment, data, targets, int(hit))) for hit in hits]
            at = data.find(b"kfree\0", at + 1)
    # Other tables count names from their own places, too; none is as long.
    return max(runs, key=len)


def _run(
    kernel: Vmlinux, segment: LinkedSegment, data: bytes, targets: NDArray[np.int64], hit: int
) -> Iterator[tuple[int, str]]:
    """The entries around one whose name is at `hit`, as far as they are entries."""
    for step in (3, -3):
        at = hit if step > 0 else hit - 3
        while 0 < at < len(targets) and 0 < (name := int(targets[at])) < len(data):
            text = data[name : data.find(b"\0", name)]
            if not 0 < len(text) < 128 or not all(0x21 <= letter < 0x7F for letter in text):
                break
            virt = segment.virt + int(targets[at - 1])
            yield virt & (1 << kernel.bits) - 1, text.decode()
            at += step


def test_what_the_linker_says_of_exported_symbols_agrees(kernel: Vmlinux) -> None:
    symbols = kernel.symbols
    assert symbols is not None
    rows = as_rows(symbols)
    said = {(address, name) for address, _, name in rows}
    names = {name for _, _, name in rows}
    told = {(address, name) for address, name in exports(kernel) if name in names}
    assert len(told) > 4000
    assert told <= said


def test_the_banner_lies_where_its_symbol_says(kernel: Vmlinux) -> None:
    assert kernel.symbols is not None
    # Kernels of i386 list functions alone (CONFIG_KALLSYMS_ALL is off).
    for address in kernel.symbols.addresses_of("linux_banner"):
        assert kernel.at(address, 14) == b"Linux version "
    assert kernel.symbols.addresses_of("linux_banner") or kernel.bits == 32


def test_relocate_kernel_begins_by_saving_registers(kernel: Vmlinux) -> None:
    assert kernel.symbols is not None
    address = kernel.symbols.address("relocate_kernel")
    assert address is not None
    # push %rbx, push %rbp; push %ebx, push %esi on i386.
    assert kernel.at(address, 2) == (b"\x53\x55" if kernel.bits == 64 else b"\x53\x56")


# ------------------------------------------------------------------------- what is none


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"#!/bin/sh\n", bytes(4096)])
def test_what_is_no_kernel_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError):
        vmlinux.read(data, "a file")
