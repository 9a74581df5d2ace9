"""kdump capture --compress: three readers read what was written, and what was ended goes on."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import sys
from pathlib import Path

import drgn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vmcore import logs
from tests.vmcore.cores import BASE, MIB, Load, crashed, elf_core, prstatus, vmcoreinfo
from tests.vmcore.kdumps import makedumpfile, told, told_core
from tests.vmcore.logs import Said
from tightrope import vmcore
from tightrope.cli import main
from tightrope.errors import CoreError, MissingPart, PerformError
from tightrope.kdump import compressed, saving
from tightrope.kdump.capture import Wanted, capture
from tightrope.kdump.compressed import Packing
from tightrope.kdump.core import Vmcore
from tightrope.model.dump import Compression, Kind

PAGE = 4096
NOISE = 12 * MIB


@pytest.fixture(scope="module", params=["x86_64", "pae"])
def core(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kernel that died with a log; zeros, noise, and what packs well."""
    mode = request.param
    dead = told(mode) if mode == "x86_64" else crashed(mode)
    logs.ring(dead, [Said("Kernel panic - not syncing: made")])
    dead.memory[NOISE : NOISE + MIB] = np.random.default_rng(5).bytes(MIB)
    path = tmp_path_factory.mktemp("core") / "vmcore"
    path.write_bytes(told_core(dead) if mode == "x86_64" else dead.core())
    return path


def saved(core: Path, folder: Path, how: Packing, force: bool = False) -> Path:
    wanted = Wanted(vmcore=str(core), folder=str(folder), packing=how, force=force)
    return capture(wanted).copied.path


@pytest.mark.parametrize("how", Packing)
def test_its_pages_are_the_cores_and_the_answer_the_same(
    core: Path, how: Packing, tmp_path: Path
) -> None:
    done = capture(Wanted(vmcore=str(core), folder=str(tmp_path), packing=how))
    elf, dump = vmcore.read(str(core)), vmcore.read(str(done.copied.path))
    assert dump.container.kind is Kind.KDUMP
    assert dump.container.compression == (Compression(how.value),)
    assert dump.held.extents == elf.held.extents
    assert dump.notes.vmcoreinfo == elf.notes.vmcoreinfo
    assert dump.notes.prstatus == elf.notes.prstatus
    for extent in elf.held.extents:
        for frame in (*range(extent.start, extent.end, 13 * PAGE), extent.end - PAGE):
            assert dump.page(frame) == elf.page(frame)
    assert done.whole is True
    assert done.copied.sha256 == hashlib.sha256(done.copied.path.read_bytes()).hexdigest()
    assert done.copied.size < core.stat().st_size // 4


@pytest.mark.parametrize("how", Packing)
def test_drgn_and_makedumpfile_read_it(how: Packing, tmp_path: Path) -> None:
    dead = told("x86_64")
    dead.memory[NOISE : NOISE + MIB] = np.random.default_rng(5).bytes(MIB)
    (tmp_path / "vmcore").write_bytes(told_core(dead))
    path = saved(tmp_path / "vmcore", tmp_path / "out", how)
    program = drgn.Program()
    program.set_core_dump(str(path))
    for at in (0, NOISE, NOISE + MIB - PAGE, len(dead.memory) - PAGE):
        assert bytes(program.read(BASE + at, PAGE, True)) == dead.memory[at : at + PAGE]
    if how is Packing.ZLIB:  # 1.7.2 of Debian 12 is built without zstd
        makedumpfile(path, "-l", "-d", "1", out=tmp_path / "again")
        again = vmcore.read(str(tmp_path / "again"))
        assert again.page(BASE + NOISE) == bytes(dead.memory[NOISE : NOISE + PAGE])


def test_what_a_full_disk_ended_goes_on_where_it_was(
    core: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = saved(core, tmp_path / "plain", Packing.ZLIB)
    written, write = 0, os.pwrite

    def full(out: int, data: bytes, at: int) -> int:
        nonlocal written
        written += len(data)
        if written > MIB:
            raise OSError(28, "No space left on device")
        return write(out, data, at)

    folder = tmp_path / "out"
    monkeypatch.setattr(saving, "CHUNK", MIB // 2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        patch.setattr(saving, "JOURNAL_SECONDS", 0.0)
        with pytest.raises(PerformError, match="No space left"):
            saved(core, folder, Packing.ZLIB)
    assert not (folder / "vmcore").exists()
    pages = json.loads((folder / "vmcore.part.json").read_text())["pages"]
    assert pages > 0
    done = capture(Wanted(vmcore=str(core), folder=str(folder), packing=Packing.ZLIB))
    assert done.copied.resumed == pages * PAGE
    ours, its = bytearray(done.copied.path.read_bytes()), bytearray(plain.read_bytes())
    for each in (ours, its):
        each[12 + 6 * 65 : PAGE] = b""  # its time
    assert ours == its


@pytest.mark.parametrize("lost", ["cut", "another packing"])
def test_a_part_that_is_not_what_the_journal_says_is_begun_anew(
    core: Path, lost: str, tmp_path: Path
) -> None:
    saved(core, tmp_path / "plain", Packing.ZLIB)
    who = f"{saving.identity(Vmcore(str(core)))} {'zlib' if lost == 'cut' else 'zstd'}"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "vmcore.part").write_bytes(bytes(8192))
    said = {"core": who, "pages": 8, "end": 1 << 20 if lost == "cut" else 8192}
    (tmp_path / "out" / "vmcore.part.json").write_text(json.dumps(said))
    done = capture(Wanted(vmcore=str(core), folder=str(tmp_path / "out"), packing=Packing.ZLIB))
    assert (done.copied.resumed, done.whole) == (0, True)


def test_zstd_without_its_package_is_said_before_anything_is_written(
    core: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingPart, match=r"pip install.*or --compress zlib"):
        saved(core, tmp_path / "out", Packing.ZSTD)
    assert list((tmp_path / "out").iterdir()) == []


def test_the_command_packs_or_filters_and_not_both(
    core: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["kdump", "capture", str(core), "-o", str(tmp_path), "--compress", "zlib"]
    assert main([*words, "--filter", "31"]) == 2
    assert list(tmp_path.iterdir()) == []
    assert main(words) == 0
    assert "saved; the pgd: whole" in " ".join(capsys.readouterr().out.split())


ROWS = st.lists(
    st.tuples(st.integers(0, 40 * PAGE), st.integers(1, 9 * PAGE)), min_size=1, max_size=5
)


@given(ROWS)
@settings(max_examples=60, deadline=None)
def test_memory_is_what_any_row_has_whole(rows: list[tuple[int, int]]) -> None:
    """Rows that overlap and that begin anywhere: as where the kernel's text has one of its own."""
    memory = bytes(n % 251 for n in range(50 * PAGE))
    loads = [Load(BASE + start, memory[start : start + size]) for start, size in rows]
    descriptor = os.memfd_create("core", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, elf_core(loads, prstatus() + vmcoreinfo({"OSRELEASE": "6"})))
        found = Vmcore(f"/proc/self/fd/{descriptor}")
        frames = found.frames()
        whole = {
            frame
            for start, size in rows
            for frame in range(0, 50 * PAGE, PAGE)
            if start <= frame and frame + PAGE <= start + size
        }
        have = {frame - BASE for each in frames for frame in range(each.start, each.end, PAGE)}
        assert whole <= have
        for extent in frames:
            assert found.memory(extent) == memory[extent.start - BASE : extent.end - BASE]
        for frame in have:
            assert found.page(BASE + frame) == memory[frame : frame + PAGE]
        found.close()
    finally:
        os.close(descriptor)


def test_memory_beyond_what_its_header_counts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "core").write_bytes(
        elf_core([Load(1 << 60, bytes(PAGE))], vmcoreinfo({"OSRELEASE": "6"}))
    )
    with pytest.raises(CoreError, match="save it as it is"):
        compressed.packed(
            Vmcore(str(tmp_path / "core")), tmp_path / "out", Packing.ZLIB, lambda *_: None
        )


EXTREMES = (0, 1, 1 << 40, (1 << 63) - PAGE, 1 << 63, (1 << 64) - 1)
FIELDS = {"p_offset": 8, "p_paddr": 24, "p_filesz": 32, "p_memsz": 40}


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("packing", [None, Packing.ZLIB])
def test_a_row_out_of_all_bounds_is_saved_or_refused(
    field: str, packing: Packing | None, tmp_path: Path
) -> None:
    good = elf_core([Load(BASE, bytes(4 * PAGE))], vmcoreinfo({"OSRELEASE": "6"}))
    for row in (0, 1):  # the notes, the memory
        for value in EXTREMES:
            data = bytearray(good)
            at = 64 + 56 * row + FIELDS[field]
            data[at : at + 8] = value.to_bytes(8, "little")
            settled(bytes(data), packing, tmp_path)


@pytest.mark.parametrize("packing", [None, Packing.ZLIB])
def test_a_core_cut_short_anywhere_is_saved_or_refused(
    packing: Packing | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every 4 KiB of its first MiB."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    data = elf_core([Load(BASE, bytes(2 * MIB))], vmcoreinfo({"OSRELEASE": "6"}))
    ends = {settled(data[:size], packing, tmp_path) for size in range(0, MIB + 1, PAGE)}
    assert ends == ({True, False} if packing is None else {False})
    assert settled(data, packing, tmp_path), "its right twin"


def settled(data: bytes, packing: Packing | None, folder: Path) -> bool:
    """Whether it was saved; a core that is not has no file of a final name, and a typed error."""
    (folder / "core").write_bytes(data)
    final = folder / "vmcore"
    final.unlink(missing_ok=True)
    try:
        found = Vmcore(str(folder / "core"))
        try:
            if packing is None:
                saving.copy(found, final, lambda *_: None)
            else:
                compressed.packed(found, final, packing, lambda *_: None)
        finally:
            found.close()
    except CoreError as err:
        assert "\n" not in str(err)  # noqa: PT017 - being saved is right as well
        assert not final.exists()
        return False
    return final.exists()


@pytest.mark.parametrize("phys_base", [0, 0x100_0000, -71303168])
def test_where_the_text_lies_is_in_the_sub_header(phys_base: int, tmp_path: Path) -> None:
    """KASLR puts it below or above where it was linked; makedumpfile takes that from here alone."""
    dead = crashed("x86_64")
    dead.info["NUMBER(phys_base)"] = str(phys_base)
    (tmp_path / "core").write_bytes(dead.core())
    path = saved(tmp_path / "core", tmp_path / "out", Packing.ZLIB)
    (found,) = struct.unpack_from("<Q", path.read_bytes(), PAGE)
    assert found == phys_base % (1 << 64)
