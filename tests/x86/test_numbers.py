"""Numbers of the manuals, written here once more: bits of registers, vectors, whose they are.

Rules: each table is as the manual prints it, and nothing is taken from the source.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.x86 import control, cpu
from tightrope.x86.control import ControlBit, Vendor
from tightrope.x86.flags import Computes, flags_after

CR0 = "PE 0 MP 1 EM 2 TS 3 ET 4 NE 5 WP 16 AM 18 NW 29 CD 30 PG 31"
"""SDM volume 3, figure 2-7."""
CR4 = (
    "VME 0 PVI 1 TSD 2 DE 3 PSE 4 PAE 5 MCE 6 PGE 7 PCE 8 OSFXSR 9 OSXMMEXCPT 10 UMIP 11 LA57 12"
    " VMXE 13 SMXE 14 FSGSBASE 16 PCIDE 17 OSXSAVE 18 KL 19 SMEP 20 SMAP 21 PKE 22 CET 23 PKS 24"
    " UINTR 25 LASS 27 LAM_SUP 28 FRED 32"
)
"""SDM volume 3, 2.5."""
EFER = (
    "SCE 0 LME 8 LMA 10 NXE 11 SVME 12 LMSLE 13 FFXSR 14 TCE 15 MCOMMIT 17 INTWB 18 UAIE 20"
    " AIBRSE 21"
)
"""AMD APM volume 2, 3.1.7; Intel has the first four (SDM volume 3, table 2-1)."""
RFLAGS = "CF 0 PF 2 AF 4 ZF 6 SF 7 TF 8 IF 9 DF 10 OF 11 NT 14 RF 16 VM 17 AC 18"
"""SDM volume 1, figure 3-8."""
VECTORS = (
    "#DE 0 #DB 1 NMI 2 #BP 3 #OF 4 #BR 5 #UD 6 #NM 7 #DF 8 #TS 10 #NP 11 #SS 12 #GP 13 #PF 14"
    " #MF 16 #AC 17 #MC 18 #XM 19 #VE 20 #CP 21 #VC 29"
)
"""SDM volume 3, table 6-1; #VC: AMD APM volume 2, 8.2."""
INTELS = {"VMXE", "SMXE", "KL", "PKS", "UINTR", "LASS", "LAM_SUP"}
AMDS = {"SVME", "LMSLE", "FFXSR", "TCE", "MCOMMIT", "INTWB", "UAIE", "AIBRSE"}


def table(text: str) -> dict[str, int]:
    """Name -> number."""
    words = text.split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


@pytest.mark.parametrize(
    ("bits", "manual"), [(control.CR0, CR0), (control.CR4, CR4), (control.EFER, EFER)]
)
def test_a_control_register_has_the_manuals_bits_and_no_other(
    bits: tuple[ControlBit, ...], manual: str
) -> None:
    assert {each.name: each.number for each in bits} == table(manual)
    assert control.names(bits) == {name: 1 << number for name, number in table(manual).items()}
    for each in bits:
        assert bool(each.vendor & Vendor.INTEL) is (each.name not in AMDS), each.name
        assert bool(each.vendor & Vendor.AMD) is (each.name not in INTELS), each.name


def test_the_flags_are_named_as_the_manual_names_them() -> None:
    assert {name: 1 << number for name, number in table(RFLAGS).items()} == cpu.RFLAGS_NAMES


def test_the_flags_that_are_always_0_are_the_manuals() -> None:
    """SDM volume 1, figure 3-8."""
    always_0 = (3, 5, 15, *range(22, 64))
    assert sum(1 << number for number in always_0) == cpu.RFLAGS_RESERVED


def test_the_vectors_are_named_as_the_manual_names_them() -> None:
    assert {number: name for name, number in table(VECTORS).items()} == cpu.VECTORS


def test_a_translation_depends_on_four_bits_of_cr4() -> None:
    assert cpu.CR4_TRANSLATES == 1 << 4 | 1 << 5 | 1 << 7 | 1 << 12


@given(st.integers(0, 63), st.integers(0, (1 << 64) - 1))
def test_the_pdptes_are_read_again_for_the_bits_that_the_manual_lists(bit: int, was: int) -> None:
    """SDM volume 3, 4.4.1."""
    now = was ^ 1 << bit
    assert cpu.loads_pdptes(now, was, was_cr0=was, was_cr4=was) is (bit in {29, 30, 31})
    assert cpu.loads_pdptes(was, now, was_cr0=was, was_cr4=was) is (bit in {4, 5, 7, 20})


@given(
    st.sampled_from(Computes),
    st.integers(0, (1 << 64) - 1),
    st.integers(0, (1 << 64) - 1),
    st.sampled_from([8, 32, 64]),
)
def test_arithmetic_leaves_the_flags_that_the_manual_says(
    by: Computes, left: int, right: int, bits: int
) -> None:
    """SDM volume 1, 3.4.3.1.  AF is the borrow or carry out of bit 3; behind AND it is undefined."""
    names = table(RFLAGS)
    left, right = left % (1 << bits), right % (1 << bits)
    whole = {
        Computes.SUM: left + right,
        Computes.DIFFERENCE: left - right,
        Computes.AND: left & right,
    }[by]
    result = whole % (1 << bits)
    top = bits - 1
    one, other, out = (bool(each >> top & 1) for each in (left, right, result))
    wanted = {
        "CF": whole != result,
        "PF": f"{result & 0xFF:b}".count("1") in (0, 2, 4, 6, 8),
        "ZF": result == 0,
        "SF": out,
        "OF": {
            Computes.SUM: one == other != out,
            Computes.DIFFERENCE: one != other and out != one,
            Computes.AND: False,
        }[by],
    }
    if by is not Computes.AND:
        low = (left & 15) + (right & 15) if by is Computes.SUM else (left & 15) - (right & 15)
        wanted["AF"] = not 0 <= low <= 15
    for before in (0x2, 0x2 | 0x8D5 | 1 << 9):
        flags = flags_after(by, left, right, bits, before)
        got = {name: bool(flags >> names[name] & 1) for name in wanted}
        assert got == wanted
        assert flags & ~0x8D5 == before & ~0x8D5
