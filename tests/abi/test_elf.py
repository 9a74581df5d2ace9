"""abi.elf: the layouts read what pyelftools reads, what is packed comes back, wrong names are refused."""

from __future__ import annotations

import struct
from io import BytesIO

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.elf import Segment
from tests.makers.elf import elf as made
from tightrope.abi import elf

BITS = st.sampled_from([32, 64])


@given(
    bits=BITS,
    entry=st.integers(1, 0xFFFF_FFFF),
    start=st.integers(0, 0xFFFF_0000),
    size=st.integers(1, 400),
    flags=st.integers(0, 7),
)
def test_headers_are_read_as_pyelftools_reads_them(
    bits: int, entry: int, start: int, size: int, flags: int
) -> None:
    data = made(Segment(start, bytes(size), flags=flags), bits=bits, entry=entry)
    theirs = ELFFile(BytesIO(data))
    header = elf.HEADER[bits].unpack(data)
    for name in ("entry", "phoff", "shoff", "flags", "ehsize", "phentsize", "phnum", "shnum"):
        assert header[name] == theirs.header[f"e_{name}"]
    assert elf.TYPES[header["type"]] == theirs.header["e_type"]
    assert elf.MACHINES[header["machine"]][0] == theirs.header["e_machine"]
    row = elf.PROGRAM_HEADER[bits].unpack(data, header["phoff"])
    other = theirs.get_segment(0).header
    for name in ("offset", "vaddr", "paddr", "filesz", "memsz", "flags", "align"):
        assert row[name] == other[f"p_{name}"]
    assert (row["type"], other["p_type"]) == (elf.PT_LOAD, "PT_LOAD")


@given(bits=BITS, values=st.lists(st.integers(0, 0xFFFF), min_size=20, max_size=20))
def test_what_is_packed_comes_back(bits: int, values: list[int]) -> None:
    for layout in (elf.HEADER[bits], elf.PROGRAM_HEADER[bits], elf.NOTE):
        given_ = {
            name: value % (1 << 8 * size)
            for (name, size), value in zip(layout.fields.items(), values, strict=False)
        }
        packed = layout.pack(**given_)
        assert (len(packed), layout.unpack(b"\xff" + packed, 1)) == (layout.size, given_)
        for name, value in given_.items():
            at = layout.offset(name)
            assert int.from_bytes(packed[at : at + layout.fields[name]], "little") == value


def test_what_is_not_given_is_zero_and_e_ident_says_what_it_is() -> None:
    packed = elf.HEADER[64].pack(**elf.ident(64), machine=elf.EM_X86_64)
    assert packed[:20] == b"\x7fELF\x02\x01\x01" + bytes(11) + b"\x3e\0"
    assert not any(packed[20:])


def test_wrong_names_values_and_lengths_are_refused() -> None:
    layout = elf.PROGRAM_HEADER[32]
    with pytest.raises(KeyError, match="p_type"):
        layout.pack(p_type=1)
    with pytest.raises(KeyError, match="e_entry"):
        layout.offset("e_entry")
    with pytest.raises(struct.error):
        layout.pack(paddr=1 << 32)
    with pytest.raises(struct.error):
        layout.unpack(bytes(31))
