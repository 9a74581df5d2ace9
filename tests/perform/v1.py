"""The thread's system for a dom0 whose frames are known: what goes into them, and how it is entered.

    Xen 4.17, interface v1     reads a list of one page and copies it; jumps to its first byte
    that page                  plays the part that v1's hypervisor had up to 4.3: the registers of the
                               call, tables with V -> P, and the jump to V (step 1b)
    V                          our control page, page_table_a, page_table_b and list, in dom0's frames

Rules: the plan is the planner's for an old kernel that has these frames and no others to give, and it is
rehearsed here.  Nothing is asserted.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from tests.conftest import debian_kernel
from tests.qemu.pcs import QUIET, initramfs
from tightrope import image
from tightrope.abi import xen as abi
from tightrope.deeds.rehearse import rehearse
from tightrope.memory import PAGE_SHIFT, PAGE_SIZE, Extent, Phys, Virt, subtract
from tightrope.model import Handover, Host, Named, Paging, Verdict
from tightrope.plan import Request
from tightrope.x86.paging import FORMATS, Rights, map_page
from tightrope.x86.tables import TableStore

MIB = 1 << 20
SPARE = 10
"""Frames for the page that Xen enters, its tables, and Xen's list."""
EXECUTABLE = Rights(writable=True, executable=True)
MOV_IMMEDIATE = {
    "rax": b"\x48\xb8",
    "rsp": b"\x48\xbc",
    "rdi": b"\x48\xbf",
    "rsi": b"\x48\xbe",
    "rdx": b"\x48\xba",
    "rcx": b"\x48\xb9",
    "r8": b"\x49\xb8",
}
"""movabs $imm64, %REGISTER."""
MOV_RAX_CR3, JMP_RAX, CLI = b"\x0f\x22\xd8", b"\xff\xe0", b"\xfa"


@dataclass(frozen=True)
class Prepared:
    """A rehearsal, and the file that tests/perform/in_dom0.py takes."""

    verdict: Verdict
    pages: bytes


def parsed(runs: str) -> list[int]:
    """FIRST+COUNT in hexadecimal, with commas between -> frame numbers."""
    pairs = (each.split("+") for each in runs.split(","))
    return [n for a, b in pairs for n in range(int(a, 16), int(a, 16) + int(b, 16))]


def with_frames(xen: Host, frames: list[int]) -> Host:
    """An old kernel in the place of that hypervisor which can give away these frames."""
    granted = [Extent.sized(n << PAGE_SHIFT, PAGE_SIZE) for n in frames]
    text = Extent.sized(xen.text.phys, xen.text.size)
    taken = subtract(xen.memory.ram, [*granted, text])
    room = next(each for each in reversed(taken) if each.size >= 6 * MIB)
    start = (room.start + 2 * MIB - 1) & -(2 * MIB)
    private = Extent.sized(start, 4 * MIB)
    busy = subtract([each.page_aligned() for each in taken], [private])
    return replace(
        xen,
        xen=None,
        private=private,
        crash_region=None,
        crash_notes=(),
        busy=tuple(Named(extent=each, what="not dom0's to give") for each in busy),
    )


def prepared(xen: Host, frames: list[int], word: str) -> Prepared:
    """Debian's cloud kernel, to be entered by the thread's six steps."""
    spare, given = frames[:SPARE], frames[SPARE:]
    path = debian_kernel("cloud-amd64")
    got = rehearse(
        image.read(path.read_bytes(), path.name),
        with_frames(xen, given),
        Request(initrd=initramfs("amd64"), command_line=f"{QUIET} tightrope.token={word}"),
    )
    built = got.handover
    pages = dict(_sources(built))
    for piece in built.pieces:
        pages[int(piece.phys)] = bytes(piece.data)
    addresses = [n << PAGE_SHIFT for n in spare]
    start, xens_list, tables = addresses[0], addresses[1], iter(addresses[2:])
    store = TableStore(FORMATS[Paging.X86_64], tables.__next__)
    plan = built.intent
    for virt, phys in ((plan.relocation, plan.control_page), (start, start)):
        map_page(
            store,
            FORMATS[Paging.X86_64],
            store.root,
            Virt(virt),
            Phys(phys),
            EXECUTABLE,
            store.new_table,
        )
    pages |= {frame: bytes(page) for frame, page in store.pages().items()}
    pages[start] = _enter(built, start, store.root)
    pages[xens_list] = struct.pack("<3Q", start | 1, start | 8, 4).ljust(PAGE_SIZE, b"\0")
    own = {n << PAGE_SHIFT for n in frames}
    strangers = [hex(each) for each in pages if each not in own]
    if strangers:
        raise AssertionError(f"not in dom0's frames: {strangers[:5]}")
    head = {"slots": _slots(built), "indirection": xens_list, "start": start}
    rows = [struct.pack("<Q", at) + data for at, data in pages.items() if any(data)]
    return Prepared(got, json.dumps(head).encode() + b"\n" + b"".join(rows))


def _slots(built: Handover) -> dict[int, int]:
    """v1's even slots, as the thread fills them; Xen 4.17 does not read them."""
    assert built.page_table_b is not None
    table_a = built.page_table_a.pages
    places = [int(built.intent.control_page), *table_a]
    slots = {2 * n: place for n, place in enumerate(places[: len(abi.X86_64_SLOTS)])}
    return slots | {abi.PA_TABLE_PAGE: int(built.page_table_b.root)}


def _enter(built: Handover, start: int, root: int) -> bytes:
    """What the hypervisor of 2006 did between the hypercall and V."""
    general = built.registers.general
    code = CLI + MOV_IMMEDIATE["rsp"] + struct.pack("<Q", start + PAGE_SIZE)
    for name in ("rdi", "rsi", "rdx", "rcx", "r8"):
        code += MOV_IMMEDIATE[name] + struct.pack("<Q", general[name])
    code += MOV_IMMEDIATE["rax"] + struct.pack("<Q", root) + MOV_RAX_CR3
    code += MOV_IMMEDIATE["rax"] + struct.pack("<Q", built.intent.relocation) + JMP_RAX
    return code.ljust(PAGE_SIZE, b"\0")


def _sources(built: Handover) -> Iterator[tuple[int, bytes]]:
    """What lies in the source frames: the segments' bytes, page by page."""
    plan = built.intent
    place = dict(
        zip(plan.destinations.tolist(), (plan.sources << PAGE_SHIFT).tolist(), strict=True)
    )
    for segment in plan.segments:
        data = np.frombuffer(segment.data, np.uint8)
        for n, frame in enumerate(segment.destination.pages):
            page = data[n * PAGE_SIZE : (n + 1) * PAGE_SIZE].tobytes()
            yield place[frame], page.ljust(PAGE_SIZE, b"\0")
