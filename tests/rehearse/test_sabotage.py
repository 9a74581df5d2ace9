"""Every sabotage is found out by its own rule at its own step, whatever kernel, host and frames."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from tests.makers import cpio
from tests.makers.hosts import read_image
from tests.rehearse.runs import (
    crash_host,
    crashed,
    example_host,
    fallen,
    heard,
    home_of,
    shared,
    shipped_kernel,
    shipped_request,
    sound,
)
from tightrope import image as image_room
from tightrope import routines
from tightrope.deeds.rehearse import rehearse
from tightrope.errors import BadInput
from tightrope.memory import MemoryMap
from tightrope.model import Code, Host, Image, Outcome, Paging, Step, Verdict
from tightrope.plan import Request
from tightrope.sabotage import SABOTAGES, named

NAMES = sorted(SABOTAGES)
FOR_X86_64 = [name for name in NAMES if Paging.X86_64 in SABOTAGES[name].modes]
SEEDS = [0, 1, 20060501]


def found_first(verdict: Verdict) -> tuple[str, Step]:
    return verdict.findings[0].rule, verdict.findings[0].step


def expected(name: str) -> tuple[str, Step]:
    return SABOTAGES[name].rule, SABOTAGES[name].step


@cache
def debian(path: Path) -> Image:
    return image_room.read(path.read_bytes(), path.name)


@cache
def three_megabytes() -> bytes:
    return cpio.initrd(3 << 20)


def walk(image: Image, request: Request, name: str | None, old: Host | None = None) -> Verdict:
    """A walk on the example host, or on another where the sabotage needs one."""
    known = SABOTAGES.get(name or "")
    return rehearse(
        image,
        old or (home_of(known.name) if known else example_host()),
        replace(request, crash=known is not None and known.crash),
        sabotage=named(name) if name else None,
        machine=shared(),
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_sabotage_is_found_by_its_rule_at_its_step(name: str) -> None:
    assert fallen(name).outcome is Outcome.FALLS
    assert found_first(fallen(name)) == expected(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_sabotage_is_found_with_a_real_kernel(name: str, debian_amd64: Path) -> None:
    request = Request(initrd=three_megabytes(), command_line="quiet")
    assert found_first(walk(debian(debian_amd64), request, name)) == expected(name)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", NAMES)
def test_a_sabotage_is_found_where_frames_are_scattered(name: str, seed: int) -> None:
    got = walk(shipped_kernel(), shipped_request(scatter=seed), name)
    assert found_first(got) == expected(name)


def test_a_table_that_is_too_small_is_found_among_thousands_of_extents(debian_amd64: Path) -> None:
    request = Request(initrd=three_megabytes(), scatter=1)
    got = walk(debian(debian_amd64), request, "table-b-small")
    assert found_first(got) == expected("table-b-small")
    assert len(got.handover.intent.identity) > 5_000


@pytest.mark.parametrize("seed", [None, *SEEDS])
def test_without_sabotage_the_same_inputs_hold(seed: int | None) -> None:
    got = walk(shipped_kernel(), shipped_request(scatter=seed), None)
    assert (got.outcome, got.findings) == (Outcome.HOLDS, ())


def test_without_sabotage_the_real_kernel_holds(debian_amd64: Path) -> None:
    got = walk(debian(debian_amd64), Request(initrd=three_megabytes(), command_line="quiet"), None)
    assert (got.outcome, got.findings) == (Outcome.HOLDS, ())


def test_no_two_sabotages_of_a_host_fall_in_the_same_way() -> None:
    ways = {(home_of(name).paging, *found_first(fallen(name))) for name in NAMES}
    assert len(ways) == len(NAMES) > 10


@pytest.mark.parametrize("name", NAMES)
def test_a_sabotage_is_named_and_says_what_it_does(name: str) -> None:
    assert named(name).name == name
    assert named(name).says


# ------------------------------------------------------------------- what the new kernel says to it

SEEN_BY_THE_NEW_KERNEL = {
    "initrd-byte": "initrd adler32",
    "interrupts-on": "interrupt flag",
    "pge-on": "cr4",
    "source-order": "zeros until",
    "stale-global": "cr4",
    "wrong-boot-params": "boot",
}
"""Damage that is still there at the entry, and the line that complains."""


@pytest.mark.parametrize("name", sorted(SEEN_BY_THE_NEW_KERNEL))
def test_the_new_kernel_sees_the_damage_too(name: str) -> None:
    got = heard(name)
    assert found_first(got) == expected(name)
    says = [each for each in got.findings if each.rule == "new-kernel-says"]
    assert [each.step for each in says] == [Step.COPY]
    assert says[0].message.startswith("tightrope: BAD")
    assert SEEN_BY_THE_NEW_KERNEL[name] in says[0].message
    assert got.findings[-1] == says[0]


@pytest.mark.parametrize("name", ["overwrite-pgd", "accessed-clear"])
def test_the_new_kernel_cannot_see_what_is_over_when_it_starts(name: str) -> None:
    got = heard(name)
    assert got.console is not None
    assert "tightrope: the new kernel stands" in got.console.lines
    assert "new-kernel-says" not in [each.rule for each in got.findings]


@pytest.mark.parametrize("name", ["no-v", "no-p", "nx", "table-b-small", "list-page-destination"])
def test_nobody_listens_to_a_new_kernel_that_was_never_entered(name: str) -> None:
    assert heard(name).console is None


# ------------------------------------------------------------------------------ what cannot be broken


def test_without_an_initrd_there_is_none_to_break() -> None:
    with pytest.raises(BadInput, match="no initrd to sabotage"):
        walk(shipped_kernel(), Request(), "initrd-byte")


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(BadInput, match="'no-such' is not a sabotage; near it: no-v"):
        named("no-such")


@pytest.mark.parametrize("name", ["stack-outside", "stale-global", "pge-on"])
def test_code_that_is_not_the_known_code_is_not_broken(name: str) -> None:
    """Two instructions longer at its start: every known place is somewhere else."""
    known = routines.read(routines.RELOCATE_X86_64)
    other = Code(name="other", data=b"\x90\x90" + known.data, symbols=known.symbols)
    assert named(name).code(known) != known
    with pytest.raises(BadInput, match="other is not the code that this sabotage knows"):
        named(name).code(other)


def test_a_stub_without_a_popfq_is_not_broken() -> None:
    good = sound().handover
    segments = tuple(
        replace(each, data=bytes(len(each.data))) if each.name == "entry stub" else each
        for each in good.segments
    )
    plan = replace(good.intent, segments=segments)
    with pytest.raises(BadInput, match="not the code that this sabotage knows"):
        named("interrupts-on").handover(replace(good, segments=segments, intent=plan))


@pytest.mark.parametrize("name", ["stale-global", "pge-on"])
def test_global_pages_cannot_be_left_on_where_there_are_none(name: str) -> None:
    old = example_host()
    without = replace(old, cr4=old.cr4 & ~0x80, cpu=replace(old.cpu, pge=False))
    with pytest.raises(BadInput, match="PGE is off already"):
        walk(shipped_kernel(), shipped_request(), name, without)


def test_nx_cannot_be_set_where_there_is_none() -> None:
    old = example_host()
    without = replace(old, efer=old.efer & ~0x800, cpu=replace(old.cpu, nx=False))
    with pytest.raises(BadInput, match="NXE is off"):
        walk(shipped_kernel(), shipped_request(), "nx", without)


@pytest.mark.parametrize("bits", [36, 46, 51])
def test_a_reserved_bit_is_the_first_that_the_cpu_does_not_have(bits: int) -> None:
    old = example_host()
    got = walk(
        shipped_kernel(),
        shipped_request(),
        "reserved-bit",
        replace(old, cpu=replace(old.cpu, physical_bits=bits)),
    )
    assert found_first(got) == expected("reserved-bit")
    assert f"{1 << bits:#x}" in got.findings[0].message


def test_a_cpu_with_every_address_bit_has_no_reserved_one() -> None:
    old = example_host()
    with pytest.raises(BadInput, match="52 address bits reserves none"):
        walk(
            shipped_kernel(),
            shipped_request(),
            "reserved-bit",
            replace(old, cpu=replace(old.cpu, physical_bits=52)),
        )


def test_a_kernel_of_one_page_has_no_order() -> None:
    small = read_image(init_size=4096, payload=b"", alignment=4096, min_alignment=12)
    with pytest.raises(BadInput, match="one page"):
        walk(small, Request(), "source-order")


# ------------------------------------------------------------------------------ in a crash kexec

WITHOUT_LIST = {"control-page-destination", "list-page-destination", "source-order"}
"""They edit the words of a list, and a crash kexec has none."""


@pytest.mark.parametrize("name", sorted(set(FOR_X86_64) - WITHOUT_LIST))
def test_a_sabotage_of_a_crash_kexec_is_found_by_its_rule_at_its_step(name: str) -> None:
    assert found_first(crashed(Paging.X86_64, name)) == expected(name)


@pytest.mark.parametrize("name", sorted(WITHOUT_LIST))
def test_a_list_that_is_not_there_cannot_be_broken(name: str) -> None:
    with pytest.raises(BadInput, match="no page list"):
        crashed(Paging.X86_64, name)


@pytest.mark.parametrize("paging", list(Paging))
def test_a_copy_out_of_the_crash_region_is_found_in_every_mode(paging: Paging) -> None:
    got = crashed(paging, "crash-outside")
    assert found_first(got) == expected("crash-outside")
    assert "0x0, outside the crash region [0x33000000, 0x43000000)" in got.findings[0].message


def test_a_plain_kexec_may_write_outside_the_crash_region() -> None:
    with pytest.raises(BadInput, match="is not a crash plan"):
        rehearse(
            shipped_kernel(),
            crash_host(),
            shipped_request(),
            sabotage=named("crash-outside"),
            machine=shared(),
        )


def test_a_crash_kexec_without_low_memory_has_nothing_mapped_outside_its_region() -> None:
    old = crash_host()
    regions = tuple(each for each in old.memory if each.extent.start >= 1 << 20)
    with pytest.raises(BadInput, match="no low memory"):
        rehearse(
            shipped_kernel(),
            replace(old, memory=MemoryMap(regions), firmware=()),
            shipped_request(crash=True),
            sabotage=named("crash-outside"),
            machine=shared(),
        )
