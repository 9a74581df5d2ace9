"""Purgatories that people's machines run: kexec-tools', and the kernels' own by kexec_file_load's placement.

Rules: the new kernel is a made one, so that a digest is a few pages; the same code with a real kernel is an
example of docs/loaders.md.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import debian_kernel, lacking
from tests.makers.bzimage import bzimage
from tests.segments import made
from tests.segments.made import flipped, machine
from tightrope import host
from tightrope.deeds import file_load, kexec_tools, old_kernel, segments
from tightrope.deeds.rehearse import rehearse
from tightrope.errors import ImageError, PlanError
from tightrope.memory import Extent, MemoryMap, Phys
from tightrope.model import Loaded, Outcome, Participant, Plan, SegmentRole, Step, Stop, Verdict
from tightrope.plan import Request
from tightrope.plan.file_load import file_load as placed
from tightrope.sabotage.edits import edit_segment
from tightrope.sabotage.sabotage import Sabotage

FLAVOURS = ("cloud-amd64", "cloud-amd64-6.12", "cloud-amd64-7.2", "cloud-amd64-7.3")
KEXEC_TOOLS = "kexec-tools"
Change = Callable[[bytearray], None]


@cache
def kernels_own(flavour: str) -> tuple[Loaded, Participant]:
    """What a Debian kernel would load, and its relocation code."""
    path = debian_kernel(flavour)
    raw = path.read_bytes()
    what = file_load.load(raw, path.name, made.kernel(), made.INITRD, made.LINE, made.old())
    return what, old_kernel.read(raw, path.name).participant


@cache
def kexecs() -> Loaded:
    """What the installed kexec would load."""
    if shutil.which("kexec", path=kexec_tools.PLACES) is None or os.geteuid():
        lacking(
            "no kexec here that may be asked: install kexec-tools (scripts/system-packages), be root"
        )
    with tempfile.TemporaryDirectory() as folder:
        kernel, initrd = Path(folder, "k"), Path(folder, "i")
        kernel.write_bytes(bzimage(kernel_size=9000, init_size=0x1_0000))
        initrd.write_bytes(made.INITRD)
        return kexec_tools.load(str(kernel), str(initrd), made.LINE, made.old())


def loaded(whose: str) -> Loaded:
    return kexecs() if whose == KEXEC_TOOLS else kernels_own(whose)[0]


def walk(what: Loaded, change: tuple[SegmentRole, Change] | None = None) -> Verdict:
    sabotage = None
    if change is not None:
        sabotage = Sabotage(
            name="damage",
            says="",
            rule="digest-agrees",
            step=Step.COPY,
            handover=lambda each: edit_segment(each, *change, planned=False),
        )
    request = segments.request(what, Request(initrd=made.INITRD, command_line=made.LINE))
    return rehearse(made.kernel(), made.old(), request, machine=machine(), sabotage=sabotage)


def rules(verdict: Verdict) -> list[str]:
    return [each.rule for each in verdict.findings]


def word(what: Loaded, name: str) -> int:
    """The offset of a purgatory's word."""
    assert what.purgatory is not None
    return what.purgatory.code.symbols[name]


EVERYBODY = (KEXEC_TOOLS, *FLAVOURS)


@pytest.mark.parametrize("whose", EVERYBODY)
def test_it_holds_and_everything_is_digested(whose: str) -> None:
    got = walk(loaded(whose))
    assert (got.outcome, rules(got), got.advice) == (Outcome.HOLDS, [], ())
    assert got.run.stretches
    assert loaded(whose).purgatory is not None
    assert "regions" in loaded(whose).purgatory.code.symbols  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("whose", "role"),
    [
        *((each, SegmentRole.INITRD) for each in EVERYBODY),
        (FLAVOURS[-1], SegmentRole.KERNEL),
        (KEXEC_TOOLS, SegmentRole.BOOT_PARAMS),
    ],
)
def test_one_flipped_bit_is_told_with_its_segment(whose: str, role: SegmentRole) -> None:
    got = walk(loaded(whose), (role, flipped(77)))
    assert (got.run.stop, rules(got)[0]) == (Stop.HALT, "digest-agrees")
    assert f"the {role.value} is not what was loaded, byte 0x4d" in got.findings[0].message


@pytest.mark.parametrize("whose", [KEXEC_TOOLS, FLAVOURS[-1]])
def test_what_the_loader_filled_in_wrong_is_told(whose: str) -> None:
    what = loaded(whose)
    digest = walk(what, (SegmentRole.PURGATORY, flipped(word(what, "digest"))))
    assert rules(digest)[0] == "digest-agrees"
    assert "its digest is not that of what it looks at" in digest.findings[0].message
    # A row's size: one page more than the segment has, or none of the next.
    rows = walk(what, (SegmentRole.PURGATORY, flipped(word(what, "regions") + 9)))
    assert {"digest-agrees", "loads-owned", "access-mapped"} & set(rules(rows))
    assert rows.run.stop is not Stop.ENTRY


@pytest.mark.parametrize("whose", [FLAVOURS[0], FLAVOURS[-1]])
def test_a_stack_that_is_too_small_is_told(whose: str) -> None:
    """lea lstack_end(%rip), %rsp leads 0xfc8 bytes lower: the third word that is pushed lies below."""
    what = loaded(whose)

    def lower(data: bytearray) -> None:
        at = word(what, "purgatory_start") + 0x16
        assert data[at : at + 3] == b"\x48\x8d\x25"
        value = int.from_bytes(data[at + 3 : at + 7], "little", signed=True) - 0xFC8
        data[at + 3 : at + 7] = value.to_bytes(4, "little", signed=True)

    got = walk(what, (SegmentRole.PURGATORY, lower))
    assert "stores-owned" in rules(got)


def test_the_old_kernels_own_code_goes_before_its_own_purgatory() -> None:
    what, code = kernels_own(FLAVOURS[-1])
    old = replace(made.old(), relocation=None)
    request = replace(segments.request(what, Request()), whole_memory=True)
    got = rehearse(made.kernel(), old, request, design=code, machine=machine())
    assert (got.outcome, rules(got)) == (Outcome.HOLDS, [])
    assert [each.kind.value for each in got.handover.chain] == ["relocation code", "purgatory"]


# --------------------------------------------------------------------------------- the placement


def test_linux_7_3_places_as_it_was_seen_to() -> None:
    """Measured on a 1 GiB guest of 7.3.4 (docs/loaders.md): purgatory, boot_params, kernel, initrd."""
    gib = replace(
        host.read(host.example(), "1 GiB"),
        memory=MemoryMap(
            (
                *(each for each in made.old().memory.regions if each.extent.end <= 1 << 20),
                replace(made.old().memory.regions[0], extent=Extent(0x10_0000, 0x3FFE_0000)),
            )
        ),
    )
    image = replace(
        made.kernel(), init_size=0x3E4_E000, alignment=0x20_0000, pref_address=Phys(0x100_0000)
    )
    seen: list[Extent] = []

    def purgatory(where: Extent, *_rest: object) -> tuple[bytes, int]:
        seen.append(where)
        return b"", where.start

    got = placed(
        image, gib, release=(7, 3), initrd=bytes(0x17_1234), command_line="x", size=0x5000,
        purgatory=purgatory,
    )  # fmt: skip
    assert [(each.destination.start, each.destination.size) for each in got.segments] == [
        (0x3FFD_B000, 0x5000), (0x3FFD_9000, 0x2000), (0x3C00_0000, 0x3E4_E000), (0x3FE6_7000, 0x17_2000),
    ]  # fmt: skip


def test_what_linux_refuses_is_refused() -> None:
    def purgatory(where: Extent, *_rest: object) -> tuple[bytes, int]:
        return b"", where.start

    with pytest.raises(PlanError, match="more than kexec_file_load takes"):
        placed(
            made.kernel(), made.old(), release=(7, 3), initrd=None, command_line="x" * 2017, size=1,
            purgatory=purgatory,
        )  # fmt: skip
    narrow = replace(made.kernel(), above_4g=False)
    with pytest.raises(PlanError, match="ENOEXEC"):
        placed(
            narrow, made.old(), release=(7, 3), initrd=None, command_line="x", size=1,
            purgatory=purgatory,
        )  # fmt: skip


def test_a_32_bit_kernel_has_no_purgatory() -> None:
    path = debian_kernel("686")
    with pytest.raises(ImageError, match="kexec_file_load is x86_64's"):
        file_load.load(path.read_bytes(), "686", made.kernel(), None, "", made.old())


def test_plans_of_ours_have_no_loader() -> None:
    plan = made.plan()
    assert isinstance(plan, Plan)
    assert plan.loaded is None
