"""Dumps in every format: the same kernel, the same answer; drgn reads what ours reads.

one Crashed -> an ELF core --makedumpfile--> compressed, split, flattened
            -> made dumps: lzo, snappy, zstd, 32 bits          } pgd gives the ELF core's answer,
            -> a PC's RAM --QEMU's dump-guest-memory-->        } and each page is the same
"""

from __future__ import annotations

import contextlib
import re
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import drgn
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.qemu.pcs import qemu
from tests.vmcore import kdumps
from tests.vmcore.cores import (
    BASE,
    MIB,
    PGD,
    SIZE,
    Crashed,
    Load,
    crashed,
    elf_core,
    prstatus,
    vmcoreinfo,
    xen,
)
from tests.vmcore.cores import qemu as qemu_note
from tests.vmcore.kdumps import PACK, PAGE, flat, made, makedumpfile, of, told, told_core
from tightrope import routines, vmcore
from tightrope.cli import main
from tightrope.errors import CoreError, MissingPart
from tightrope.machine.qemu.pc import Board, Pc
from tightrope.memory import Extent
from tightrope.model.dump import Compression, Kind, Standing
from tightrope.model.pgd import Wholeness
from tightrope.vmcore import codecs

MODES = ("i386", "pae", "x86_64", "la57")
PACKINGS = ("", *PACK)


def same(dump: vmcore.Core, dead: Crashed) -> None:
    """pgd says whole, of the same tables, and frames that are held are the dead kernel's."""
    found, elf = vmcore.pgd(dump), vmcore.pgd(vmcore.parse(dead.core(), "elf"))
    assert found.answer is Wholeness.WHOLE
    assert vmcore.difference(elf.found, found.found) == ()
    assert (found.found.tables, found.mappings) == (elf.found.tables, elf.mappings)
    for frame in (*dead.tables, BASE, BASE + 8 * MIB, BASE + SIZE - PAGE):
        assert dump.page(frame) == dead.page(frame)
    assert dump.page(BASE - PAGE) is dump.page(BASE + SIZE) is None


def as_drgn_has_it(path: Path, frame: int) -> bytes:
    """A frame by drgn's libkdumpfile; raises drgn.FaultError where it has none."""
    program = drgn.Program()
    program.set_core_dump(str(path))
    return bytes(program.read(frame, PAGE, True))


# ------------------------------------------------------------------------- files nobody here wrote


@pytest.fixture(scope="module", params=["la57"])
def written(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Crashed, Path]:
    """A crashed kernel and its core in a folder."""
    dead = told(request.param)
    core = tmp_path_factory.mktemp("dumps") / "core"
    core.write_bytes(told_core(dead))
    return dead, core


@pytest.mark.parametrize(
    ("words", "kind", "flattened", "packed"),
    [
        (("-c", "-d", "0"), Kind.KDUMP, False, (Compression.ZLIB,)),
        (("-l", "-d", "0"), Kind.KDUMP, False, (Compression.LZO,)),
        (("-d", "0"), Kind.KDUMP, False, ()),
        (("-c", "-d", "0", "--split"), Kind.KDUMP, False, (Compression.ZLIB,)),
        (("-l", "-d", "0", "-F"), Kind.KDUMP, True, (Compression.LZO,)),
    ],
    ids=lambda value: (
        " ".join(value) if isinstance(value, tuple) and value[:1] == ("-c",) else None
    ),
)
def test_what_makedumpfile_writes_is_read(
    written: tuple[Crashed, Path],
    words: tuple[str, ...],
    kind: Kind,
    flattened: bool,
    packed: tuple[Compression, ...],
) -> None:
    dead, core = written
    files = makedumpfile(core, *words, out=core.with_name("".join(words)))
    dump = vmcore.read(*map(str, files))
    same(dump, dead)
    assert dump.unused == ()
    assert (dump.container.kind, dump.container.flattened) == (kind, flattened)
    assert (dump.container.compression, dump.container.part) == (packed, None)
    if len(files) == 1 and not flattened:
        for frame in dead.tables:
            assert as_drgn_has_it(files[0], frame) == dump.page(frame)


@pytest.mark.parametrize(
    "words", [("-E", "-d", "1"), ("-E", "-d", "1", "-F"), ("-c", "-d", "1")], ids=" ".join
)
def test_zero_pages_that_makedumpfile_leaves_out_are_left_out(
    written: tuple[Crashed, Path], words: tuple[str, ...]
) -> None:
    dead, core = written
    dump = vmcore.read(str(makedumpfile(core, *words, out=core.with_name("".join(words)))[0]))
    assert vmcore.pgd(dump).answer is Wholeness.WHOLE
    frames = np.arange(BASE, BASE + SIZE, PAGE, dtype=np.uint64)
    zero = np.array([not any(dead.page(int(each)) or b"") for each in frames])
    standing = dump.standing(frames)
    assert set(standing[~zero].tolist()) == {Standing.HELD}
    # An ELF core writes small holes out, and a compressed dump has one packed page for every zero one.
    assert set(standing[zero].tolist()) <= {Standing.HELD, Standing.LEFT_OUT}
    left = frames[standing == Standing.LEFT_OUT]
    assert all(not any(dead.page(int(each)) or b"") for each in left)


def test_one_part_of_a_split_dump_alone_says_so_and_may_be_enough(
    written: tuple[Crashed, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, core = written
    parts = makedumpfile(core, "-c", "-d", "0", "--split", out=core.with_name("alone"))
    assert len(parts) == 3
    alone = vmcore.read(str(parts[0]))
    assert any("one part of a split dump" in each for each in alone.unused)
    assert main(["pgd", str(parts[0])]) == 0
    assert "name all parts together" in " ".join(capsys.readouterr().out.split())
    assert main(["pgd", *map(str, parts)]) == 0
    assert "one part" not in capsys.readouterr().out
    with pytest.raises(CoreError, match="the same page"):
        vmcore.read(str(parts[0]), str(parts[0]))
    with pytest.raises(CoreError, match="is not a part of a split dump"):
        vmcore.read(str(parts[0]), str(core))


def qemus(pc: Pc, path: Path, form: str) -> Path:
    """dump-guest-memory of a PC, in one of QEMU's formats."""
    answer = pc.qmp(
        "dump-guest-memory", {"paging": False, "protocol": f"file:{path}", "format": form}
    )
    assert answer == {}
    return path


@pytest.fixture(scope="module", params=["i386", "x86_64", "la57"])
def standing(request: pytest.FixtureRequest) -> Iterator[tuple[Crashed, Pc]]:
    """A PC that has a crashed kernel's memory; it has not run an instruction, but in its mode."""
    qemu().close()
    dead = crashed(request.param)
    with Pc(
        Board(size=64 * MIB, kernel=routines.read(routines.STAGE_PC).data.ljust(PAGE, b"\0"))
    ) as pc:
        pc.ram.write(BASE, bytes(dead.memory))
        if dead.bits == 64:
            pc.set_register("efer", 0x500)
        yield dead, pc


@pytest.mark.parametrize("form", ["elf", "kdump-zlib", "kdump-lzo", "kdump-snappy"])
def test_what_qemu_dumps_is_read(standing: tuple[Crashed, Pc], tmp_path: Path, form: str) -> None:
    dead, pc = standing
    able = pc.qmp("query-dump-guest-memory-capability")
    assert isinstance(able, dict)
    if form not in able["formats"]:
        assert form in ("kdump-lzo", "kdump-snappy"), "zlib is in every QEMU"
        return  # what this build cannot write, made dumps of the same packing stand for
    dump = vmcore.read(str(qemus(pc, tmp_path / "dump", form)))
    assert dump.container.flattened is (form != "elf")
    found = vmcore.pgd(
        dump, cr3=PGD, paging=vmcore.pgd(vmcore.parse(dead.core(), "elf")).root.paging
    )
    assert found.whole
    assert {frame: dump.page(frame) for frame in dead.tables} == {
        frame: dead.page(frame) for frame in dead.tables
    }
    assert [each.who for each in dump.notes.control] == ["QEMU"]


# ---------------------------------------------------------------------------------- made, all ways


@pytest.mark.parametrize(
    ("mode", "pack"),
    [*(("x86_64", each) for each in PACKINGS), ("i386", "lzo"), ("pae", "zstd"), ("la57", "zlib")],
)
def test_a_compressed_dump_answers_as_the_elf_core(mode: str, pack: str, tmp_path: Path) -> None:
    dead = crashed(mode)
    dead.info["PAGESIZE"] = "4096"  # drgn asks for it
    for number in range(0, SIZE // PAGE, 97):  # pages that pack to something, and some that do not
        dead.memory[8 * MIB + number * PAGE // 2 :][:8] = struct.pack(
            "<Q", number * 0x9E3779B97F4A7C15 & (1 << 64) - 1
        )
    noise = np.random.default_rng(1).bytes(64 * PAGE)
    dead.memory[12 * MIB : 12 * MIB + len(noise)] = noise
    data = of(dead, pack=pack)
    dump = vmcore.parse(data, "made")
    same(dump, dead)
    assert dump.unused == ()
    assert dump.extents == (Extent.sized(BASE, SIZE),)
    assert [each.value for each in dump.container.compression] == [pack] * bool(pack)
    if dead.bits == 64:
        path = tmp_path / "made"
        path.write_bytes(data)
        for frame in (
            *dead.tables,
            BASE + 12 * MIB,
            BASE + 8 * MIB + 97 * PAGE // 2 // PAGE * PAGE,
        ):
            assert as_drgn_has_it(path, frame) == dump.page(frame) == dead.page(frame)


@pytest.mark.parametrize(
    ("form", "mode"),
    [
        *(("kdump", mode) for mode in MODES),
        *((pack or "not packed", "x86_64") for pack in PACKINGS),
        *((pack, "pae") for pack in PACK),
        ("flattened", "x86_64"),
        ("flattened", "i386"),
        ("split", "x86_64"),
        ("split", "pae"),
        ("QEMU's", "x86_64"),
        ("QEMU's", "la57"),
        ("elf", "i386"),
        ("elf", "x86_64"),
        ("Xen's", "x86_64"),
    ],
)
def test_the_three_answers_of_every_format(form: str, mode: str, tmp_path: Path) -> None:
    dead = crashed(mode)
    lost = dead.tables[-1]
    size, notes = 6 * MIB, b""
    if form == "QEMU's":
        notes = qemu_note(cr3=PGD, cr4=0x1020 if mode == "la57" else 0x20)

    def written(left_out: int | None) -> list[bytes]:
        """The dump's files; one page may be left out."""

        def out(frame: int, page: bytes) -> bool:
            return frame * PAGE == left_out

        if form in ("elf", "Xen's"):
            cut = size if left_out is None else left_out - BASE
            loads = [Load(BASE, dead.memory[:cut])]
            if left_out is not None:
                loads.append(Load(left_out + PAGE, dead.memory[cut + PAGE : size]))
                loads.append(Load(left_out, b"", left_out=PAGE))
            given = xen(cr3=PGD, cr4=0x20) if form == "Xen's" else vmcoreinfo(dead.info)
            if dead.bits == 32:
                return [elf_core(loads, prstatus() + given, bits=32, machine=3)]
            return [elf_core(loads, prstatus() + given)]
        if notes:
            return [flat(made(dead.memory[:size], notes, pack="zlib", leave_out=out))]
        if form == "split":
            cuts = (0, BASE // PAGE + 100, BASE // PAGE + 700, (BASE + size) // PAGE)
            return [of(dead, size=size, leave_out=out, part=each) for each in pairwise(cuts)]
        pack = {"not packed": ""}.get(form, form if form in PACK else "zlib")
        data = of(dead, size=size, leave_out=out, pack=pack)
        return [flat(data) if form == "flattened" else data]

    def answer(left_out: int | None = None) -> Wholeness:
        paths = []
        for number, data in enumerate(written(left_out)):
            paths.append(tmp_path / str(number))
            paths[-1].write_bytes(data)
        return vmcore.pgd(vmcore.read(*map(str, paths))).answer

    assert answer() is Wholeness.WHOLE
    assert answer(lost) is Wholeness.UNTOLD
    dead.memory[PGD - BASE : PGD - BASE + PAGE] = b"\xff" * PAGE
    assert answer() is Wholeness.NOT_WHOLE


def test_what_is_left_out_is_not_what_never_was_memory() -> None:
    dump = vmcore.parse(
        of(crashed("x86_64"), leave_out=lambda frame, page: frame == BASE // PAGE + 5), "made"
    )
    frames = np.array([BASE, BASE + 5 * PAGE, BASE - PAGE], np.uint64)
    assert dump.standing(frames).tolist() == [Standing.HELD, Standing.LEFT_OUT, Standing.OUTSIDE]
    assert dump.extents == (Extent.sized(BASE, 5 * PAGE), Extent(BASE + 6 * PAGE, BASE + SIZE))


def test_parts_are_put_together_whatever_their_order(tmp_path: Path) -> None:
    dead = crashed("x86_64")
    first, end = BASE // PAGE, (BASE + SIZE) // PAGE
    cuts = (0, first + 100, first + 2000, end)
    for number, part in enumerate(pairwise(cuts)):
        (tmp_path / str(number)).write_bytes(of(dead, part=part))
    dump = vmcore.read(*(f"{tmp_path}/{number}" for number in (2, 0, 1)))
    same(dump, dead)
    assert dump.unused == ()
    alone = vmcore.read(f"{tmp_path}/1")
    assert alone.extents == (Extent(cuts[1] * PAGE, cuts[2] * PAGE),)
    assert alone.page(BASE) is None
    dead.info["OSRELEASE"] = "6.1.0-57-amd64"
    (tmp_path / "other").write_bytes(of(dead, part=(cuts[2], cuts[3])))
    with pytest.raises(CoreError, match="of another dump"):
        vmcore.read(f"{tmp_path}/0", f"{tmp_path}/other")


@settings(max_examples=30)
@given(st.integers(1, 3 * 4096), st.booleans(), st.booleans())
def test_a_flattened_file_is_the_file(cut: int, backwards: bool, twice: bool) -> None:
    dead = SMALL_DEAD
    data = made(dead.memory[: 16 * PAGE], b"", pack="zlib")
    records = flat(data, cut=max(cut, len(data) // 500), backwards=backwards, twice=twice)
    one, other = vmcore.parse(records, "flat"), vmcore.parse(data, "plain")
    assert one.extents == other.extents
    assert [one.page(each) for each in range(BASE, BASE + 16 * PAGE, PAGE)] == [
        other.page(each) for each in range(BASE, BASE + 16 * PAGE, PAGE)
    ]


SMALL_DEAD = crashed("x86_64")


@given(st.binary(max_size=64), st.integers(0, 3), st.sampled_from(sorted(PACK)))
def test_what_is_packed_is_unpacked(seed: bytes, shape: int, how: str) -> None:
    filler = (bytes(PAGE), seed * PAGE, zlib.compress(seed * 9) * PAGE, bytes(100) + seed * PAGE)[
        shape
    ]
    page = (seed + filler + bytes(PAGE))[:PAGE]
    assert codecs.unpack(Compression(how), PACK[how](page), PAGE) == page


# ---------------------------------------------------------------------------------------- bad input

LARGE = {
    "zlib": zlib.compress(bytes(64 * MIB)),
    "zstd": zstandard.ZstdCompressor().compress(bytes(64 * MIB)),
    "lzo": kdumps.lzo(bytes(1 * MIB)),
    "snappy": kdumps.snappy(bytes(1 * MIB)),
}


@pytest.mark.parametrize("how", sorted(PACK))
def test_a_page_that_unpacks_to_anything_but_a_page_is_refused(how: str) -> None:
    packing = Compression(how)
    for data in (
        LARGE[how],
        PACK[how](bytes(PAGE - 1)),
        PACK[how](bytes(PAGE + 1)),
        b"",
        b"\xff" * 40,
    ):
        with pytest.raises(ValueError, match=how):
            codecs.unpack(packing, data, PAGE)
    dead = crashed("x86_64")
    broken = of(dead, pack=how, packer=lambda page: b"\x11\x22\x33")
    with pytest.raises(CoreError, match=r"page [\d,]+ of the dump does not unpack"):
        vmcore.pgd(vmcore.parse(broken, "made"))


@given(
    st.sampled_from(sorted(PACK)),
    st.binary(max_size=200),
    st.lists(st.tuples(st.integers(0, 150), st.integers(0, 255)), max_size=6),
)
def test_any_packed_bytes_are_a_page_or_a_value_error(
    how: str, data: bytes, changes: list[tuple[int, int]]
) -> None:
    good = bytearray(PACK[how](data * 30 + bytes(PAGE)[len(data) * 30 :]))
    for at, value in changes:
        good[at % len(good)] = value
    for each in (data, bytes(good)):
        with contextlib.suppress(ValueError):
            assert len(codecs.unpack(Compression(how), each, PAGE)) == PAGE


def test_zstd_without_its_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    dump = vmcore.parse(of(crashed("x86_64"), pack="zstd"), "made")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingPart, match=re.escape("tightrope[inspect]")):
        vmcore.pgd(dump)


FIELDS = {
    "block_size": (428, 4),
    "sub_hdr_size": (432, 4),
    "bitmap_blocks": (436, 4),
    "max_mapnr": (440, 4),
    "split": (PAGE + 12, 4),
    "vmcoreinfo": (PAGE + 32, 8),
    "vmcoreinfo_size": (PAGE + 40, 8),
    "notes": (PAGE + 48, 8),
    "notes_size": (PAGE + 56, 8),
    "start": (PAGE + 80, 8),
    "end": (PAGE + 88, 8),
    "max_mapnr_64": (PAGE + 96, 8),
}
EXTREMES = (0, 1, 0x7FFF_FFFF, 0xFFFF_FFFF, (1 << 63) - 4096, 1 << 63, (1 << 64) - 1)


def judged(data: bytes | bytearray) -> None:
    """A verdict or a CoreError; anything else is a fault of ours."""
    with contextlib.suppress(CoreError):
        vmcore.pgd(vmcore.parse(data, "made"))


@pytest.mark.parametrize("field", FIELDS)
def test_a_size_out_of_all_bounds_is_a_core_or_a_core_error(field: str) -> None:
    at, size = FIELDS[field]
    for value in EXTREMES:
        data = bytearray(SMALL)
        data[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        judged(data)
        judged(flat(bytes(data)))


SMALL = of(SMALL_DEAD, leave_out=lambda frame, page: frame >= BASE // PAGE + 1024 + 32)


def test_a_descriptor_or_a_record_out_of_all_bounds_is_left_out_or_refused() -> None:
    rows = _descriptors(SMALL)
    for value in EXTREMES:
        data = bytearray(SMALL)
        struct.pack_into("<Q", data, rows + 24 * 16, value)  # the pgd's page
        judged(data)
        struct.pack_into("<I", data, rows + 24 * 16 + 8, value & 0xFFFF_FFFF)
        judged(data)
        struct.pack_into("<I", data, rows + 24 * 16 + 12, value & 0xFFFF_FFFF)
        judged(data)
        records = bytearray(flat(SMALL))
        struct.pack_into(">Q", records, 4096, value)
        judged(records)
        struct.pack_into(">Q", records, 4104, value)
        judged(records)


def _descriptors(data: bytes) -> int:
    """Where the first one lies."""
    sub, bitmaps = struct.unpack_from("<iI", data, 432)
    return (1 + int(sub) + int(bitmaps)) * PAGE


TRUNCATED = """
import sys
from tightrope import vmcore
from tightrope.errors import CoreError

for path in sys.argv[1:]:
    data = open(path, "rb").read()
    for size in range(0, min(len(data), (1 << 20) + 1), 4096):
        try:
            core = vmcore.parse(memoryview(data)[:size], path)
            for extent in core.extents[:2] + core.extents[-2:]:
                if extent.size % 4096 == 0:
                    assert core.page(extent.start) and core.page(extent.end - 4096)
            if not size % 65536:
                vmcore.pgd(core)
        except CoreError as err:
            assert "\\n" not in str(err), err
        else:
            print(path, size)
"""


def test_a_dump_cut_short_anywhere_is_told_within_a_gibibyte(tmp_path: Path) -> None:
    """Of every format at every 4 KiB of its first MiB, in less than 1 GiB; every 64 KiB its tables are asked."""
    dead = crashed("x86_64")
    # The first MiB is text that packs to nothing less, so that there is a MiB to cut.
    dead.memory[2 * MIB : 3 * MIB] = np.random.default_rng(1).bytes(MIB)
    end = 4 * MIB + 32 * PAGE
    narrow = crashed("pae")
    elf = elf_core([Load(BASE, dead.memory[:end])], vmcoreinfo(dead.info))
    made_of = {
        "elf": elf,
        "elf, 32 bits": elf_core(
            [Load(BASE, narrow.memory[:end])], vmcoreinfo(narrow.info), bits=32, machine=3
        ),
        "elf, flattened": flat(elf),
        "elf of Xen": elf_core([Load(BASE, dead.memory[:end])], xen(cr3=PGD, cr4=0x20)),
        "not packed": of(dead, size=end, pack=""),
        "QEMU's": flat(
            made(dead.memory[:end], qemu_note(cr3=PGD, cr4=0x20), pack="zlib"), backwards=True
        ),
        "zlib": of(dead, size=end),
        "zstd": of(dead, size=end, pack="zstd"),
        "lzo, flattened": flat(of(dead, size=end, pack="lzo"), cut=5000),
        "snappy, part": of(dead, size=end, pack="snappy", part=(0, (BASE + end) // PAGE)),
        "32 bits": of(narrow, size=end),
    }
    for name, data in made_of.items():
        (tmp_path / name).write_bytes(data)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))

    done = subprocess.run(
        [sys.executable, "-c", TRUNCATED, *(str(tmp_path / name) for name in made_of)],
        capture_output=True,
        text=True,
        preexec_fn=limit,
        env={"OPENBLAS_NUM_THREADS": "1"},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "zlib" in done.stdout, "long enough, it is a dump that was cut short"


def test_a_bitmap_of_single_frames_is_refused_before_it_fills_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tightrope.vmcore import diskdump

    every_other = of(SMALL_DEAD, leave_out=lambda frame, page: bool(frame % 2))
    assert len(vmcore.parse(every_other, "made").extents) == SIZE // PAGE // 2
    monkeypatch.setattr(diskdump, "PIECES_LIMIT", 1000)
    with pytest.raises(CoreError, match="more pieces than are listed"):
        vmcore.parse(every_other, "made")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"makedumpfile\0\0\0\0" + bytes(4080), "a flattened dump of something that is neither"),
        (b"KDUMP   \x06\0\0\0" + bytes(8180), "compressed dump .kdump. with blocks that are not"),
        (b"DISKDUMP\x01\0\0\0" + bytes(8180), "blocks that are not a page"),
        (b"KDUMP   ", "ends inside its header"),
        (flat(flat(b"\x7fELF" + bytes(8192))), "a flattened dump of something that is neither"),
        (b"\x1f\x8b", "neither an ELF core nor a compressed dump"),
    ],
)
def test_what_is_no_dump_is_told_with_its_place(data: bytes, words: str) -> None:
    with pytest.raises(CoreError, match=words) as caught:
        vmcore.parse(data, "made")
    assert caught.value.source == "made"


def test_a_dump_of_another_machine_is_named() -> None:
    with pytest.raises(CoreError, match="machine 'aarch64', not of an x86"):
        vmcore.parse(made(bytes(PAGE), b"", machine="aarch64"), "made")
