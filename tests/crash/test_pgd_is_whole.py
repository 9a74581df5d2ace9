"""The headline of the thread: after the walk into a crash kernel the old kernel's pgd is whole.

The test does what a crash kernel does: it takes `elfcorehdr=` from its command line, reads the core
header out of memory, and writes a dump from what the header names.  Then `tightrope pgd` finds the dead
kernel's tables in that file by its own means, the notes in it, and judges them.

    elfcorehdr= -> ELF header in memory -> PT_NOTE, PT_LOAD -> a sparse core file -> vmcore.pgd
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import drgn
import numpy as np
import pytest

from tests.crash.hosts import LEGACY, example, small_kernel
from tests.crash.reader import command_line, core_header
from tests.kdump import narrow_makedumpfile
from tests.makers.designs import DESIGNS, IN_PLACE, TWO_TABLES
from tests.makers.hosts import MIB, PAGE
from tests.vmcore.kdumps import makedumpfile
from tightrope import vmcore
from tightrope.cli import main
from tightrope.deeds.rehearse import rehearse
from tightrope.host.examples import PAGE_OFFSETS
from tightrope.machine.unicorn import Emulator
from tightrope.memory import Extent, Phys
from tightrope.model import (
    Handover,
    Host,
    Memory,
    Outcome,
    Paging,
    Piece,
    PieceRole,
    Step,
    Stop,
    Verdict,
)
from tightrope.plan import Request
from tightrope.sabotage import SABOTAGES, Sabotage
from tightrope.vmcore import Pgd

MODES = pytest.mark.parametrize("paging", list(Paging))
TOP = 0x4800_0000
"""Where the test's hosts end: a dump of all their memory is then soon written."""
FIRST = 1 << 16
"""Where the dump has the byte at physical address 0; the headers and the notes lie before it."""


def host_of(paging: Paging, split: int | None = None) -> Host:
    """The example with its region and notes, and less memory."""
    old = example(paging, split=split)
    regions = tuple(
        replace(each, extent=Extent(each.extent.start, min(each.extent.end, TOP)))
        for each in old.memory
        if each.extent.start < TOP
    )
    return replace(old, memory=replace(old.memory, regions=regions), busy=())


def walk(old: Host, sabotage: Sabotage | None = None, design: str = TWO_TABLES) -> Verdict:
    request = Request(crash=True, command_line="quiet", scatter=7)
    return rehearse(
        small_kernel(), old, request, design=design, sabotage=sabotage, machine=Emulator()
    )


def header_in_memory(verdict: Verdict) -> bytes:
    """What the crash kernel finds where its command line points: sizes are told by the header."""
    (word,) = [
        each
        for each in command_line(verdict.handover.plan).split()
        if each.startswith("elfcorehdr=")
    ]
    at = int(word.removeprefix("elfcorehdr="), 16)
    memory = verdict.run.memory
    head = bytes(memory.read(Extent.sized(at, 64)))
    offset, entry, count = (
        struct.unpack_from("<Q14xHH", head, 32)
        if head[4] == 2
        else struct.unpack_from("<I10xHH", head, 28)
    )
    return bytes(memory.read(Extent.sized(at, offset + entry * count)))


def written(memory: Memory, extent: Extent) -> list[tuple[int, memoryview]]:
    """The parts of an extent that are not zeros, in pieces of up to 1 MiB."""
    out = []
    for start in range(extent.start, extent.end, MIB):
        part = memory.read(Extent(start, min(start + MIB, extent.end)))
        if np.frombuffer(part, np.uint8).any():
            out.append((start, part))
    return out


def dump(verdict: Verdict, path: Path) -> None:
    """The core that the handed-over header describes, sparse; its notes are one PT_NOTE."""
    memory = verdict.run.memory
    data = header_in_memory(verdict)
    header = core_header(data)
    notes = b"".join(bytes(memory.read(row.extent)) for row in header.of("PT_NOTE"))
    loads = header.of("PT_LOAD")
    wide = header.bits == 64
    size, entry = (64, 56) if wide else (52, 32)
    at = size + entry * (1 + len(loads))
    rows = [(4, at, 0, 0, len(notes))]
    rows += [(1, FIRST + row.phys, row.virt, row.phys, row.memory_size) for row in loads]
    out = bytearray(data[:size])
    struct.pack_into("<H", out, 56 if wide else 44, len(rows))
    for kind, offset, virt, phys, length in rows:
        if wide:
            out += struct.pack("<IIQQQQQQ", kind, 7, offset, virt, phys, length, length, 0)
        else:
            out += struct.pack("<8I", kind, offset, virt, phys, length, length, 7, 0)
    out += notes
    assert len(out) <= FIRST
    with path.open("wb") as file:
        file.write(out)
        file.truncate(FIRST + max(row.phys + row.memory_size for row in loads))
        for row in loads:
            for start, part in written(memory, row.extent):
                file.seek(FIRST + start)
                file.write(part)


def found_in(verdict: Verdict, path: Path) -> Pgd:
    dump(verdict, path)
    return vmcore.pgd(vmcore.read(str(path)))


@cache
def sound(paging: Paging, split: int | None = None) -> Verdict:
    return walk(host_of(paging, split))


@MODES
def test_the_crashed_kernels_pgd_is_found_and_whole(paging: Paging, tmp_path: Path) -> None:
    verdict = sound(paging)
    assert verdict.outcome is Outcome.HOLDS
    found = found_in(verdict, tmp_path / "vmcore")
    assert found.faults == ()
    assert found.whole
    assert found.root.phys == verdict.handover.world.pgd
    assert found.root.paging is paging
    assert "swapper_pg_dir in VMCOREINFO" in found.root.how
    names = ["swapper_pg_dir", *(() if paging in LEGACY else ("init_top_pgt",)), "_stext"]
    assert [each.name for each in found.root.anchors] == names
    assert found.core.notes.cpus == 1
    assert found.found.tables >= len(verdict.handover.world.tables) > 1


@pytest.mark.parametrize("split", PAGE_OFFSETS)
@pytest.mark.parametrize("paging", LEGACY)
def test_the_pgd_is_whole_with_every_memory_split(
    paging: Paging, split: int, tmp_path: Path
) -> None:
    found = found_in(sound(paging, split), tmp_path / "vmcore")
    assert found.whole
    assert found.root.phys == sound(paging, split).handover.world.pgd


@MODES
def test_the_command_line_says_so(
    paging: Paging, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "vmcore"
    dump(sound(paging), path)
    assert main(["pgd", str(path)]) == 0
    said = capsys.readouterr().out
    assert "all tables are whole" in said
    assert f"{sound(paging).handover.world.pgd:#x}: swapper_pg_dir" in said


@MODES
def test_the_region_is_not_in_the_dump_and_all_other_ram_is(paging: Paging, tmp_path: Path) -> None:
    verdict = sound(paging)
    core = found_in(verdict, tmp_path / "vmcore").core
    old = verdict.handover.host
    assert old.crash_region is not None
    assert core.page(old.crash_region.start) is None
    assert core.page(old.crash_region.end - PAGE) is None
    text = core.page(old.text.phys)
    assert text is not None
    assert verdict.handover.plan.relocation == old.relocation
    code = core.page(verdict.handover.world.code_phys)
    assert code is not None
    assert bytes(code).startswith(verdict.handover.code.data)
    ram = sum(each.size for each in old.memory.ram if each.start >= MIB)
    assert sum(each.size for each in core.extents) == ram - old.crash_region.size
    assert core.page(0x5000) is None


@MODES
def test_the_registers_of_the_call_are_in_the_dump(paging: Paging) -> None:
    """NT_PRSTATUS: pr_reg is at 112 and 72, rip and rsp are words 16 and 19, or 12 and 15."""
    verdict = sound(paging)
    at = verdict.handover.host.crash_notes[0].extent
    data = bytes(verdict.run.memory.read(at))
    name_size, size, kind = struct.unpack_from("<III", data)
    assert (name_size, kind, data[12:17]) == (5, 1, b"CORE\0")
    long = paging not in LEGACY
    assert size == (336 if long else 144)
    words = struct.unpack_from("<27Q" if long else "<17I", data, 20 + (112 if long else 72))
    call = verdict.handover.world.registers
    assert words[16 if long else 12] == call.rip
    assert words[19 if long else 15] == call.general["rsp"]
    assert words[17 if long else 13] == call.segments["cs"]
    assert words[20 if long else 16] == call.segments["ss"]
    assert words[18 if long else 14] == call.rflags


# ------------------------------------------------------------------------------------ a broken pgd


@pytest.mark.parametrize("paging", [Paging.X86_64, Paging.LA57])
def test_an_overwritten_pgd_is_found_broken_in_the_dump(paging: Paging, tmp_path: Path) -> None:
    """What Linux did before the thread: the identity map goes into the current pgd."""
    verdict = walk(host_of(paging), SABOTAGES["overwrite-pgd"])
    assert verdict.findings[0].rule == "current-pgd-kept"
    found = found_in(verdict, tmp_path / "vmcore")
    assert not found.whole
    assert found.found.missing.count > 0
    assert any("leads to a table that is not in the core" in each for each in found.faults)
    assert main(["pgd", str(tmp_path / "vmcore")]) == 1


@MODES
def test_linux_before_the_thread_leaves_a_dump_with_a_pgd_that_was_never_the_kernel_s(
    paging: Paging, tmp_path: Path
) -> None:
    """The real thing, store by store: the crash kernel is entered, and the dump is the worse for it."""
    good, bad = str(tmp_path / "good"), str(tmp_path / "bad")
    whole = found_in(sound(paging), tmp_path / "good")
    verdict = walk(host_of(paging), design=IN_PLACE)
    assert verdict.run.stop is Stop.ENTRY
    assert verdict.findings[0].rule == "current-pgd-kept"
    found = found_in(verdict, tmp_path / "bad")
    if paging in LEGACY:
        # One mapping more, to the control page; whatever the slot led to before is gone.
        assert found.whole
        assert found.sizes[PAGE] == whole.sizes[PAGE] + 1
    else:
        # The identity map's tables lie in the crash region, which no dump has.
        assert not found.whole
        assert main(["pgd", bad]) == 1
    assert main(["pgd", good]) == 0
    assert main(["pgd", bad, "--diff", good]) == 1


@MODES
@pytest.mark.parametrize("design", sorted(set(DESIGNS) - {IN_PLACE, TWO_TABLES}))
def test_the_other_designs_leave_it_whole(paging: Paging, design: str, tmp_path: Path) -> None:
    verdict = walk(host_of(paging), design=design)
    assert (verdict.outcome, verdict.findings) == (Outcome.HOLDS, ())
    assert found_in(verdict, tmp_path / "vmcore").whole


def table_a_over_the_pgd(handover: Handover) -> Handover:
    """The walk's own table is written where the current pgd is, below what maps the kernel."""
    tables, world = handover.page_table_a, handover.world
    offset = world.host.direct_map.virt
    bytes_below = {
        Paging.I386: (offset >> 22) * 4,
        Paging.PAE: (offset >> 30) * 8,
        Paging.X86_64: PAGE // 2,
        Paging.LA57: PAGE // 2,
    }[world.host.paging]
    low = bytes(tables.pages[tables.root])[:bytes_below]
    data = low + bytes(world.tables[world.pgd])[bytes_below:]
    piece = Piece(
        phys=Phys(world.pgd),
        data=data,
        role=PieceRole.OTHER,
        which="page_table_a in the current pgd",
    )
    return replace(handover, extra=(*handover.extra, piece))


@MODES
def test_a_pgd_that_another_table_was_written_over_is_found_broken(
    paging: Paging, tmp_path: Path
) -> None:
    over = Sabotage(name="over", says="", rule="", step=Step.PREPARE, handover=table_a_over_the_pgd)
    found = found_in(walk(host_of(paging), over), tmp_path / "vmcore")
    assert not found.whole


def test_a_dump_without_notes_cannot_be_judged(tmp_path: Path) -> None:
    """What the notes are for: without them nobody says where the tables are."""
    old = replace(host_of(Paging.X86_64), crash_notes=())
    dump(walk(old), tmp_path / "vmcore")
    assert main(["pgd", str(tmp_path / "vmcore")]) == 2


def filtered(verdict: Verdict, folder: Path, tool: Sequence[str] = ("makedumpfile",)) -> Path:
    """The dump, which is filtered at two levels beside it: it stays whole, and loses zeros alone."""
    core = folder / "core"
    dump(verdict, core)
    whole = vmcore.read(str(core))
    for level in ("0", "31"):
        makedumpfile(core, "-l", "-d", level, out=folder / level, tool=tool)
        assert vmcore.pgd(vmcore.read(str(folder / level))).whole
    left = vmcore.read(str(folder / "31"))
    for row in whole.held.extents:
        for start, part in written(verdict.run.memory, row):
            assert left.page(start) in (bytes(part[:PAGE]), None)
            assert left.page(start) or not any(part[:PAGE])
    assert (folder / "31").stat().st_size < core.stat().st_size // 10
    return core


@pytest.mark.parametrize("paging", [Paging.X86_64, Paging.LA57])
def test_makedumpfile_and_drgn_take_the_dump_of_a_described_kernel(
    paging: Paging, tmp_path: Path
) -> None:
    """makedumpfile asks for a release, mem_map and struct pages, and leaves out what is zeros; drgn
    walks the dead kernel's tables, in the core and in what was filtered."""
    verdict = sound(paging)
    host = verdict.handover.plan.host
    core = filtered(verdict, tmp_path)
    pgd, text = verdict.handover.world.pgd, host.text
    laid = bytes(verdict.run.memory.read(Extent.sized(pgd, PAGE)))
    for path in (core, tmp_path / "0", tmp_path / "31"):
        program = drgn.Program()
        program.set_core_dump(str(path))
        for virt in (text.virt + pgd - text.phys, host.direct_map.virt + pgd):
            assert program.read(virt, PAGE) == laid
        with pytest.raises(drgn.FaultError):
            program.read(host.direct_map.virt - PAGE, 8)


@pytest.mark.parametrize("paging", LEGACY)
def test_makedumpfile_of_32_bits_takes_the_dump_of_a_described_kernel_of_32_bits(
    paging: Paging, tmp_path: Path
) -> None:
    filtered(sound(paging), tmp_path, narrow_makedumpfile.unpacked(tmp_path))


def test_a_note_without_room_for_it_says_nothing_of_mem_map() -> None:
    old = host_of(Paging.X86_64)
    notes = tuple(
        replace(each, extent=Extent.sized(each.extent.start, min(each.extent.size, 0x300)))
        for each in old.crash_notes
    )
    narrow = host_of(Paging.PAE)
    for host, there in ((replace(old, crash_notes=notes), False), (old, True), (narrow, True)):
        said = b"".join(
            each.data for each in walk(host).handover.world.pieces if each.role is PieceRole.NOTE
        )
        assert (b"SYMBOL(mem_map)" in said) is there
