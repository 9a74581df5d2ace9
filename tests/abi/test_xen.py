"""Xen's structures against what a C compiler's rules make of the header, and against known values."""

from __future__ import annotations

import ctypes
from ctypes import c_int, c_uint, c_uint8, c_uint16, c_uint32, c_uint64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.abi import xen
from tightrope.abi.xen import Record

# The header's own words: unsigned long is 8 bytes on x86_64 and 4 on i386.
C_STRUCTURES: dict[str, list[tuple[str, Any]]] = {
    "KEXEC_EXEC": [("type", c_int)],
    "KEXEC_LOAD_V1": [
        ("type", c_int),
        ("page_list", c_uint64 * 17),
        ("indirection_page", c_uint64),
        ("start_address", c_uint64),
    ],
    "KEXEC_LOAD_V1_I386": [
        ("type", c_int),
        ("page_list", c_uint32 * 17),
        ("indirection_page", c_uint32),
        ("start_address", c_uint32),
    ],
    "KEXEC_RANGE": [("range", c_int), ("nr", c_int), ("size", c_uint64), ("start", c_uint64)],
    "KEXEC_RANGE_I386": [("range", c_int), ("nr", c_int), ("size", c_uint32), ("start", c_uint32)],
    "KEXEC_SEGMENT": [
        ("buf", c_uint64),
        ("buf_size", c_uint64),
        ("dest_maddr", c_uint64),
        ("dest_size", c_uint64),
    ],
    "KEXEC_LOAD": [
        ("type", c_uint8),
        ("_pad", c_uint8),
        ("arch", c_uint16),
        ("nr_segments", c_uint32),
        ("segments", c_uint64),
        ("entry_maddr", c_uint64),
    ],
    "KEXEC_UNLOAD": [("type", c_uint8)],
    "KEXEC_STATUS": [("type", c_uint8)],
    "MEMORY_MAP": [("nr_entries", c_uint), ("buffer", c_uint64)],
    "MEMORY_RESERVATION": [
        ("extent_start", c_uint64),
        ("nr_extents", c_uint64),
        ("extent_order", c_uint),
        ("mem_flags", c_uint),
        ("domid", c_uint16),
    ],
    "PRIVCMD_HYPERCALL": [("op", c_uint64), ("arg", c_uint64 * 5)],
    "PRIVCMD_MMAP": [("num", c_int), ("dom", c_uint16), ("entry", c_uint64)],
    "PRIVCMD_MMAP_ENTRY": [("va", c_uint64), ("mfn", c_uint64), ("npages", c_uint64)],
    "PRIVCMD_MMAPBATCH_V2": [
        ("num", c_uint),
        ("dom", c_uint16),
        ("addr", c_uint64),
        ("arr", c_uint64),
        ("err", c_uint64),
    ],
}


@pytest.mark.parametrize("name", C_STRUCTURES)
def test_a_structure_has_the_size_and_the_offsets_that_c_gives_it(name: str) -> None:
    made = type("made", (ctypes.Structure,), {"_fields_": C_STRUCTURES[name]})
    record: Record = getattr(xen, name)
    assert record.size == ctypes.sizeof(made)
    for field, _kind in C_STRUCTURES[name]:
        if field != "_pad":
            assert record.offset(field) == getattr(made, field).offset


def test_the_v1_load_argument_has_160_bytes_and_80_on_i386() -> None:
    assert xen.KEXEC_LOAD_V1.size == 160
    assert xen.KEXEC_LOAD_V1_I386.size == 80
    assert xen.KEXEC_LOAD_V1.offset("indirection_page") == 8 + 136


def test_every_structure_is_among_them_but_the_packed_one() -> None:
    records = {name for name, value in vars(xen).items() if isinstance(value, Record)}
    # Xen's e820entry is packed: 20 bytes, where C would have 24.
    assert records - set(C_STRUCTURES) == {"MEMORY_MAP_ENTRY"}


def test_ioctl_numbers_are_those_that_run_on_a_real_dom0() -> None:
    assert xen.IOCTL_PRIVCMD_HYPERCALL == 0x305000
    assert xen.IOCTL_PRIVCMD_MMAP == 0x105002
    assert xen.IOCTL_PRIVCMD_MMAPBATCH_V2 == 0x205004
    assert int(xen.Hypercall.KEXEC_OP) == 37


def test_page_list_has_the_slots_of_the_thread() -> None:
    assert 2 * len(xen.X86_64_SLOTS) + 1 == xen.NO_PAGES == xen.PA_TABLE_PAGE + 1
    assert 2 * len(xen.PAE_SLOTS) == 12
    assert 2 * len(xen.I386_SLOTS) == 8
    assert xen.PAE_SLOTS[: len(xen.I386_SLOTS)] == xen.I386_SLOTS


@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=17, max_size=17),
    st.integers(0, 2**64 - 1),
    st.integers(-(2**31), 2**31 - 1),
)
def test_what_was_packed_is_unpacked(slots: list[int], head: int, kind: int) -> None:
    values = {"type": kind, "page_list": tuple(slots), "indirection_page": head}
    got = xen.KEXEC_LOAD_V1.unpack(xen.KEXEC_LOAD_V1.pack(**values))  # type: ignore[arg-type]
    assert got == {**values, "start_address": 0}


def test_what_is_not_there_or_does_not_fit_is_refused() -> None:
    with pytest.raises(KeyError, match="xen_kexec_exec has no kind"):
        xen.KEXEC_EXEC.pack(kind=1)
    with pytest.raises(KeyError, match="has no pad"):
        xen.KEXEC_LOAD.offset("pad")
    with pytest.raises(Exception, match="ubyte"):
        xen.KEXEC_UNLOAD.pack(type=256)
    with pytest.raises(ValueError, match="4 bytes, not 5"):
        Record("made", (("one", "I"),), 5)
