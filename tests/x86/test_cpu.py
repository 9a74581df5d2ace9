"""Legal and illegal writes: every refusal of the manual with its nearest legal neighbour beside it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import REPOSITORY
from tightrope.x86 import control
from tightrope.x86.bits import named_bits
from tightrope.x86.control import IN_TDX, IS_AMD, IS_INTEL, Vendor
from tightrope.x86.cpu import (
    CR4_DEFINED,
    CR4_NAMES,
    EFER_NAMES,
    WITH_ERROR_CODE,
    ControlState,
    Descriptor,
    cr0_refusal,
    cr3_refusal,
    cr4_refusal,
    efer_refusal,
    flat_descriptor,
    flushes_everything,
    impossible,
    segment_refusal,
    table_refusal,
)

# Bit numbers by hand from SDM 2.5 and 2.2.1, not from the module under test.
PE, NE, WP, NW, CD, PG = (1 << n for n in (0, 5, 16, 29, 30, 31))
PSE, PAE, MCE, PGE = (1 << n for n in (4, 5, 6, 7))
LA57, PCIDE, SMEP, SMAP, CET = (1 << n for n in (12, 17, 20, 21, 23))
SCE, LME, LMA, NXE = 1, 1 << 8, 1 << 10, 1 << 11

LONG = ControlState(
    cr0=PG | WP | NE | PE,
    cr3=0x1000,
    cr4=PAE | PGE,
    efer=LME | LMA | NXE,
    code64=True,
    physical_bits=46,
    la57=True,
)
"""64-bit mode."""
COMPAT = replace(LONG, code64=False)
LEGACY = replace(LONG, cr0=WP | NE | PE, cr4=PAE, efer=0, code64=False)
"""32-bit code, paging off."""
PAGED32 = replace(LEGACY, cr0=LONG.cr0)


def check(said: str | None, expected: str | None) -> None:
    """A refusal says why; a legal write says nothing."""
    if expected is None:
        assert said is None
    else:
        assert said is not None
        assert expected in said


@pytest.mark.parametrize(
    ("now", "value", "expected"),
    [
        (LONG, LONG.cr0, None),
        (LONG, LONG.cr0 | 1 << 32, "63:32"),
        (LONG, LONG.cr0 | 1 << 63, "63:32"),
        (LONG, LONG.cr0 & ~PE, "PG needs CR0.PE"),
        (LEGACY, NE | PG, "PG needs CR0.PE"),
        (LEGACY, NE, None),
        (LONG, LONG.cr0 | NW, "NW needs CR0.CD"),
        (LONG, LONG.cr0 | NW | CD, None),
        (LONG, LONG.cr0 | CD, None),
        (LONG, LONG.cr0 & ~WP, None),
        (replace(LONG, cr4=PAE | CET), LONG.cr0 & ~WP, "WP cannot be cleared while CR4.CET"),
        (replace(LONG, cr4=PAE | CET), LONG.cr0, None),
        # Paging off: from compatibility mode only, and not with PCIDs.
        (LONG, LONG.cr0 & ~PG, "cannot be cleared in 64-bit code"),
        (COMPAT, LONG.cr0 & ~PG, None),
        (COMPAT, LONG.cr0 & ~PG & ~PE, None),
        (PAGED32, LONG.cr0 & ~PG, None),
        # CS.L means nothing outside long mode (SDM 3.4.5).
        (replace(PAGED32, code64=True), LONG.cr0 & ~PG, None),
        (replace(COMPAT, cr4=PAE | PCIDE), LONG.cr0 & ~PG, "while CR4.PCIDE is set"),
        (replace(COMPAT, cr4=PAE | PCIDE), LONG.cr0, None),
        # Paging on with LME enters long mode.
        (replace(LEGACY, efer=LME), LONG.cr0, None),
        (replace(LEGACY, efer=LME, cr4=0), LONG.cr0, "needs CR4.PAE"),
        (replace(LEGACY, efer=0, cr4=0), LONG.cr0, None),
        (replace(LEGACY, efer=LME, code64=True), LONG.cr0, "needs CS.L = 0"),
        (replace(LEGACY, efer=0, code64=True), LONG.cr0, None),
        (replace(LEGACY, efer=LME, cr4=0), LEGACY.cr0, None),
        # Already on: no entering, so a flag that entering needs is not asked for.
        (replace(PAGED32, cr4=0), LONG.cr0 & ~NE, None),
    ],
)
def test_mov_to_cr0(now: ControlState, value: int, expected: str | None) -> None:
    """SDM volume 2B, MOV to CR0."""
    check(cr0_refusal(now, value), expected)


@pytest.mark.parametrize(
    ("now", "value", "expected"),
    [
        (LONG, 0x1000, None),
        (LONG, 0x1FFF, None),
        (LONG, 1 << 45, None),
        (LONG, 1 << 46, "63:46"),
        (replace(LONG, physical_bits=47), 1 << 46, None),
        (LONG, 0x1000 | 1 << 60, "63:46"),
        (LONG, 0x1000 | 1 << 63, "63:46"),
        (replace(LONG, cr4=PAE | PCIDE), 0x1000 | 1 << 63, None),
        (replace(LONG, cr4=PAE | PCIDE), 0x1000 | 1 << 60, "63:46"),
        # LAM_U57 and LAM_U48 (SDM volume 3, table 4-12): of a CPU that has them, and none of AMD's.
        (LONG, 0x1000 | 1 << 61, "without LAM"),
        (replace(LONG, facts=IS_INTEL), 0x1000 | 3 << 61, "without LAM"),
        (replace(LONG, cr3=0x2000 | 1 << 62), 0x1000 | 3 << 61, None),
        (replace(LONG, facts=IS_AMD), 0x1000 | 1 << 61, "63:46"),
        (replace(LONG, facts=IS_AMD), 0x1000 | 1 << 62, "63:46"),
        (replace(LONG, physical_bits=52), (1 << 52) - 1, None),
    ],
)
def test_mov_to_cr3(now: ControlState, value: int, expected: str | None) -> None:
    """SDM volume 2B, MOV to CR3; bit 63 with PCIDs: 4.10.4.1."""
    check(cr3_refusal(now, value), expected)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (LONG, None),
        (LEGACY, None),
        (PAGED32, None),
        (replace(LONG, cr0=LONG.cr0 & ~PE), ("cr0", "PG needs CR0.PE")),
        (replace(LONG, cr4=PGE), ("cr4", "PAE cannot be cleared in long mode")),
        # A process's LAM bits stay in CR3, and what orders a write not to flush does not.
        (replace(LONG, cr3=0x1000 | 1 << 62), None),
        (replace(LONG, cr3=0x1000 | 1 << 62, facts=IS_AMD), ("cr3", "63:46")),
        (replace(LONG, cr3=0x1000 | 1 << 46), ("cr3", "63:46")),
        (replace(LONG, cr3=0x1FFF, cr4=PAE | PCIDE), None),
        (replace(LONG, cr3=0x1000 | 1 << 63, cr4=PAE | PCIDE), ("cr3", "63:46")),
        (replace(LONG, efer=LONG.efer | 1 << 9), ("efer", "reserved")),
        (replace(LONG, efer=LONG.efer | 1 << 21), None),
        (replace(LONG, efer=LONG.efer | 1 << 21, facts=IS_INTEL), ("efer", "Intel's CPUs")),
        # What a TDX guest may not write is there all the same.
        (replace(LONG, cr4=PAE | MCE, facts=IS_INTEL | IN_TDX), None),
        (replace(LONG, cr4=PAE, facts=IN_TDX), ("cr4", "MCE cannot be cleared in a TDX guest")),
        (
            replace(LONG, cr4=PAE | MCE, efer=LONG.efer | 1 << 21, facts=IS_INTEL | IN_TDX),
            ("efer", "Intel's CPUs"),
        ),
    ],
)
def test_what_no_write_leaves_there_is_told_of_all_four(
    now: ControlState, said: tuple[str, str] | None
) -> None:
    register, reason = impossible(now) or ("", None)
    assert register == (said[0] if said else "")
    check(reason, said[1] if said else None)


@pytest.mark.parametrize(
    ("now", "value", "expected"),
    [
        (LONG, LONG.cr4, None),
        (LONG, LONG.cr4 & ~PGE, None),
        (LONG, LONG.cr4 | SMEP | SMAP, None),
        (LONG, LONG.cr4 | 1 << 15, "0x8000 are reserved"),
        (LONG, LONG.cr4 | 1 << 14, None),
        (LONG, LONG.cr4 | 1 << 63, "are reserved"),
        (LEGACY, PAE | LA57, None),
        (replace(LEGACY, la57=False), PAE | LA57, "LA57 is reserved on this CPU"),
        (replace(LEGACY, la57=False), PAE, None),
        (LONG, LONG.cr4 | CET, None),
        (replace(LONG, cr0=LONG.cr0 & ~WP), LONG.cr4 | CET, "CET needs CR0.WP"),
        (replace(LONG, cr0=LONG.cr0 & ~WP), LONG.cr4, None),
        (LONG, PGE, "PAE cannot be cleared in long mode"),
        (COMPAT, 0, "PAE cannot be cleared in long mode"),
        (PAGED32, 0, None),
        (replace(LEGACY, efer=LME), 0, None),
        (LONG, LONG.cr4 | LA57, "LA57 cannot be changed"),
        (replace(LONG, cr4=PAE | LA57), PAE, "LA57 cannot be changed"),
        (replace(LONG, cr4=PAE | LA57), PAE | LA57 | PGE, None),
        (replace(LEGACY, cr4=PAE | LA57), PAE, None),
        (LONG, LONG.cr4 | PCIDE, None),
        (replace(LONG, cr3=0x1001), LONG.cr4 | PCIDE, "CR3 bits 11:0 are not zero"),
        (replace(LONG, cr3=0x1800), LONG.cr4 | PCIDE, "CR3 bits 11:0 are not zero"),
        # Once set, CR3's low bits are the PCID, and the flag may stay or go.
        (replace(LONG, cr3=0x1001, cr4=PAE | PCIDE), PAE | PCIDE, None),
        (replace(LONG, cr3=0x1001, cr4=PAE | PCIDE), PAE, None),
        (PAGED32, PAE | PCIDE, "PCIDE needs long mode"),
        (COMPAT, LONG.cr4 | PCIDE, None),
    ],
)
def test_mov_to_cr4(now: ControlState, value: int, expected: str | None) -> None:
    """SDM volume 2B, MOV to CR4."""
    check(cr4_refusal(now, value), expected)


@pytest.mark.parametrize(
    ("now", "value", "expected"),
    [
        (LONG, LONG.efer, None),
        (LONG, LONG.efer | SCE, None),
        (LONG, LONG.efer & ~NXE, None),
        (LONG, LONG.efer | 1 << 9, "reserved"),
        (LONG, LONG.efer | 1 << 16, "EFER bits 0x10000 are reserved"),
        (LONG, LONG.efer | 1 << 40, "reserved"),
        # What Linux sets on current AMD CPUs: TCE and AIBRSE; SVME is KVM's.
        (LONG, LONG.efer | 1 << 21 | 1 << 15 | 1 << 12, None),
        (replace(LONG, efer=LONG.efer | 1 << 21), LONG.efer, None),
        (LONG, LONG.efer & ~LME, "LME cannot be changed while paging is on"),
        (PAGED32, LME, "LME cannot be changed while paging is on"),
        (PAGED32, NXE, None),
        (LEGACY, LME, None),
        (replace(LEGACY, efer=LME), 0, None),
        # LMA is the CPU's own: what is written to it is ignored.
        (LONG, LONG.efer & ~LMA, None),
    ],
)
def test_wrmsr_to_efer(now: ControlState, value: int, expected: str | None) -> None:
    """SDM volume 4, IA32_EFER; volume 3A, 9.8.5.1."""
    check(efer_refusal(now, value), expected)


# Every bit by hand: SDM 2.5 and 2.2.1, FRED's specification, APM volume 2, 3.1.7.
CR4_BY_HAND = (*range(15), *range(16, 26), 27, 28, 32)
EFER_BY_HAND = (0, 8, 10, 11, 12, 13, 14, 15, 17, 18, 20, 21)
FRED_HOST = 0x1_0037_06F0
"""CR4 of a Linux with FRED, as VirtualBox#784 shows it."""


def test_cr4s_defined_bits_are_those_with_a_name() -> None:
    assert sum(1 << number for number in CR4_BY_HAND) == CR4_DEFINED
    assert bin(CR4_DEFINED).count("1") == len(CR4_NAMES)
    for number in range(64):
        value = LEGACY.cr4 | 1 << number
        refused = cr4_refusal(replace(LEGACY, cr4=value), value)
        assert (refused is not None) == (number not in CR4_BY_HAND)


def test_efers_defined_bits_are_those_with_a_name() -> None:
    assert sum(EFER_NAMES.values()) == sum(1 << number for number in EFER_BY_HAND)
    for number in range(64):
        now = replace(LEGACY, efer=1 << number)
        refused = efer_refusal(now, now.efer)
        assert (refused is not None) == (number not in EFER_BY_HAND)


def test_what_linux_sets_on_a_cpu_with_fred_may_stay_and_may_go() -> None:
    now = replace(LONG, cr4=FRED_HOST)
    for value in (FRED_HOST, FRED_HOST & ~(1 << 32), PAE, FRED_HOST | 1 << 27):
        assert cr4_refusal(now, value) is None
    assert named_bits(FRED_HOST, CR4_NAMES).split()[-1] == "FRED"


@pytest.mark.parametrize("bits", [control.CR0, control.CR4, control.EFER])
def test_a_table_of_bits_is_in_order_and_says_whose_each_is(
    bits: tuple[control.ControlBit, ...],
) -> None:
    numbers = [each.number for each in bits]
    assert numbers == sorted(set(numbers))
    assert len({each.name for each in bits}) == len(bits)
    both = control.defined(bits, Vendor.INTEL) & control.defined(bits, Vendor.AMD)
    assert both == sum(each.mask for each in bits if each.vendor is Vendor.BOTH)


def test_a_bit_of_one_vendor_is_reserved_on_the_others_cpus() -> None:
    assert control.defined(control.EFER, Vendor.INTEL) == SCE | LME | LMA | NXE
    assert not control.defined(control.CR4, Vendor.AMD) & (1 << 13 | 1 << 27)


def test_the_docs_have_every_bit_and_what_it_means_to_the_walk() -> None:
    text = (REPOSITORY / "docs" / "theory.md").read_text("utf-8")
    text = text.split("## Control registers, bit by bit")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)\.(\w+)` \| (\d+) \| (\w+) \| (.+) \|$", text, re.MULTILINE)
    named = re.findall(r"`(CR0|CR4|EFER)\.(\w+)`", text.split("These do not:")[1])
    registers = {"CR0": control.CR0, "CR4": control.CR4, "EFER": control.EFER}
    whose = {Vendor.BOTH: "both", Vendor.INTEL: "Intel", Vendor.AMD: "AMD"}
    every = [(name, bit) for name, bits in registers.items() for bit in bits]
    assert rows == [
        (name, bit.name, str(bit.number), whose[bit.vendor], bit.walk)
        for name, bit in every
        if bit.walk
    ]
    assert named == [(name, bit.name) for name, bit in every if not bit.walk]


@pytest.mark.parametrize(
    ("before", "after", "flushes"),
    [
        (PAE, PAE, False),
        (PAE | PGE, PAE, True),
        (PAE, PAE | PGE, True),
        (PAE | PCIDE, PAE, True),
        (PAE, PAE | PCIDE, False),
        (PAE, PAE | SMEP, True),
        (PAE | SMEP, PAE, False),
        (PAE, PAE | SMAP, False),
        (PAE | SMAP, PAE, False),
        (PAE, PAE | LA57, False),
        (0, PAE, True),
        (PAE, 0, True),
        (PAE, PAE | PSE, True),
        (PAE | PSE, PAE, True),
        (PAE | PGE | SMEP, PAE | PGE | SMEP, False),
    ],
)
def test_which_cr4_writes_flush_global_entries_too(before: int, after: int, flushes: bool) -> None:
    """SDM 4.10.4.1."""
    assert flushes_everything(before, after) == flushes


@pytest.mark.parametrize(
    ("base", "la57", "legal"),
    [
        (0, False, True),
        ((1 << 47) - 1, False, True),
        (1 << 47, False, False),
        (1 << 47, True, True),
        ((1 << 64) - (1 << 47), False, True),
        ((1 << 64) - (1 << 47) - 1, False, False),
        ((1 << 56) - 1, True, True),
        (1 << 56, True, False),
        ((1 << 64) - (1 << 56), True, True),
        ((1 << 64) - (1 << 56) - 1, True, False),
    ],
)
def test_a_table_of_descriptors_has_a_canonical_base(base: int, la57: bool, legal: bool) -> None:
    """SDM volume 2A, LGDT/LIDT: for as many bits as the CPU has, whatever CR4.LA57 says."""
    assert (table_refusal(base, code64=True, la57=la57) is None) == legal
    assert table_refusal(base, code64=False, la57=la57) is None


# ------------------------------------------------------------------------ descriptors (SDM 3.4.5)

DATA, CODE, CONFORMING = 0x3, 0xB, 0xF
EXECUTE_ONLY, READ_ONLY = 0x9, 0x1


def descriptor(
    kind: int,
    *,
    system: bool = False,
    dpl: int = 0,
    present: bool = True,
    long: bool = False,
    big: bool = False,
    base: int = 0,
    limit: int = 0xFFFFF,
    pages: bool = True,
) -> int:
    """Eight bytes put together from figure 3-8, byte by byte; `limit` is the raw 20-bit field."""
    access = kind | (0 if system else 0x10) | dpl << 5 | (0x80 if present else 0)
    upper = limit >> 16 | (0x20 if long else 0) | (0x40 if big else 0) | (0x80 if pages else 0)
    parts = [
        (limit & 0xFFFF).to_bytes(2, "little"),
        (base & 0xFFFFFF).to_bytes(3, "little"),
        bytes([access, upper, base >> 24]),
    ]
    return int.from_bytes(b"".join(parts), "little")


@given(
    kind=st.integers(0, 15),
    system=st.booleans(),
    dpl=st.integers(0, 3),
    present=st.booleans(),
    long=st.booleans(),
    big=st.booleans(),
    base=st.integers(0, (1 << 32) - 1),
    limit=st.integers(0, (1 << 20) - 1),
    pages=st.booleans(),
)
def test_a_descriptor_comes_apart_as_it_was_put_together(
    kind: int,
    system: bool,
    dpl: int,
    present: bool,
    long: bool,
    big: bool,
    base: int,
    limit: int,
    pages: bool,
) -> None:
    seg = Descriptor.decode(
        descriptor(
            kind,
            system=system,
            dpl=dpl,
            present=present,
            long=long,
            big=big,
            base=base,
            limit=limit,
            pages=pages,
        )
    )
    assert (seg.type, seg.system, seg.dpl, seg.present) == (kind, system, dpl, present)
    assert (seg.long, seg.big, seg.base) == (long, big, base)
    assert seg.limit == (limit * 4096 + 4095 if pages else limit)
    assert seg.code == (not system and kind >= 8)
    whole = base == 0 and limit == 0xFFFFF and pages
    assert seg.flat == (whole and dpl == 0 and present)


@pytest.mark.parametrize(
    ("code", "bits", "word"),
    [
        (True, 64, 0x00AF_9B00_0000_FFFF),
        (True, 32, 0x00CF_9B00_0000_FFFF),
        (False, 64, 0x00CF_9300_0000_FFFF),
        (False, 32, 0x00CF_9300_0000_FFFF),
    ],
)
def test_flat_descriptors_are_the_ones_that_linux_uses(code: bool, bits: int, word: int) -> None:
    """boot.rst, 64-bit boot protocol: __BOOT_CS is execute/read, __BOOT_DS read/write, both 4 GiB."""
    assert flat_descriptor(code=code, bits=bits) == word
    assert Descriptor.decode(word).flat


@pytest.mark.parametrize(
    ("changes", "flat"),
    [
        ({}, True),
        ({"base": 1}, False),
        ({"base": 1 << 31}, False),
        ({"limit": 0xFFFFE}, False),
        ({"pages": False}, False),
        ({"dpl": 1}, False),
        ({"present": False}, False),
    ],
)
def test_flat_means_all_of_memory_ring_0_and_present(changes: dict[str, int], flat: bool) -> None:
    assert Descriptor.decode(descriptor(CODE, **changes)).flat == flat  # type: ignore[arg-type]


CODE64 = descriptor(CODE, long=True)
CODE32 = descriptor(CODE, big=True)
STACK = descriptor(DATA, big=True)


@pytest.mark.parametrize(
    ("register", "selector", "word", "expected"),
    [
        # Null selectors.
        ("cs", 0, None, "null selector"),
        ("cs", 3, None, "null selector"),
        ("ss", 0, None, None),
        ("ss", 3, None, "not of ring 0"),
        ("ds", 0, None, None),
        ("gs", 3, None, None),
        # Where the descriptor is.
        ("ds", 0x18, STACK, None),
        ("ds", 0x1C, STACK, "in the LDT"),
        ("ds", 0x18, None, "beyond the gdt's limit"),
        ("ds", 0x18, descriptor(0x9, system=True), "system descriptor"),
        # CS: code, and not both L and D.
        ("cs", 0x10, CODE64, None),
        ("cs", 0x10, CODE32, None),
        ("cs", 0x10, descriptor(CODE), None),
        ("cs", 0x10, descriptor(CODE, long=True, big=True), "both L and D"),
        ("cs", 0x10, STACK, "not a code segment"),
        ("cs", 0x10, descriptor(EXECUTE_ONLY, long=True), None),
        ("cs", 0x10, descriptor(CONFORMING, long=True), None),
        # SS: writable data.
        ("ss", 0x18, STACK, None),
        ("ss", 0x18, descriptor(READ_ONLY), "not a writable data segment"),
        ("ss", 0x18, CODE64, "not a writable data segment"),
        # The others: whatever can be read.
        ("ds", 0x18, descriptor(READ_ONLY), None),
        ("es", 0x18, CODE64, None),
        ("fs", 0x18, descriptor(EXECUTE_ONLY), "not readable"),
        # Privilege.
        ("cs", 0x10, descriptor(CODE, long=True, dpl=3), "not of ring 0"),
        ("cs", 0x13, CODE64, "not of ring 0"),
        ("ss", 0x18, descriptor(DATA, dpl=3), "not of ring 0"),
        ("ss", 0x19, STACK, "not of ring 0"),
        ("ds", 0x18, descriptor(DATA, dpl=3), None),
        ("ds", 0x1B, descriptor(DATA, dpl=3), None),
        ("ds", 0x1B, descriptor(DATA, dpl=2), "not of ring 0"),
        ("ds", 0x19, STACK, "not of ring 0"),
        ("ds", 0x1B, CODE64, "not of ring 0"),
        ("ds", 0x1B, descriptor(CONFORMING), None),
        # Present.
        ("cs", 0x10, descriptor(CODE, long=True, present=False), "not present"),
        ("ss", 0x18, descriptor(DATA, present=False), "not present"),
        ("ds", 0x18, descriptor(DATA, present=False), "not present"),
    ],
)
def test_loading_a_segment_register(
    register: str, selector: int, word: int | None, expected: str | None
) -> None:
    """SDM volume 2B, MOV to a segment register; volume 2A, RET far."""
    check(segment_refusal(register, selector, word), expected)


def test_the_vectors_with_an_error_code_are_the_manuals() -> None:
    """SDM table 6-1; #VC is AMD's alone (APM volume 2, 8.2.21)."""
    assert {8, 10, 11, 12, 13, 14, 17, 21} | {29} == WITH_ERROR_CODE
