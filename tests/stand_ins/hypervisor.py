"""The hypervisor's end of kexec_op: what it answers, and what it keeps.

    kexec_op(command, argument)      0 or 1, or a negated errno of xen/include/public/errno.h

Read, as of xen-project/xen 7702e782f3^ (4.22): kexec_load, kexec_status, kexec_get_range, kexec_exec and
kexec_swap_images in xen/common/kexec.c; do_kimage_alloc and kimage_crash_alloc in xen/common/kimage.c.
One thing there surprises: status answers which of two slots is in use and not whether it is full, so
after a second load without an unload between it says 0, and after an unload of nothing 1.

Rules: it is a hypervisor of a `Host`: no dom0 runs, and exec tells what would be entered.  Buffers are
read through a function that the caller gives; what it cannot read is EFAULT.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tightrope.abi import xen as abi
from tightrope.abi.xen import KexecCommand, KexecRange, KexecType
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model import Host

EINVAL, EFAULT, ENOENT, ERANGE, EOPNOTSUPP, EADDRNOTAVAIL = 22, 14, 2, 34, 95, 99
Reader = Callable[[int, int], bytes | None]
"""(dom0's linear address, bytes) -> the bytes, or None where dom0 has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """An image that the hypervisor keeps; v1's has a `page_list`, v2's has segments."""

    arch: int
    entry: int
    segments: tuple[tuple[Extent, bytes | None], ...] = ()
    """(destination in machine memory, what goes there or None where it is only mapped)."""
    page_list: tuple[int, ...] = ()
    indirection_page: int = 0


class Hypervisor:
    """A hypervisor that a dom0 can load images into."""

    def __init__(self, host: Host, read: Reader) -> None:
        assert host.xen is not None
        self._host, self._xen, self._read = host, host.xen, read
        self._slots: dict[KexecType, list[Loaded | None]] = {
            kind: [None, None] for kind in KexecType
        }
        self._at = dict.fromkeys(KexecType, 0)

    def loaded(self, kind: KexecType) -> Loaded | None:
        """What exec would enter."""
        return self._slots[kind][self._at[kind]]

    def kexec_op(self, command: int, argument: bytearray) -> int:
        """The hypercall; get_range writes its answer into `argument`."""
        v1 = self._xen.version < abi.V1_DROPPED
        v2 = self._xen.version >= abi.V2_SINCE
        known: Mapping[int, tuple[Callable[[bytearray], int], bool]] = {
            KexecCommand.KEXEC: (self._exec, True),
            KexecCommand.LOAD_V1: (self._load_v1, v1),
            KexecCommand.UNLOAD_V1: (self._unload_v1, v1),
            KexecCommand.GET_RANGE: (self._get_range, True),
            KexecCommand.LOAD: (self._load, v2),
            KexecCommand.UNLOAD: (self._unload, v2),
            KexecCommand.STATUS: (self._status, v2),
        }
        if command not in known or not known[command][1]:
            return -EOPNOTSUPP
        try:
            return known[command][0](argument)
        except struct.error:
            return -EFAULT

    # ------------------------------------------------------------------------------- commands

    def _exec(self, argument: bytearray) -> int:
        kind = self._kind(abi.KEXEC_EXEC.unpack(argument)["type"])
        if kind is None:
            return -EINVAL
        return 0 if self.loaded(kind) else -ENOENT

    def _status(self, argument: bytearray) -> int:
        kind = self._kind(abi.KEXEC_STATUS.unpack(argument)["type"])
        return -EINVAL if kind is None else self._at[kind]

    def _unload(self, argument: bytearray) -> int:
        return self._swap(abi.KEXEC_UNLOAD.unpack(argument)["type"], None)

    def _unload_v1(self, argument: bytearray) -> int:
        return self._swap(self._v1.unpack(argument)["type"], None)

    def _get_range(self, argument: bytearray) -> int:
        layout = abi.KEXEC_RANGE if self._xen.dom0.bits == 64 else abi.KEXEC_RANGE_I386
        asked = layout.unpack(argument)
        found = self._range(asked["range"], asked["nr"])
        if isinstance(found, int):
            return found
        argument[:] = layout.pack(**asked | {"start": found.start, "size": found.size})
        return 0

    def _range(self, which: object, number: object) -> Extent | int:
        host = self._host
        notes = [each for each in host.crash_notes if not each.what.startswith("vmcoreinfo")]
        if which == KexecRange.CRASH:
            return host.crash_region or Extent(0, 0)
        if which == KexecRange.XEN:
            return Extent.sized(host.text.phys, host.text.size)
        if which == KexecRange.CPU:
            if not isinstance(number, int) or not 0 <= number < max(len(notes), 1):
                return -ERANGE
            return notes[number].extent if notes else -EINVAL
        if which == KexecRange.VMCOREINFO:
            infos = [each.extent for each in host.crash_notes if each not in notes]
            return infos[0] if infos else -EINVAL
        return -EINVAL

    def _load_v1(self, argument: bytearray) -> int:
        load = self._v1.unpack(argument)
        slots = load["page_list"]
        assert isinstance(slots, tuple)
        return self._swap(
            load["type"],
            Loaded(
                arch=abi.EM_X86_64 if self._xen.dom0.bits == 64 else abi.EM_386,
                entry=_number(load["start_address"]),
                page_list=slots,
                indirection_page=_number(load["indirection_page"]),
            ),
        )

    def _load(self, argument: bytearray) -> int:
        load = {name: _number(value) for name, value in abi.KEXEC_LOAD.unpack(argument).items()}
        count = load["nr_segments"]
        if count >= abi.SEGMENT_MAX:
            return -EINVAL
        size = abi.KEXEC_SEGMENT.size
        raw = self._read(load["segments"], count * size) if count else b""
        if raw is None:
            return -EFAULT
        rows = [
            {k: _number(v) for k, v in abi.KEXEC_SEGMENT.unpack(raw[n * size :][:size]).items()}
            for n in range(count)
        ]
        kind = self._kind(load["type"])
        refused = self._refusal(kind, load["entry_maddr"], rows)
        if refused:
            return -refused
        if load["arch"] not in (abi.EM_386, abi.EM_X86_64):
            return -EINVAL
        segments = []
        for row in rows:
            data = self._read(row["buf"], row["buf_size"]) if row["buf"] else b""
            if data is None:
                return -EFAULT
            place = Extent.sized(row["dest_maddr"], row["dest_size"])
            segments.append((place, data if row["buf"] else None))
        image = Loaded(arch=load["arch"], entry=load["entry_maddr"], segments=tuple(segments))
        return self._swap(load["type"], image)

    def _refusal(self, kind: KexecType | None, entry: int, rows: list[dict[str, int]]) -> int:
        """kimage_alloc: the errno, or 0."""
        if kind is None:
            return EINVAL
        places = [Extent.sized(row["dest_maddr"], row["dest_size"]) for row in rows]
        if kind is KexecType.CRASH:
            region = self._host.crash_region or Extent(0, 0)
            if not region.start <= entry <= region.end:
                return EADDRNOTAVAIL
            loaded = [place for place, row in zip(places, rows, strict=True) if row["buf"]]
            if any(not region.covers(each) for each in loaded):
                return EADDRNOTAVAIL
        if any(each.start % PAGE_SIZE or each.end % PAGE_SIZE for each in places):
            return EADDRNOTAVAIL
        for number, one in enumerate(places):
            if any(one.overlaps(other) for other in places[:number]):
                return EINVAL
        return EINVAL if any(row["buf_size"] > row["dest_size"] for row in rows) else 0

    # --------------------------------------------------------------------------------- private

    @property
    def _v1(self) -> abi.Record:
        return abi.KEXEC_LOAD_V1 if self._xen.dom0.bits == 64 else abi.KEXEC_LOAD_V1_I386

    def _kind(self, value: object) -> KexecType | None:
        return KexecType(value) if value in (0, 1) else None

    def _swap(self, kind: object, image: Loaded | None) -> int:
        """The other slot becomes the one in use, full or empty; what was in the first is dropped."""
        chosen = self._kind(kind)
        if chosen is None:
            return -EINVAL
        old = self._at[chosen]
        self._slots[chosen][1 - old], self._slots[chosen][old] = image, None
        self._at[chosen] = 1 - old
        return 0


def _number(value: int | tuple[int, ...]) -> int:
    assert isinstance(value, int)
    return value
