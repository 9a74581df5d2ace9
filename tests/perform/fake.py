"""A hypervisor that is not there: it reads the structures as Xen does, with readers of its own.

Rules: offsets are written out here, from xen/include/public/kexec.h, and not taken from abi.xen.  Memory
lives as long as somebody holds it: an argument that points to what is gone is EFAULT, as in a process.
"""

from __future__ import annotations

import errno
import struct
import weakref
from dataclasses import dataclass, field

from tightrope.perform.privcmd import Buffer, HypercallFailed

BASE, STRIDE = 0x7F00_0000_0000, 1 << 32


class Memory:
    """One buffer."""

    def __init__(self, address: int, size: int) -> None:
        self.address = address
        self.data = bytearray(size)
        self.view = memoryview(self.data)


@dataclass
class FakeXen:
    """Answers as Xen 4.17 does; `refuse` is the errno of every load."""

    version: tuple[int, int] = (4, 17)
    crash: tuple[int, int] | None = (0x2000_0000, 0x1000_0000)
    memory: tuple[tuple[int, int, int], ...] = ((0, 0x9F000, 1), (0x10_0000, 0x3FF0_0000, 1))
    refuse: int = 0
    loads: list[tuple[int, int, int, list[tuple[bytes | None, int, int]]]] = field(
        default_factory=list
    )
    """(type, arch, entry, [(bytes, destination, size)])"""
    loads_v1: list[tuple[int, tuple[int, ...], int, int]] = field(default_factory=list)
    """(type, page_list, indirection_page, start_address)"""
    most_frames: int = 1 << 20
    frames: set[int] = field(default_factory=set)
    """Machine frames that dom0 was given."""
    calls: list[tuple[int, ...]] = field(default_factory=list)
    slots: dict[int, bool] = field(default_factory=lambda: {0: False, 1: False})

    def __post_init__(self) -> None:
        self._memory: weakref.WeakValueDictionary[int, Memory] = weakref.WeakValueDictionary()
        self._next = BASE

    def buffer(self, size: int) -> Memory:
        made = Memory(self._next, size)
        self._memory[self._next] = made
        self._next += STRIDE
        return made

    def _at(self, address: int, size: int) -> memoryview:
        held = self._memory.get(address)
        if held is None or len(held.data) < size:
            raise HypercallFailed(errno.EFAULT)
        return held.view[:size]

    def call(self, number: int, *arguments: int) -> int:
        self.calls.append((number, *arguments))
        if number == 17:
            return self.version[0] << 16 | self.version[1]
        if number == 12 and arguments[0] == 10:
            return self._memory_map(arguments[1])
        if number == 12:
            return self._reservation(*arguments)
        assert number == 37
        command, argument = arguments
        handlers = {0: self._go, 3: self._range, 4: self._load, 5: self._unload, 6: self._status}
        handlers |= {1: self._load_v1, 2: self._unload_v1}
        if command not in handlers:
            raise HypercallFailed(errno.ENOSYS)
        return handlers[command](argument)

    def _memory_map(self, at: int) -> int:
        _room, entries = struct.unpack("<IxxxxQ", self._at(at, 16))
        for n, row in enumerate(self.memory):
            self._at(entries, 20 * (n + 1))[20 * n :] = struct.pack("<QQI", *row)
        self._at(at, 16)[:4] = struct.pack("<I", len(self.memory))
        return 0

    def _range(self, at: int) -> int:
        which, number, _, _ = struct.unpack("<iiQQ", self._at(at, 24))
        known = {0: self.crash, 1: (0x3FA0_0000, 0x3A_6140), 2: (0x1FFF_9700, 500)}
        found = known.get(which)
        if found is None or (which == 2 and number > 0):
            raise HypercallFailed(errno.ERANGE if which == 2 else errno.EINVAL)
        self._at(at, 24)[8:] = struct.pack("<QQ", found[1], found[0])
        return 0

    def _load(self, at: int) -> int:
        kind, arch, count, table, entry = struct.unpack("<BxHIQQ", self._at(at, 24))
        if self.refuse:
            raise HypercallFailed(self.refuse)
        rows = self._at(table, 32 * count)
        segments: list[tuple[bytes | None, int, int]] = []
        for n in range(count):
            buf, size, to, room = struct.unpack("<QQQQ", rows[32 * n : 32 * n + 32])
            segments.append((bytes(self._at(buf, size)) if buf else None, to, room))
        self.loads.append((kind, arch, entry, segments))
        self.slots[kind] = not self.slots[kind]
        return 0

    def _reservation(self, command: int, at: int) -> int:
        start, count, order, _, who = struct.unpack("<QQIIH6x", self._at(at, 32))
        assert (order, who) == (0, 0x7FF0)
        if command == 1:
            self.frames -= set(struct.unpack(f"<{count}Q", self._at(start, 8 * count)))
            return int(count)
        assert command == 0
        given = [0x40000 + 3 * n for n in range(min(count, self.most_frames))]
        self._at(start, 8 * count)[: 8 * len(given)] = struct.pack(f"<{len(given)}Q", *given)
        self.frames |= set(given)
        return len(given)

    def map_frames(self, numbers: Buffer, count: int) -> memoryview:
        assert set(struct.unpack(f"<{count}Q", numbers.view[: 8 * count])) <= self.frames
        return memoryview(bytearray(4096 * count))

    def _load_v1(self, at: int) -> int:
        if self.version >= (4, 23):
            raise HypercallFailed(errno.ENOSYS)
        kind, *slots, head, start = struct.unpack("<i4x19Q", self._at(at, 160))
        self.loads_v1.append((kind, tuple(slots), head, start))
        self.slots[kind] = not self.slots[kind]
        return 0

    def _unload_v1(self, at: int) -> int:
        (kind,) = struct.unpack_from("<i", self._at(at, 160))
        self.slots[kind] = not self.slots[kind]
        return 0

    def _unload(self, at: int) -> int:
        (kind,) = self._at(at, 1)
        self.slots[kind] = not self.slots[kind]
        return 0

    def _status(self, at: int) -> int:
        (kind,) = self._at(at, 1)
        return int(self.slots[kind])

    def _go(self, at: int) -> int:
        (kind,) = struct.unpack("<i", self._at(at, 4))
        if not any(each[0] == kind for each in self.loads):
            raise HypercallFailed(errno.ENOENT)
        return 0


class Held(FakeXen):
    """The port as it is in a process: it holds every buffer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.held: list[Memory] = []

    def buffer(self, size: int) -> Memory:
        self.held.append(super().buffer(size))
        return self.held[-1]
