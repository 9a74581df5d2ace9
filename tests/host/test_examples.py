"""The example hosts: every mode and split is a document that is read, true to its comments, and holds."""

from __future__ import annotations

import re
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.hosts import read_image
from tests.modes.runs import shared
from tightrope import host
from tightrope.deeds.rehearse import rehearse
from tightrope.errors import HostError
from tightrope.memory import Extent
from tightrope.model import Host, Outcome, Paging
from tightrope.plan import Request

LEGACY = (Paging.I386, Paging.PAE)
PLACES: list[tuple[Paging, int | None]] = [
    (Paging.X86_64, None),
    (Paging.LA57, None),
    *((paging, split) for paging in LEGACY for split in (None, *host.SPLITS)),
]
CRASH = Extent.sized(0x3300_0000, 0x1000_0000)
CR4_BITS = {
    4: "PSE", 5: "PAE", 6: "MCE", 7: "PGE", 9: "OSFXSR", 10: "OSXMMEXCPT", 12: "LA57",
    16: "FSGSBASE", 17: "PCIDE", 18: "OSXSAVE", 20: "SMEP", 21: "SMAP",
}  # fmt: skip
EFER_BITS = {0: "SCE", 8: "LME", 10: "LMA", 11: "NXE"}


def read(paging: Paging, split: int | None = None, crash: Extent | None = None) -> Host:
    return host.read(host.example(paging, split, crash), "example")


@pytest.mark.parametrize("crash", [None, CRASH])
@pytest.mark.parametrize(("paging", "split"), PLACES)
def test_an_example_is_read_and_is_of_its_mode(
    paging: Paging, split: int | None, crash: Extent | None
) -> None:
    old = read(paging, split, crash)
    assert (old.paging, old.crash_region) == (paging, crash)
    if paging in LEGACY:
        assert old.direct_map.virt == (0xC000_0000 if split is None else split)
        assert old.text.virt - old.direct_map.virt == old.text.phys
    assert host.example(paging, split, crash) == host.example(paging, split, crash)


@pytest.mark.parametrize("paging", LEGACY)
def test_v_is_in_a_fixmap_with_4g_4g_and_else_in_the_text(paging: Paging) -> None:
    for split in host.SPLITS:
        old = read(paging, split)
        assert old.relocation is not None
        assert (old.relocation - old.text.virt < old.text.size) == (split != host.FOUR_FOUR)
    assert old.relocation == old.low_mappings[0].virt == 0xFFFB_7000
    assert old.low_mappings[0].phys == read(paging).text.phys + 0x40_1000


@pytest.mark.parametrize(("paging", "split"), PLACES)
def test_a_made_kernel_holds_on_it(paging: Paging, split: int | None) -> None:
    got = rehearse(read_image(), read(paging, split), Request(), machine=shared())
    assert (got.outcome, got.findings) == (Outcome.HOLDS, ())


@pytest.mark.parametrize(("paging", "split"), PLACES)
def test_its_comments_are_true_of_it(paging: Paging, split: int | None) -> None:
    text, old = host.example(paging, split), read(paging, split)
    bits = 32 if paging in LEGACY else 64
    assert f"{bits}-bit kernel" in text.splitlines()[1]
    levels = {"i386": 2, "pae": 3, "x86_64": 4, "la57": 5}[paging]
    assert f'runs on: "{paging.value}" ({levels} levels).' in text
    for register, value, names in (("cr4", old.cr4, CR4_BITS), ("efer", old.efer, EFER_BITS)):
        said = re.search(rf"^{register} = \S+ +# (.*)$", text, re.MULTILINE)
        assert said is not None
        wanted = {name for bit, name in names.items() if value >> bit & 1}
        assert set(re.findall(r"\b[A-Z][A-Z0-9]{2,}\b", said[1])) == wanted
    large = 4 if paging is Paging.I386 else 2
    assert f"{large} MiB global pages, {large} MiB aligned" in text
    assert ("lowmem" in text) == (paging in LEGACY)


@pytest.mark.parametrize(("paging", "split"), PLACES)
def test_its_comments_stand_in_one_column(paging: Paging, split: int | None) -> None:
    lines = host.example(paging, split).splitlines()
    columns = {line.index("#") for line in lines if re.match(r"[\w\[]", line) and "#" in line}
    assert columns == {24}


def test_the_default_is_the_file_that_ships() -> None:
    assert host.example() == host.example(Paging.X86_64)
    assert host.example().startswith("# A machine and the kernel that runs on it")


@pytest.mark.parametrize("paging", [Paging.X86_64, Paging.LA57])
def test_a_64_bit_kernel_has_no_split(paging: Paging) -> None:
    with pytest.raises(HostError, match="only i386 and pae have a memory split"):
        host.example(paging, 0xC000_0000)


@given(paging=st.sampled_from(LEGACY), split=st.integers(0, 1 << 33))
def test_any_other_split_is_a_host_or_is_refused(paging: Paging, split: int) -> None:
    good = split % (4 << 20) == 0 and split <= 0xE800_0000
    with nullcontext() if good else pytest.raises(HostError, match="is not a memory split"):
        assert read(paging, split).direct_map.virt == split


@given(paging=st.sampled_from(LEGACY), number=st.integers(0, 0xE000_0000 >> 22))
def test_every_split_of_4_mib_with_room_for_lowmem_is_a_host(paging: Paging, number: int) -> None:
    assert read(paging, number << 22).direct_map.virt == number << 22
