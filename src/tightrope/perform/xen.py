"""Xen's kexec operations from a dom0: read the ranges, load, unload, status, go.

    KEXEC_CMD_kexec_get_range   xen_kexec_range    24 bytes
    KEXEC_CMD_kexec_load        xen_kexec_load     24 bytes -> xen_kexec_segment[], 32 bytes each
    KEXEC_CMD_kexec_unload      xen_kexec_unload   1 byte
    KEXEC_CMD_kexec_status      xen_kexec_status   1 byte
    KEXEC_CMD_kexec             xen_kexec_exec     4 bytes

Sources: xen/include/public/kexec.h; do_kexec_op and kexec_load in xen/common/kexec.c,
sanity_check_segment_list in xen/common/kimage.c; structures and numbers in abi.xen.

Rules: the hypervisor is a port.  What it would refuse is refused before it is asked, with the
reason; what it refuses all the same is named with the command, the structure and Xen's own errno.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from tightrope.abi import xen as abi
from tightrope.abi.xen import Hypercall, KexecCommand, KexecRange, KexecType, MemoryCommand, Record
from tightrope.errors import BadInput, MissingPart, PerformError
from tightrope.memory import Extent, covered
from tightrope.perform.load_file import HOLDS, Load, Taker, check_pages
from tightrope.perform.privcmd import Buffer, HypercallFailed, Hypercalls

E820_RAM = 1
MOST_MAP_ENTRIES = 512
"""Entries of a memory map that are asked for; Xen has E820MAX 1024 in newer versions, PCs about
20."""
MOST_CPUS = 4096
LOAD = "KEXEC_CMD_kexec_load"
"""What takes a load."""

ReadFile = Callable[[str], str | None]
"""What a file of the running machine says, None where it cannot be read."""


def kind_of(load: Load) -> KexecType:
    """The slot that a load goes into."""
    return KexecType.CRASH if load.crash else KexecType.DEFAULT


class XenKexec:
    """Xen's kexec, asked through a port."""

    def __init__(self, calls: Hypercalls) -> None:
        self.calls = calls

    def _argument(self, record: Record, **values: int | tuple[int, ...]) -> Buffer:
        buffer = self.calls.buffer(record.size)
        buffer.view[: record.size] = record.pack(**values)
        return buffer

    def _kexec_op(self, command: KexecCommand, record: Record, argument: Buffer) -> int:
        """Raises PerformError."""
        try:
            return self.calls.call(Hypercall.KEXEC_OP, command, argument.address)
        except HypercallFailed as err:
            raise refused(f"KEXEC_CMD {command.name}", record, err) from err

    # ------------------------------------------------------------------------------- what there is

    def version(self) -> tuple[int, int]:
        """Major and minor."""
        try:
            said = self.calls.call(Hypercall.XEN_VERSION, abi.XENVER_VERSION, 0)
        except HypercallFailed as err:
            raise PerformError(f"xen_version: {err}") from err
        return said >> 16, said & 0xFFFF

    def range(self, which: KexecRange, number: int = 0) -> Extent | None:
        """Where something of Xen's lies in machine memory; None where it has no such thing."""
        record = abi.KEXEC_RANGE
        argument = self._argument(record, range=which, nr=number)
        try:
            self._kexec_op(KexecCommand.GET_RANGE, record, argument)
        except PerformError as err:
            if err.number in (errno.EINVAL, errno.ERANGE):
                return None
            raise
        said = record.unpack(argument.view[: record.size])
        start, size = said["start"], said["size"]
        return Extent.sized(_int(start), _int(size)) if size else None

    def cpu_notes(self) -> list[Extent]:
        """Where each CPU's crash note will lie; none without a crash region."""
        found: list[Extent] = []
        while len(found) < MOST_CPUS:
            one = self.range(KexecRange.CPU, len(found))
            if one is None:
                break
            found.append(one)
        return found

    def memory_map(self) -> list[tuple[Extent, int]]:
        """The machine's memory map: extents and e820 types."""
        size, record = abi.MEMORY_MAP_ENTRY.size, abi.MEMORY_MAP
        entries = self.calls.buffer(MOST_MAP_ENTRIES * size)
        argument = self._argument(record, nr_entries=MOST_MAP_ENTRIES, buffer=entries.address)
        try:
            self.calls.call(Hypercall.MEMORY_OP, MemoryCommand.MACHINE_MEMORY_MAP, argument.address)
        except HypercallFailed as err:
            raise refused("XENMEM machine_memory_map", record, err) from err
        count = _int(record.unpack(argument.view[: record.size])["nr_entries"])
        rows = [
            abi.MEMORY_MAP_ENTRY.unpack(entries.view[n * size : (n + 1) * size])
            for n in range(min(count, MOST_MAP_ENTRIES))
        ]
        return [(Extent.sized(_int(r["addr"]), _int(r["size"])), _int(r["type"])) for r in rows]

    def status(self, kind: KexecType) -> bool:
        """What Xen says of whether an image of that kind is loaded: take it with care.

        Xen 4.17 answers with the bit that says which of the kind's two slots is in use.  A second
        load without an unload between them flips it back, and Xen says no to an image that it has;
        so does an unload of nothing, and Xen says yes (kexec_swap_images, kexec_status in
        xen/common/kexec.c).
        """
        record = abi.KEXEC_STATUS
        return bool(self._kexec_op(KexecCommand.STATUS, record, self._argument(record, type=kind)))

    # ------------------------------------------------------------------------------- what changes

    def load(self, load: Load) -> None:
        """Interface v2.  Raises BadInput for what Xen would refuse, PerformError for what it
        does."""
        self.refuse(load)
        rows = []
        for each in load.segments:
            data = self.calls.buffer(len(each.data)) if len(each.data) else None
            if data is not None:
                data.view[: len(each.data)] = each.data
            rows.append(
                abi.KEXEC_SEGMENT.pack(
                    buf=data.address if data else 0,
                    buf_size=len(each.data),
                    dest_maddr=each.destination.start,
                    dest_size=each.destination.size,
                )
            )
        table = self.calls.buffer(len(rows) * abi.KEXEC_SEGMENT.size)
        table.view[: len(rows) * abi.KEXEC_SEGMENT.size] = b"".join(rows)
        argument = self._argument(
            abi.KEXEC_LOAD,
            type=kind_of(load),
            arch=abi.EM_386 if load.legacy else abi.EM_X86_64,
            nr_segments=len(rows),
            segments=table.address,
            entry_maddr=load.entry,
        )
        self._kexec_op(KexecCommand.LOAD, abi.KEXEC_LOAD, argument)

    def refuse(self, load: Load) -> None:
        """Raise BadInput for a load that this Xen would not take, with the reason."""
        version, source = self.version(), "the load"
        if load.taker is not Taker.XEN:
            raise BadInput("was planned for Linux's kexec_load, not for Xen", source=source)
        if version < abi.V2_SINCE:
            raise BadInput(
                f"Xen {version[0]}.{version[1]} has no v2: it came with 4.4", source=source
            )
        if len(load.segments) >= abi.SEGMENT_MAX:
            raise BadInput(
                f"{len(load.segments)} segments are more than a v2 load takes",
                source=source,
                field="segments",
                limit=abi.SEGMENT_MAX - 1,
            )
        check_pages([each.destination for each in load.segments], source)
        if not any(load.entry in each.destination for each in load.segments):
            raise BadInput(f"{load.entry:#x} is in no segment", source=source, field="entry")
        region = self.range(KexecRange.CRASH)
        ram = [extent for extent, kind in self.memory_map() if kind == E820_RAM]
        for each in load.segments:
            if not len(each.data):
                continue
            if load.crash and (region is None or not region.covers(each.destination)):
                raise BadInput(
                    f"{each.destination} is outside the crash region that Xen reports,"
                    f" {region or 'none: boot Xen with crashkernel='}",
                    source=source,
                    field="segments",
                )
            if not load.crash and not covered(each.destination, ram):
                raise BadInput(
                    f"{each.destination} is not RAM in the memory map that Xen reports",
                    source=source,
                    field="segments",
                )

    def unload(self, kind: KexecType) -> None:
        """Forget an image of that kind; Xen does not complain when there was none: see `status`."""
        record = abi.KEXEC_UNLOAD
        self._kexec_op(KexecCommand.UNLOAD, record, self._argument(record, type=kind))

    def kexec(self, kind: KexecType) -> None:
        """Go.  Where it works it does not return.  Raises PerformError."""
        record = abi.KEXEC_EXEC
        self._kexec_op(KexecCommand.KEXEC, record, self._argument(record, type=kind))
        raise PerformError("KEXEC_CMD KEXEC returned: Xen did not jump")


def refused(what: str, record: Record, err: HypercallFailed) -> PerformError:
    """The error for a hypercall that Xen refused."""
    return PerformError(f"{what} ({record.name}, {record.size} bytes): {err}", number=err.number)


def _int(value: int | tuple[int, ...]) -> int:
    assert isinstance(value, int)
    return value


# -------------------------------------------------------------------------------------- the facts

SYMBOLS = "/proc/xen/xensyms"
KEXEC_RELOC = "kexec_reloc"
"""The hypervisor's relocation code: V of interface v2 (xen/arch/x86/x86_64/kexec_reloc.S)."""


def facts(kexec: XenKexec, read: ReadFile) -> dict[str, object]:
    """All that a rehearsal elsewhere has to know of this machine, as a JSON document.

    Addresses are machine addresses; `relocation` is None where Xen tells no symbols.
    """
    version = kexec.version()
    ranges = {which.name: kexec.range(which) for which in KexecRange}
    return {
        "version": f"{version[0]}.{version[1]}",
        "relocation": _symbol(read(SYMBOLS) or "", KEXEC_RELOC),
        "ranges": {name: _extent(extent) for name, extent in ranges.items() if extent},
        "cpu_notes": [_extent(each) for each in kexec.cpu_notes()],
        "memory": [{**_extent(each), "type": kind} for each, kind in kexec.memory_map()],
        "loaded": {kind.name: kexec.status(kind) for kind in KexecType},
        "cpuinfo": _cpu(read("/proc/cpuinfo") or ""),
    }


def load_told(load: Load) -> list[str]:
    """What a load is, segment by segment, as lines."""
    kind = "a crash load" if load.crash else "a kexec load"
    state = "paging off" if load.legacy else "long mode"
    lines = [f"{kind}, entered at {load.entry:#x} with {state}"]
    for each in load.segments:
        what = f"{len(each.data):#x} bytes" if len(each.data) else "only to be reached"
        lines.append(f"  {each.destination} {what}{f', {each.name}' if each.name else ''}")
    return lines


def _extent(extent: Extent) -> dict[str, int]:
    return {"start": extent.start, "size": extent.size}


def _symbol(text: str, name: str) -> int | None:
    """The address of a symbol in a list of `ADDRESS TYPE NAME`."""
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[2] == name:
            try:
                return int(words[0], 16) or None
            except ValueError:
                return None
    return None


def _cpu(text: str) -> dict[str, str]:
    """The lines of the first CPU that a host file is made from."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "address sizes"):
            found.setdefault(name.strip(), value.strip())
    return found


# ----------------------------------------------------------------------------------- early refusals


def refuse_unrehearsed(load: Load) -> None:
    """Raise BadInput for a load that was not rehearsed, or that fell."""
    if load.rehearsed != HOLDS:
        said = load.rehearsed
        what = f"the rehearsal said {said!r}" if said else "it was not rehearsed"
        raise BadInput(
            f"{what}: write it with `tightrope rehearse --write`, or say --unrehearsed",
            source="the load",
        )


def refuse_outside_dom0(read: ReadFile) -> None:
    """Raise MissingPart where this machine is no dom0 of Xen's."""
    if (read("/sys/hypervisor/type") or "").strip() != "xen":
        raise MissingPart("this machine does not run under Xen: `perform xen` is for a dom0")
    capabilities = read("/proc/xen/capabilities")
    if capabilities is None:
        raise MissingPart("no /proc/xen/capabilities: mount -t xenfs xenfs /proc/xen")
    if "control_d" not in capabilities:
        raise MissingPart("this is a guest of Xen's, not dom0: only dom0 may ask for a kexec")
