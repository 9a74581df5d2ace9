"""Interface v1 from a dom0's process: pages whose machine frames it knows, and the 160-byte structure.

    XENMEM_increase_reservation   ->  machine frames, new to dom0, in no p2m
    IOCTL_PRIVCMD_MMAPBATCH_V2    ->  the same frames in this process, to be written
    KEXEC_CMD_kexec_load_v1       ->  page_list, indirection_page, start_address: machine addresses

This is the way that works.  What does not: /proc/self/pagemap tells pseudo-physical frames; the p2m that
would translate them is in dom0's kernel, where a process cannot read it; XENMEM_exchange and
XENMEM_decrease_reservation want pseudo-physical frames of the process's own, which it cannot keep
Linux from moving.

Sources: memory.c and common/kexec.c of Xen 4.17 (kexec_do_load_v1); Linux drivers/xen/privcmd.c,
privcmd_ioctl_mmap_batch.

Rules: as in `xen`.  From Xen 4.4 on only the list of pages is read, and copied at load: the pages may be
given back after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import pack, unpack_from

from tightrope.abi import xen as abi
from tightrope.abi.xen import Hypercall, KexecCommand, KexecType, MemoryCommand
from tightrope.errors import BadInput, MissingPart, PerformError
from tightrope.memory import PAGE_SHIFT, PAGE_SIZE
from tightrope.perform.privcmd import Buffer, FrameCalls, HypercallFailed
from tightrope.perform.xen import XenKexec, refused


class Frames:
    """Machine frames of dom0's, mapped into this process."""

    def __init__(self, calls: FrameCalls, count: int) -> None:
        """`count` of them.  Raises PerformError where Xen or Linux does not give them."""
        self._calls = calls
        self._list = calls.buffer(8 * count)
        self.numbers = self._increase(count)
        self.view = calls.map_frames(self._list, count)
        """All of them, one behind the other."""

    def _reservation(self, count: int) -> Buffer:
        record = abi.MEMORY_RESERVATION
        argument = self._calls.buffer(record.size)
        argument.view[: record.size] = record.pack(
            extent_start=self._list.address, nr_extents=count, domid=abi.DOMID_SELF
        )
        return argument

    def _increase(self, count: int) -> tuple[int, ...]:
        argument = self._reservation(count)
        try:
            got = self._calls.call(
                Hypercall.MEMORY_OP, MemoryCommand.INCREASE_RESERVATION, argument.address
            )
        except HypercallFailed as err:
            raise refused("XENMEM increase_reservation", abi.MEMORY_RESERVATION, err) from err
        numbers = unpack_from(f"<{got}Q", self._list.view)
        if got < count:
            self._give_back(got)
            raise PerformError(f"Xen gives {got} frames, not {count}: it has no more for dom0")
        return numbers

    def _give_back(self, count: int) -> None:
        argument = self._reservation(count)
        try:
            self._calls.call(
                Hypercall.MEMORY_OP, MemoryCommand.DECREASE_RESERVATION, argument.address
            )
        except HypercallFailed as err:
            raise refused("XENMEM decrease_reservation", abi.MEMORY_RESERVATION, err) from err

    def write(self, pages: Mapping[int, bytes | memoryview]) -> None:
        """Bytes by machine address, whole pages.  Raises BadInput for a page that is not ours."""
        places = {number: n for n, number in enumerate(self.numbers)}
        for address, data in pages.items():
            at = places.get(address >> PAGE_SHIFT)
            if at is None or address % PAGE_SIZE or len(data) != PAGE_SIZE:
                raise BadInput(f"{address:#x} is none of dom0's pages here", source="the pages")
            self.view[at * PAGE_SIZE : (at + 1) * PAGE_SIZE] = data


def refuse_v1(version: tuple[int, int]) -> None:
    """Raise MissingPart for a Xen that has dropped v1."""
    if version >= abi.V1_DROPPED:
        raise MissingPart(
            f"Xen {version[0]}.{version[1]} has dropped interface v1 (4.23, commit 7702e782f3): use v2"
        )


def load_v1(
    kexec: XenKexec,
    kind: KexecType,
    page_list: Mapping[int, int],
    indirection_page: int,
    start: int,
) -> None:
    """Load by v1; `page_list` has machine addresses by slot.  Raises MissingPart, PerformError."""
    refuse_v1(kexec.version())
    record = abi.KEXEC_LOAD_V1
    slots = [page_list.get(n, 0) for n in range(abi.NO_PAGES)]
    argument = kexec.calls.buffer(record.size)
    argument.view[: record.size] = record.pack(
        type=kind,
        page_list=tuple(slots),
        indirection_page=indirection_page,
        start_address=start,
    )
    try:
        kexec.calls.call(Hypercall.KEXEC_OP, KexecCommand.LOAD_V1, argument.address)
    except HypercallFailed as err:
        raise refused("KEXEC_CMD LOAD_V1", record, err) from err


def unload_v1(kexec: XenKexec, kind: KexecType) -> None:
    """Forget what v1 loaded: the same structure, of which only the type is read."""
    refuse_v1(kexec.version())
    record = abi.KEXEC_LOAD_V1
    argument = kexec.calls.buffer(record.size)
    argument.view[: record.size] = pack("<i", kind).ljust(record.size, b"\0")
    try:
        kexec.calls.call(Hypercall.KEXEC_OP, KexecCommand.UNLOAD_V1, argument.address)
    except HypercallFailed as err:
        raise refused("KEXEC_CMD UNLOAD_V1", record, err) from err
