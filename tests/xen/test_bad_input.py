"""What a hypervisor would refuse, or never took: one clear line, exit status 2, nothing loaded."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.makers.bzimage import bzimage
from tests.rehearse.runs import shipped_kernel
from tests.xen.runs import (
    CRASH_REGION,
    NEW_WAYS,
    OLD_WAYS,
    OUT,
    Way,
    document,
    hypervisor,
    request,
)
from tightrope import host
from tightrope.cli import main
from tightrope.errors import PlanError
from tightrope.memory import Extent
from tightrope.model import Named, Paging, XenInterface
from tightrope.plan import prepare
from tightrope.plan.xen import refuse_segments

X86_64_V1, V2 = OLD_WAYS[2], NEW_WAYS[0]


def run(text: str | None, *arguments: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr."""
    given = list(arguments)
    if text is not None:
        path = folder / "host.toml"
        path.write_text(text)
        given += ["--host", str(path)]
    if not any(each.endswith("kernel") for each in given):
        given.append("--shipped")
    assert main(["rehearse", *given]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("tightrope: ")
    assert err.count("\n") == 1
    return err


def edited(way: Way, *changes: tuple[str, str] | tuple[str, str, str]) -> str:
    """The document with words replaced, everywhere or once behind the head of a table."""
    text = document(way)
    for before, after, *table in changes:
        at = text.index(f"[{table[0]}]") if table else 0
        assert before in text[at:], before
        text = text[:at] + text[at:].replace(before, after, 1 if table else -1)
    return text


HOLE = "[[xen.dom0.hole]]\nstart = {:#x}\nsize = 0x1000\n[[xen.dom0.busy]]"
FIRMWARE = "".join(
    f'[[firmware]]\nstart = {0x200_0000_0000 + n * 0x2000:#x}\nsize = 0x1000\nwhat = "table {n}"\n'
    for n in range(10)
)
RUN = "[[xen.dom0.p2m]]\npseudo = {:#x}\nmachine = {:#x}\nsize = {:#x}\n"


def runs(*rows: tuple[int, int, int]) -> str:
    """A document whose p2m is written out."""
    text = document(X86_64_V1)
    a, b = text.index("pages = 0x1_0000"), text.index("[xen.dom0.tables]")
    text = text[:a] + text[b:]
    return text[: text.index("[[xen.dom0.hole]]")] + "".join(RUN.format(*row) for row in rows)


@pytest.mark.parametrize(
    ("text", "arguments", "says"),
    [
        pytest.param(
            edited(X86_64_V1, ("[[xen.dom0.busy]]", HOLE.format(0x100_5000))),
            ["--xen", "v1"],
            "xen.dom0.text_start: the p2m has a hole at pseudo-physical 0x1005000, inside"
            " [0x1000000, 0x1200000)",
            id="a hole under dom0's kernel",
        ),
        pytest.param(
            edited(X86_64_V1, ("[[xen.dom0.busy]]", HOLE.format(0x200_1000))),
            ["--xen", "v1"],
            "xen.dom0.tables: the p2m has a hole at pseudo-physical 0x2001000",
            id="a hole under dom0's tables",
        ),
        pytest.param(
            edited(
                X86_64_V1,
                ("pages = 0x1_0000 ", "pages = 0x2080 "),
                ("start = 0x300_0000", "start = 0x0"),
                ('size = 0x10_0000\nwhat = "user', 'size = 0x20a_0000\nwhat = "user'),
            ),
            ["--xen", "v1"],
            "free pages, and dom0 can give",
            id="a dom0 that has given all away",
        ),
        pytest.param(
            runs((0, 0x1000_0000, 0x400_0000), (0x400_0000, 0x1300_0000, 0x200_0000)),
            ["--xen", "v1"],
            "p2m: machine frame 0x13000 belongs to the pseudo-physical frames 0x3000 and 0x4000",
            id="duplicate machine frames",
        ),
        pytest.param(
            runs((0, 0x1000_0000, 0x400_0000), (0x200_0000, 0x2000_0000, 0x100_0000)),
            ["--xen", "v1"],
            "pseudo-physical frame 0x2000 is given twice",
            id="duplicate pseudo-physical frames",
        ),
        pytest.param(
            runs((0, 0x3FFF_0000, 0x400_0000)),
            ["--xen", "v1"],
            "[0x40001000, 0x43ff0000) is not memory that a dom0 can have",
            id="a p2m that leads into the crash region",
        ),
        pytest.param(
            edited(V2, ("size = 0x1000_0000", "size = 0x8000")),
            ["--xen", "v2", "--crash"],
            "needs 0x10000 bytes of the crash region",
            id="a crash region too small",
        ),
        pytest.param(
            edited(V2, ("[[firmware]]", FIRMWARE + "[[firmware]]")),
            ["--xen", "v2"],
            "segments: 18 segments are more than a v2 load takes (limit 0xf)",
            id="too many segments",
        ),
        pytest.param(
            edited(X86_64_V1, ('version = "3.0"', 'version = "4.23"')),
            ["--xen", "v1"],
            "xen.version: Xen 4.23 has dropped interface v1 (4.23, commit 7702e782f3)",
            id="v1 on a Xen that has dropped it",
        ),
        pytest.param(
            edited(V2),
            ["--xen", "v1"],
            "Xen 4.17 takes the page list of v1 and jumps with its own code and tables",
            id="v1 on a Xen that only takes its list",
        ),
        pytest.param(
            edited(X86_64_V1),
            ["--xen", "v2"],
            "xen.version: Xen 3.0 has no interface v2: it came with 4.4",
            id="v2 on a Xen before it",
        ),
        pytest.param(
            edited(V2), [], "the host is a hypervisor: say how dom0 asks", id="nobody asks it"
        ),
        pytest.param(
            None, ["--xen", "v2", "--mode", "pae"], "there was never such a Xen", id="v2 with PAE"
        ),
        pytest.param(None, ["--xen", "v1", "--mode", "la57"], "5-level paging", id="5 levels"),
        pytest.param(
            None,
            ["--xen", "v1", "--mode", "i386", "--dom0", "64"],
            "a 32-bit Xen never had a 64-bit dom0",
            id="a dom0 wider than Xen",
        ),
        pytest.param(
            edited(OUT, ('version = "3.1"', 'version = "3.0"')),
            ["--xen", "v1"],
            "xen.version: Xen 3.0 has no 32-bit dom0 on 64 bits: it came with 3.1",
            id="v1 of a 32-bit dom0 before there was one",
        ),
        pytest.param(
            edited(OUT, ("size = 0x40_0000", "size = 0x1_0000", "private")),
            ["--xen", "v1"],
            "has no room for the way out of long mode",
            id="no room for the way out",
        ),
        pytest.param(None, ["--dom0", "32"], "there is no dom0 without --xen", id="dom0 alone"),
        pytest.param(
            None, ["--xen", "v2", "--crashed", "hypervisor"], "--crash", id="who crashes alone"
        ),
        pytest.param(
            edited(V2),
            ["--xen", "v2", "--mode", "x86_64"],
            "cannot be given with --host: the host file says it",
            id="twice",
        ),
        pytest.param(
            None,
            ["--xen", "v1", "--design", "one-table"],
            "page_list has no slots for one-table",
            id="a design without slots",
        ),
        pytest.param(
            None,
            ["--xen", "v2", "--design", "damm-v4"],
            "under v2 the tables are the hypervisor's own",
            id="a design under v2",
        ),
        pytest.param(
            edited(V2, ('version = "4.17"', 'version = "four"')),
            ["--xen", "v2"],
            "xen.version: 'four' is not MAJOR.MINOR",
            id="a version that is none",
        ),
        pytest.param(
            edited(V2, ("fixmap = 0xffff_828b_fff7_8000", "fixmap = 0x1000")),
            ["--xen", "v2"],
            "0x1000 is below the hypervisor's addresses",
            id="a fixmap among dom0's addresses",
        ),
        pytest.param(
            edited(V2, ("bits = 64", "bits = 16")), ["--xen", "v2"], "neither 32 nor 64", id="bits"
        ),
        pytest.param(
            edited(V2, ("relocation = 0xffff_ffff_8101_3000", "relocation = 0x1000")),
            ["--xen", "v2"],
            "0x1000 is not inside dom0's kernel text",
            id="V of bare Linux elsewhere",
        ),
        pytest.param(
            edited(
                V2, ("start = 0x200_0000\nsize = 0x4_0000", "start = 0x110_0000\nsize = 0x4_0000")
            ),
            ["--xen", "v2"],
            "overlaps dom0's kernel text",
            id="tables in the text",
        ),
        pytest.param(
            edited(V2, ("pages = 0x1_0000", "pages = 0xf_0000")),
            ["--xen", "v2"],
            "cannot lie apart in",
            id="a dom0 with nearly all memory",
        ),
        pytest.param(
            edited(V2, ("size = 0x4_0000\n\n[[xen", "size = 0x1000\n\n[[xen")),
            ["--xen", "v2"],
            "is too small for dom0's page tables",
            id="no room for dom0's tables",
        ),
        pytest.param(
            edited(V2, ("seed = 1", "seed = 1\ncolour = 1")),
            ["--xen", "v2"],
            "xen.dom0.colour: unknown field",
            id="an unknown field",
        ),
    ],
)
def test_it_is_one_line_and_status_2(
    text: str | None,
    arguments: list[str],
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert says in run(text, *arguments, folder=tmp_path, capsys=capsys)


def test_a_kernel_that_has_to_lie_elsewhere_is_refused_in_a_crash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = tmp_path / "kernel"
    fixed.write_bytes(bzimage(relocatable=False, pref_address=0x100_0000))
    line = run(document(V2), "--xen", "v2", "--crash", str(fixed), folder=tmp_path, capsys=capsys)
    assert "and not all of that is the crash region" in line


# --------------------------------------------------------------------- what a v2 load refuses


def named(start: int, size: int) -> Named:
    return Named(extent=Extent.sized(start, size), what=f"segment {start:#x}")


def test_what_a_v2_load_takes_is_taken() -> None:
    host = hypervisor(V2)
    inside = [named(CRASH_REGION.start + n * 0x2000, 0x1000) for n in range(14)]
    refuse_segments(host, inside, [named(0, 0x1000)], crash=True)
    refuse_segments(host, [named(0x100_0000, 0x1000)], [], crash=False)


@pytest.mark.parametrize(
    ("loaded", "mapped", "says"),
    [
        ([named(0x100_0000, 0x1000)], [], "segment 0x1000000 at .* is outside the crash region"),
        ([named(CRASH_REGION.end - 0x1000, 0x2000)], [], "is outside the crash region"),
        ([named(CRASH_REGION.start, 0x1800)], [], "is not whole pages"),
        (
            [named(CRASH_REGION.start, 0x2000), named(CRASH_REGION.start + 0x1000, 0x1000)],
            [],
            "overlap",
        ),
        ([named(CRASH_REGION.start, 0x1000)], [named(CRASH_REGION.start, 0x1000)], "overlap"),
        (
            [named(CRASH_REGION.start + n * 0x1000, 0x1000) for n in range(16)],
            [],
            "16 segments are more",
        ),
    ],
)
def test_what_a_v2_load_refuses_is_refused(
    loaded: list[Named], mapped: list[Named], says: str
) -> None:
    with pytest.raises(PlanError, match=says):
        refuse_segments(hypervisor(V2), loaded, mapped, crash=True)


@pytest.mark.parametrize(
    ("version", "takes_v1", "takes_v2"),
    [("3.0", True, False), ("4.2", True, False), ("4.3", True, False), ("4.4", False, True)],
)
def test_xen_4_3_is_the_last_with_fixmaps_and_4_4_the_first_with_segments(
    version: str, takes_v1: bool, takes_v2: bool
) -> None:
    old = host.read(edited(X86_64_V1, ('version = "3.0"', f'version = "{version}"')), "a Xen")
    for interface, takes in ((XenInterface.V1, takes_v1), (XenInterface.V2, takes_v2)):
        with nullcontext() if takes else pytest.raises(PlanError, match=r"xen\.version"):
            prepare(shipped_kernel(), old, request((Paging.X86_64, interface, 64)))
