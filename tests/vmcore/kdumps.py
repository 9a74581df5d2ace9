"""Makers of compressed and flattened dumps, byte by byte, and the programs that nobody here wrote which do.

    made       header, sub header, bitmaps, descriptors, pages: 64 and 32 bits, whole or a part of a split one
    flat       a file as records, in any order, with some written twice
    told       a `Crashed` that makedumpfile takes: what it asks VMCOREINFO for lies in its memory

lzo and snappy are packed by the libraries that drgn's wheel brings.  Nothing here is taken from
`tightrope.vmcore`.
"""

from __future__ import annotations

import ctypes
import functools
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import drgn
import zstandard

from tests.conftest import lacking
from tests.vmcore.cores import (
    BASE,
    MIB,
    PGD,
    Crashed,
    Load,
    crashed,
    elf_core,
    prstatus,
    vmcoreinfo,
)

PAGE = 4096
FLAGS = {"": 0, "zlib": 1, "lzo": 2, "snappy": 4, "zstd": 0x20}


@functools.cache
def _library(name: str) -> ctypes.CDLL:
    (path,) = Path(drgn.__file__).parent.parent.glob(f"drgn.libs/lib{name}-*.so*")
    return ctypes.CDLL(str(path))


def lzo(data: bytes) -> bytes:
    """LZO1X-1, by liblzo2."""
    out, size = ctypes.create_string_buffer(len(data) * 2 + 64), ctypes.c_size_t()
    work = ctypes.create_string_buffer(1 << 20)
    assert _library("lzo2").lzo1x_1_compress(data, len(data), out, ctypes.byref(size), work) == 0
    return out.raw[: size.value]


def snappy(data: bytes) -> bytes:
    """By libsnappy."""
    out, size = (
        ctypes.create_string_buffer(len(data) * 2 + 64),
        ctypes.c_size_t(len(data) * 2 + 64),
    )
    call = _library("snappy").snappy_compress
    assert call(data, ctypes.c_size_t(len(data)), out, ctypes.byref(size)) == 0
    return out.raw[: size.value]


PACK: Mapping[str, Callable[[bytes], bytes]] = {
    "zlib": zlib.compress,
    "lzo": lzo,
    "snappy": snappy,
    "zstd": zstandard.ZstdCompressor().compress,
}


def _header(bits: int, machine: str, fields: Iterable[int]) -> bytes:
    names = ("Linux", "made", "6.1.0-56-amd64", "#1", machine, "")
    uts = b"".join(each.encode().ljust(65, b"\0") for each in names)
    shape = "<8si390s6xqqiiiIIIIIIi" if bits == 64 else "<8si390s2xiiiiiIIIIIIi"
    return struct.pack(shape, b"KDUMP   ", 6, uts, *fields).ljust(PAGE, b"\0")


def made(
    memory: bytes | bytearray,
    notes: bytes,
    *,
    pack: str = "zlib",
    bits: int = 64,
    machine: str = "x86_64",
    base: int = BASE,
    leave_out: Callable[[int, bytes], bool] = lambda number, page: False,
    part: tuple[int, int] | None = None,
    packer: Callable[[bytes], bytes] | None = None,
) -> bytes:
    """A dump of `memory`, which begins at `base`.

    A page that packs to no less is as it was.  `leave_out` is asked for each frame; `part` are the frames
    [first, end) of a part of a split dump.
    """
    first, count = base // PAGE, len(memory) // PAGE
    frames = {first + n: bytes(memory[n * PAGE : (n + 1) * PAGE]) for n in range(count)}
    highest = first + count
    bitmap_blocks = -(-highest // (8 * PAGE))
    bitmaps = [bytearray(bitmap_blocks * PAGE), bytearray(bitmap_blocks * PAGE)]
    dumped = []
    for frame, page in frames.items():
        bitmaps[0][frame // 8] |= 1 << frame % 8
        if not leave_out(frame, page):
            bitmaps[1][frame // 8] |= 1 << frame % 8
            dumped.append(frame)
    inside = [f for f in dumped if part is None or part[0] <= f < part[1]]
    sub_blocks = 1 + -(-len(notes) // PAGE)
    start, end = part or (0, 0)
    shape = "<QiiQQQQQQQQQQQ" if bits == 64 else "<IiiIIQIQIQIQQQ"
    fields = (
        0,
        0,
        int(part is not None),
        0,
        0,
        0,
        0,
        2 * PAGE,
        len(notes),
        0,
        0,
        start,
        end,
        highest,
    )
    sub = struct.pack(shape, *fields).ljust(PAGE, b"\0") + notes
    head = _header(
        bits,
        machine,
        (1_700_000_000, 0, 0, PAGE, sub_blocks, 2 * bitmap_blocks, highest, 0, 0, 0, 0, 1),
    )
    out = bytearray(head + sub.ljust(sub_blocks * PAGE, b"\0") + bitmaps[0] + bitmaps[1])
    at = len(out) + 24 * len(inside)
    rows, body = bytearray(), bytearray()
    for frame in inside:
        page = frames[frame]
        packed = (packer or PACK[pack])(page) if pack else page
        flags = FLAGS[pack] if packer or len(packed) < PAGE else 0
        data = packed if flags else page
        rows += struct.pack("<QIIQ", at + len(body), len(data), flags, 0)
        body += data
    return bytes(out + rows + body)


def of(dead: Crashed, *, size: int | None = None, **more: object) -> bytes:
    """A dump of a crashed kernel's first `size` bytes, with the notes that kdump leaves."""
    notes = prstatus() + prstatus() + vmcoreinfo(dead.info)
    machine = "x86_64" if dead.bits == 64 else "i686"
    return made(dead.memory[:size], notes, bits=dead.bits, machine=machine, **more)  # type: ignore[arg-type]


def flat(data: bytes, *, cut: int = 65536, backwards: bool = False, twice: bool = True) -> bytes:
    """A file as makedumpfile -F writes it: records of `cut` bytes; `twice` rewrites the first block."""
    out = [struct.pack(">16sqq", b"makedumpfile", 1, 1).ljust(4096, b"\0")]
    pieces = [(at, data[at : at + cut]) for at in range(0, len(data), cut)]
    if twice:
        pieces = [(0, b"\xff" * min(4096, len(data))), *pieces, (0, data[:4096])]
    # What is written last counts, so that only pieces which are alone may change places.
    for at, piece in reversed(pieces) if backwards and not twice else pieces:
        out.append(struct.pack(">qq", at, len(piece)) + piece)
    return b"".join((*out, struct.pack(">qq", -1, -1)))


def told(mode: str) -> Crashed:
    """A crashed 64-bit kernel with what makedumpfile 1.7.2 reads before it copies a page.

    Seen with it: the pgd's name of x86_64, utsname in the kernel's text, and a flat mem_map.
    """
    dead = crashed(mode)
    text = int(dead.info["SYMBOL(_stext)"], 16)
    dead.info.update(
        {
            "PAGESIZE": "4096",
            "SYMBOL(init_top_pgt)": dead.info["SYMBOL(swapper_pg_dir)"],
            "SYMBOL(init_uts_ns)": f"{text + 0x2000:x}",
            "OFFSET(uts_namespace.name)": "4",
            "SYMBOL(mem_map)": f"{text + 0x3000:x}",
            "SIZE(page)": "64",
            "OFFSET(page.flags)": "0",
            "OFFSET(page._refcount)": "52",
            "OFFSET(page.mapping)": "24",
            "OFFSET(page.lru)": "8",
        }
    )
    names = ("Linux", "made", dead.info["OSRELEASE"], "#1", "x86_64", "")
    uts = b"".join(each.encode().ljust(65, b"\0") for each in names)
    dead.memory[0x2004 : 0x2004 + len(uts)] = uts
    dead.put(BASE + 0x3000, text + 2 * MIB, 8)
    return dead


def told_core(dead: Crashed) -> bytes:
    """Its core, with the text's address in the row of memory."""
    text = int(dead.info["SYMBOL(swapper_pg_dir)"], 16) - (PGD - BASE)
    notes = prstatus() + prstatus() + vmcoreinfo(dead.info)
    return elf_core([Load(BASE, dead.memory, text)], notes)


def makedumpfile(
    core: Path, *words: str, out: Path, tool: Sequence[str] = ("makedumpfile",)
) -> list[Path]:
    """What makedumpfile makes of a core: one file; three with --split; what it pipes with -F."""
    if tool == ("makedumpfile",) and shutil.which("makedumpfile") is None:
        lacking("no makedumpfile here: run scripts/system-packages")
    files = [out.with_name(f"{out.name}.{n}") for n in range(3)] if "--split" in words else [out]
    line = [*tool, *words, str(core), *([] if "-F" in words else map(str, files))]
    done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    if "-F" in words:
        out.write_bytes(done.stdout)
    return files
