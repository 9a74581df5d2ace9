"""Crash loads, 32-bit old kernels, and another release's kexec-tools: placed, and walked through their purgatory.

Rules: kexec is asked under the recorder for a described machine; the new kernel is a made one, so that a digest
is a few pages.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import pytest

from tests.cli.test_arguments import Shell, tightrope
from tests.conftest import debian_kernel, fetched_kexec, lacking
from tests.makers.bzimage import bzimage
from tests.segments import made
from tests.segments.made import flipped, machine
from tightrope import image
from tightrope.deeds import kexec_tools, segments
from tightrope.deeds.loaders import By
from tightrope.deeds.pairs import Old, host_of, pairs, read
from tightrope.deeds.rehearse import rehearse
from tightrope.memory import Extent
from tightrope.model import Image, Loaded, Loader, Outcome, Paging, SegmentRole, Step, Stop, Verdict
from tightrope.plan import Request
from tightrope.sabotage.edits import edit_segment
from tightrope.sabotage.sabotage import Sabotage

__all__ = ["tightrope"]
"""The fixture, which pytest finds here."""

INSTALLED, NEWEST, NARROW = "installed", "kexec-tools-newest", "kexec-tools-i386"
WIDE_OLD = ("cloud-amd64", "cloud-amd64-6.12", "cloud-amd64-7.2", "cloud-amd64-7.3")
ROOM = 0x1_0000
"""init_size of the made kernel, whose file is shorter."""


def program(which: str) -> str | None:
    """The kexec of that name; None for the installed one."""
    if os.geteuid():
        lacking("kexec works for root alone")
    if which != INSTALLED:
        return str(fetched_kexec(which))
    if shutil.which("kexec", path=kexec_tools.PLACES) is None:
        lacking("no kexec here: install kexec-tools (scripts/system-packages)")
    return None


@cache
def files() -> tuple[Path, Path]:
    """A kernel and an initrd that kexec can open."""
    folder = Path(tempfile.mkdtemp(prefix="tightrope-tests-"))
    (folder / "k").write_bytes(bzimage(kernel_size=9000, init_size=ROOM))
    (folder / "roomy").write_bytes(bzimage(kernel_size=9000, init_size=0x380_0000))
    (folder / "whole").write_bytes(bzimage(kernel_size=ROOM - 0x400, init_size=ROOM - 0x400))
    (folder / "i").write_bytes(made.INITRD)
    return folder / "k", folder / "i"


@cache
def small() -> Image:
    return image.read(files()[0].read_bytes(), str(files()[0]))


@cache
def asked(which: str, paging: Paging, crash: bool, name: str = "k") -> Loaded:
    """What that kexec would load."""
    kernel, initrd = files()
    return kexec_tools.load(
        str(kernel.with_name(name)),
        str(initrd),
        made.LINE,
        host_of(paging, crash=crash),
        crash=crash,
        program=program(which),
    )


@cache
def old(flavour: str) -> Old:
    return read(debian_kernel(flavour).read_bytes(), flavour)


def walked(
    loaded: Loaded,
    flavour: str,
    paging: Paging,
    new: Image | None = None,
    damaged: SegmentRole | None = None,
) -> Verdict:
    """The walk out of an old kernel by its own code; with one bit flipped behind the loader's back."""
    code = old(flavour).code
    assert code is not None
    sabotage = None
    if damaged is not None:
        sabotage = Sabotage(
            name="damage", says="", rule="digest-agrees", step=Step.COPY,
            handover=lambda each: edit_segment(each, damaged, flipped(77), planned=False),
        )  # fmt: skip
    request = segments.request(loaded, Request(initrd=made.INITRD, command_line=made.LINE))
    return rehearse(
        new or small(),
        code.host(host_of(paging, crash=loaded.crash)),
        code.request(request),
        design=code.participant,
        machine=machine(),
        sabotage=sabotage,
    )


def rules(verdict: Verdict) -> list[str]:
    return [each.rule for each in verdict.findings]


@pytest.mark.parametrize("crash", [False, True], ids=["kexec", "crash"])
@pytest.mark.parametrize("which", [INSTALLED, NEWEST])
def test_a_64_bit_kexec_holds_with_and_without_a_crash(which: str, crash: bool) -> None:
    loaded = asked(which, Paging.X86_64, crash)
    got = walked(loaded, "cloud-amd64-6.12", Paging.X86_64)
    assert (got.outcome, rules(got)) == (Outcome.HOLDS, []), got.findings
    assert loaded.by.startswith("kexec-tools 2.0.")
    assert loaded.purgatory is not None
    assert loaded.purgatory.name == f"{loaded.by}'s purgatory"
    if crash:
        roles = {each.role for each in got.handover.intent.segments}
        assert {SegmentRole.CORE_HEADER, SegmentRole.BACKUP} <= roles
        assert got.handover.intent.backup


def test_both_releases_place_alike() -> None:
    for crash in (False, True):
        mine, other = (asked(which, Paging.X86_64, crash) for which in (INSTALLED, NEWEST))
        assert [each.destination for each in mine.segments] == [
            each.destination for each in other.segments
        ]


@pytest.mark.parametrize("which", [INSTALLED, NEWEST])
def test_a_flipped_bit_of_a_crash_kernel_is_told(which: str) -> None:
    got = walked(
        asked(which, Paging.X86_64, True), "cloud-amd64", Paging.X86_64, damaged=SegmentRole.INITRD
    )
    assert (got.run.stop, rules(got)[0]) == (Stop.HALT, "digest-agrees")
    assert "the initrd is not what was loaded, byte 0x4d" in got.findings[0].message


@pytest.mark.parametrize("paging", [Paging.I386, Paging.PAE])
def test_a_32_bit_kexec_holds_for_a_32_bit_old_kernel(paging: Paging) -> None:
    loaded = asked(NARROW, paging, False)
    assert loaded.narrow
    got = walked(loaded, "686-pae", paging)
    assert (got.outcome, rules(got)) == (Outcome.HOLDS, []), got.findings


def test_what_the_old_kernel_left_in_the_room_of_the_new_one_is_no_fault() -> None:
    """A 32-bit kexec loads the file alone: Debian's 686 leaves for cloud-amd64 so, and it comes up."""
    loaded = asked(NARROW, Paging.PAE, False, "roomy")
    path = files()[0].with_name("roomy")
    got = walked(loaded, "686", Paging.PAE, image.read(path.read_bytes(), str(path)))
    kernel = next(e for e in got.handover.intent.segments if e.role is SegmentRole.KERNEL)
    room = Extent(kernel.destination.end, kernel.destination.start + 0x380_0000)
    assert any(bytes(got.run.memory.read(room)))
    assert (got.outcome, rules(got)) == (Outcome.HOLDS, []), got.findings


def test_what_a_32_bit_kexec_puts_behind_a_crash_kernel_is_overwritten_by_it() -> None:
    """It gives a kernel the bytes of its file and not init_size: the seed lies where the kernel unpacks itself."""
    got = walked(asked(NARROW, Paging.PAE, True), "686", Paging.PAE)
    assert rules(got)[0] == "image-asks"
    assert "the setup_data at" in got.findings[0].message
    # A kernel that needs no more than its file has nobody in its way.
    whole = files()[0].with_name("whole")
    new = image.read(whole.read_bytes(), str(whole))
    right = walked(asked(NARROW, Paging.PAE, True, "whole"), "686", Paging.PAE, new)
    assert (right.outcome, rules(right)) == (Outcome.HOLDS, []), right.findings


@pytest.mark.parametrize("by", [Loader.KEXEC_TOOLS, Loader.FILE_LOAD])
def test_every_old_kernel_in_its_modes_with_a_loaders_segments(by: Loader) -> None:
    if by is Loader.KEXEC_TOOLS:
        program(INSTALLED)
    found = pairs(
        [old(each) for each in WIDE_OLD],
        [small()],
        kinds=(False, True),
        request=Request(initrd=made.INITRD, initrd_source=str(files()[1]), command_line=made.LINE),
        by=By(loader=by),
        machine=machine(),
    )
    assert [
        (e.old, e.paging, e.crash, e.detail) for e in found if e.outcome is not Outcome.HOLDS
    ] == []
    assert len(found) == 4 * 2 * 2
    assert all(each.by and each.purgatory for each in found)


def test_the_digest_leaves_out_a_core_header_that_may_change() -> None:
    """CONFIG_CRASH_HOTPLUG, since 6.6: with room for 8192 CPUs and as much memory."""
    found = pairs(
        [old("cloud-amd64"), old("cloud-amd64-6.12")], [small()], kinds=(True,),
        by=By(loader=Loader.FILE_LOAD), machine=machine(),
    )  # fmt: skip
    advised = {each.old: "digest-covers" in each.advice for each in found}
    assert advised == {"cloud-amd64": False, "cloud-amd64-6.12": True}
    # Nobody gave a line: the one that is read has the loader's own word and no more.
    assert [each.detail for each in found if each.outcome is not Outcome.HOLDS] == []


# ------------------------------------------------------------------------------------- bad input


def words(tightrope: Shell, *more: str) -> tuple[str, ...]:
    tightrope.file("k", bzimage())
    return ("rehearse", "k", *more)


def test_kexec_file_load_does_not_exist_on_i386(tightrope: Shell) -> None:
    path = str(debian_kernel("686-pae"))
    done = tightrope(*words(tightrope, "--from", path, "--mode", "pae", "--loader", "file-load"))
    assert (done.status, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert "is a 32-bit kernel: kexec_file_load is x86_64's" in done.err
    pairs_done = tightrope("pairs", "--from", path, "--to", "k", "--loader", "file-load")
    assert pairs_done.status == 2
    assert "kexec_file_load is x86_64's" in pairs_done.out


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            ("--loader", "kexec-tools", "--mode", "pae"),
            "is a 64-bit program, and the old kernel is",
        ),
        (
            ("--loader", "kexec-tools", "--kexec", "./none"),
            "./none: is not a program that can be run",
        ),
        (
            ("--loader", "file-load", "--kexec", "x"),
            "names the program for --loader kexec-tools, which is not given",
        ),
        (("--loader", "file-load"), "name it, --from VMLINUZ"),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    tightrope: Shell, more: tuple[str, ...], says: str
) -> None:
    if "kexec-tools" in more:
        program(INSTALLED)
    done = tightrope(*words(tightrope, *more))
    assert (done.status, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert says in done.err
