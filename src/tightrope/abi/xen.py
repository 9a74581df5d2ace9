"""Xen's kexec interface as data: hypercalls, structures v1 and v2, the crash notes, privcmd.

Sources: xen/include/public/{kexec,memory,xen,errno,elfnote}.h and
xen/include/xen/{elfcore,kimage}.h of xen-project/xen; v1 as of its commits a173b7d011, 6dd60f6880,
6fc8621b96 (2006), v2 as of 5813737f85 (2013, Xen 4.4).  The slots of page_list are those of Linux
include/asm-{i386,x86_64}/kexec.h as of 2.6.20 (commits 3566561bfadf and 4bfaaef01a1b).  privcmd:
Linux include/uapi/xen/privcmd.h.

    struct xen_kexec_load_v1, x86_64, 160 bytes        struct xen_kexec_load, 24 bytes
    0x00  int type                                     0x00  u8 type, u8 pad, u16 arch
    0x08  page_list[17]   machine, fixmap, machine...  0x04  u32 nr_segments
    0x90  indirection_page                             0x08  u64 segments  -> xen_kexec_segment[]
    0x98  start_address                                0x10  u64 entry_maddr

    v1 over the years   3.0.4 to 4.3   the thread's: a fixmap for each page, dom0's own code is called
                        4.4 to 4.22    only the list of pages is read; the code is Xen's, as in v2
                        4.23 on        -EOPNOTSUPP (commit 7702e782f3)

v1 as 4.4 to 4.22 read it (kexec_do_load_v1 in xen/common/kexec.c, kimage_build_ind in kimage.c):
only indirection_page and start_address count.  The first is taken for the machine address of a page
of the list, its flags dropped: a head of just IND_DONE would be frame 0.  Every word has exactly
one flag, a word without one is EINVAL (Linux skips it); each IND_DESTINATION that does not follow
on begins a segment, of which there may be 16.  Sources have to be pages of the calling domain
(EFAULT), and are copied when the image is loaded.  Mapped are the destinations and the first MiB.
EM_386 or EM_X86_64 follows from dom0's width.

Rules: numbers only, every structure checked to have the size that the header gives it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from types import MappingProxyType

# ------------------------------------------------------------------------------ the structures


@dataclass(frozen=True, slots=True)
class Record:
    """A C structure of little-endian integers: `fields` are (name, struct code), "x" is padding."""

    name: str
    fields: tuple[tuple[str, str], ...]
    size: int

    def __post_init__(self) -> None:
        if self._struct.size != self.size:
            raise ValueError(f"{self.name}: {self._struct.size} bytes, not {self.size}")

    @property
    def _struct(self) -> Struct:
        return Struct("<" + "".join(code for _name, code in self.fields))

    def offset(self, field: str) -> int:
        """Bytes before a field.  Raises KeyError for a field that is not there."""
        at = 0
        for name, code in self.fields:
            if name == field and "x" not in code:
                return at
            at += Struct("<" + code).size
        raise KeyError(f"{self.name} has no {field}")

    def pack(self, **values: int | tuple[int, ...]) -> bytes:
        """The bytes; fields that are not given are 0.

        An array takes a tuple of all its elements.  Raises KeyError for a field that is not there,
        struct.error for a value that does not fit.
        """
        flat: list[int] = []
        for name, code in self.fields:
            if "x" in code:
                continue
            value = values.pop(name, None)
            count = int(code[:-1] or 1)
            if value is None:
                flat += [0] * count
            else:
                flat += value if isinstance(value, tuple) else (value,)
        if values:
            raise KeyError(f"{self.name} has no {', '.join(sorted(values))}")
        return self._struct.pack(*flat)

    def unpack(self, data: bytes | bytearray | memoryview) -> dict[str, int | tuple[int, ...]]:
        """The fields by name; an array is a tuple.  Raises struct.error for another size."""
        flat = iter(self._struct.unpack(data))
        out: dict[str, int | tuple[int, ...]] = {}
        for name, code in self.fields:
            if "x" in code:
                continue
            count = int(code[:-1] or 1)
            out[name] = next(flat) if count == 1 else tuple(next(flat) for _ in range(count))
        return out


NO_PAGES = 17
"""KEXEC_XEN_NO_PAGES: elements of page_list, also on i386, which uses 12 of them, or 8 without PAE.
"""

KEXEC_EXEC = Record("xen_kexec_exec", (("type", "i"),), 4)
KEXEC_LOAD_V1 = Record(
    "xen_kexec_load_v1",
    (
        ("type", "i"),
        ("", "4x"),
        ("page_list", f"{NO_PAGES}Q"),
        ("indirection_page", "Q"),
        ("start_address", "Q"),
    ),
    160,
)
KEXEC_LOAD_V1_I386 = Record(
    "xen_kexec_load_v1 (i386)",
    (
        ("type", "i"),
        ("page_list", f"{NO_PAGES}I"),
        ("indirection_page", "I"),
        ("start_address", "I"),
    ),
    80,
)
KEXEC_RANGE = Record(
    "xen_kexec_range", (("range", "i"), ("nr", "i"), ("size", "Q"), ("start", "Q")), 24
)
KEXEC_RANGE_I386 = Record(
    "xen_kexec_range (i386)", (("range", "i"), ("nr", "i"), ("size", "I"), ("start", "I")), 16
)
KEXEC_SEGMENT = Record(
    "xen_kexec_segment",
    (("buf", "Q"), ("buf_size", "Q"), ("dest_maddr", "Q"), ("dest_size", "Q")),
    32,
)
KEXEC_LOAD = Record(
    "xen_kexec_load",
    (
        ("type", "B"),
        ("", "1x"),
        ("arch", "H"),
        ("nr_segments", "I"),
        ("segments", "Q"),
        ("entry_maddr", "Q"),
    ),
    24,
)
KEXEC_UNLOAD = Record("xen_kexec_unload", (("type", "B"),), 1)
KEXEC_STATUS = Record("xen_kexec_status", (("type", "B"),), 1)

MEMORY_MAP = Record("xen_memory_map", (("nr_entries", "I"), ("", "4x"), ("buffer", "Q")), 16)
MEMORY_MAP_ENTRY = Record("e820entry", (("addr", "Q"), ("size", "Q"), ("type", "I")), 20)
MEMORY_RESERVATION = Record(
    "xen_memory_reservation",
    (
        ("extent_start", "Q"),
        ("nr_extents", "Q"),
        ("extent_order", "I"),
        ("mem_flags", "I"),
        ("domid", "H"),
        ("", "6x"),
    ),
    32,
)

# ------------------------------------------------------------------------------------- numbers


class Hypercall(IntEnum):
    """__HYPERVISOR_*."""

    MEMORY_OP = 12
    XEN_VERSION = 17
    KEXEC_OP = 37


class KexecCommand(IntEnum):
    """KEXEC_CMD_*: the first argument of kexec_op."""

    KEXEC = 0
    LOAD_V1 = 1
    UNLOAD_V1 = 2
    GET_RANGE = 3
    LOAD = 4
    UNLOAD = 5
    STATUS = 6


class KexecType(IntEnum):
    """KEXEC_TYPE_*."""

    DEFAULT = 0
    CRASH = 1


class KexecRange(IntEnum):
    """KEXEC_RANGE_MA_*.  CPU was 3 for a week of 2006, VA_XEN 2 (commit 99280a4af4)."""

    CRASH = 0
    XEN = 1
    CPU = 2
    XENHEAP = 3
    BOOT_PARAM = 4
    EFI_MEMMAP = 5
    VMCOREINFO = 6


class MemoryCommand(IntEnum):
    """XENMEM_*: the first argument of memory_op."""

    INCREASE_RESERVATION = 0
    DECREASE_RESERVATION = 1
    MAXIMUM_RAM_PAGE = 2
    MACHPHYS_MFN_LIST = 5
    POPULATE_PHYSMAP = 6
    MACHINE_MEMORY_MAP = 10
    EXCHANGE = 11


XENVER_VERSION = 0
"""xen_version's command for major << 16 | minor."""
EM_386, EM_X86_64 = 3, 62
"""What v2's `arch` may be: the image is entered with paging off, or in long mode."""
SEGMENT_MAX = 16
"""KEXEC_SEGMENT_MAX.  A v2 load is refused from this number on: 15 is the most (kexec_load in
xen/common/kexec.c tests `>=`)."""
V2_SINCE = (4, 4)
COMPAT_SINCE = (3, 1)
"""The first 64-bit hypervisor with 32-bit domains (x86_64/compat_kexec.S, 2007)."""
V1_DROPPED = (4, 23)
FIXMAP_UNTIL = (4, 3)
"""The last version whose v1 is the thread's; see the table at the top."""
I386_UNTIL = (4, 2)
"""The last 32-bit hypervisor (removed in 4.3, commit 5d1181a5ea)."""

IND_ZERO = 0x10
"""v2's fifth flag: clear a page at the cursor (xen/include/xen/kimage.h)."""

# --------------------------------------------------------------------------- v1's page_list


X86_64_SLOTS = ("CONTROL_PAGE", "PGD", "PUD_0", "PMD_0", "PTE_0", "PUD_1", "PMD_1", "PTE_1")
PAE_SLOTS = ("CONTROL_PAGE", "PGD", "PTE_0", "PTE_1", "PMD_0", "PMD_1")
I386_SLOTS = ("CONTROL_PAGE", "PGD", "PTE_0", "PTE_1")
"""Each page has two slots: its machine address (PA_*, even), then its fixmap address (VA_*, odd).
"""
PA_CONTROL_PAGE, VA_CONTROL_PAGE, PA_PGD = 0, 1, 2
PA_TABLE_PAGE = 16
"""x86_64: the root of the identity table, page_table_b.  It has no VA: slot 17 does not exist."""

# ---------------------------------------------------------------------------------- the notes

CRASH_INFO = 0x100_0001
"""XEN_ELFNOTE_CRASH_INFO: one, by the CPU that crashed."""
CRASH_REGS = 0x100_0002
"""XEN_ELFNOTE_CRASH_REGS: one per CPU: cr0, cr2, cr3, cr4."""
NOTE_OWNER = "Xen"
VMCOREINFO_OWNER = "VMCOREINFO_XEN"
CRASH_INFO_WORDS = (
    "xen_major_version",
    "xen_minor_version",
    "xen_extra_version",
    "xen_changeset",
    "xen_compiler",
    "xen_compile_date",
    "xen_compile_time",
    "tainted",
    "xen_phys_start",
    "dom0_pfn_to_mfn_frame_list_list",
)
"""struct crash_xen_info: words of the hypervisor's width; strings by machine address.  The last two
came with the x86 relocation of Xen (3.1)."""

# ------------------------------------------------------------------------------------ privcmd

PRIVCMD = ("/dev/xen/privcmd", "/proc/xen/privcmd")
"""Where to issue hypercalls, the newer place first."""
HYPERCALL_BUFFERS = "/dev/xen/hypercall"
"""mmap gives memory that stays resident while the hypervisor reads it (Linux 4.18 on)."""
PRIVCMD_HYPERCALL = Record("privcmd_hypercall", (("op", "Q"), ("arg", "5Q")), 48)
PRIVCMD_MMAP = Record("privcmd_mmap", (("num", "i"), ("dom", "H"), ("", "2x"), ("entry", "Q")), 16)
PRIVCMD_MMAP_ENTRY = Record("privcmd_mmap_entry", (("va", "Q"), ("mfn", "Q"), ("npages", "Q")), 24)
PRIVCMD_MMAPBATCH_V2 = Record(
    "privcmd_mmapbatch_v2",
    (("num", "I"), ("dom", "H"), ("", "2x"), ("addr", "Q"), ("arr", "Q"), ("err", "Q")),
    32,
)


def _ioc(number: int, argument: Record) -> int:
    """_IOC(_IOC_NONE, 'P', number, size) of asm-generic/ioctl.h."""
    return argument.size << 16 | ord("P") << 8 | number


IOCTL_PRIVCMD_HYPERCALL = _ioc(0, PRIVCMD_HYPERCALL)
IOCTL_PRIVCMD_MMAP = _ioc(2, PRIVCMD_MMAP)
IOCTL_PRIVCMD_MMAPBATCH_V2 = _ioc(4, PRIVCMD_MMAPBATCH_V2)

HYPERVISOR_TYPE = "/sys/hypervisor/type"
"""`xen` where there is one (Linux Documentation/ABI/stable/sysfs-hypervisor-xen)."""
HYPERVISOR_VERSION = ("/sys/hypervisor/version/major", "/sys/hypervisor/version/minor")
GUEST_TYPE = "/sys/hypervisor/guest_type"
"""PV, HVM or PVH (Linux 4.13 on): a PV kernel must never be sent kexec_file_load, which it does not
refuse and dies of (measured on 6.1)."""
CAPABILITIES, CONTROL_DOMAIN = "/proc/xen/capabilities", "control_d"
"""The word is there in dom0 alone (drivers/xen/xenfs/super.c); xenfs has to be mounted."""

DOMID_SELF, DOMID_IO = 0x7FF0, 0x7FF1
"""xen.h: the caller itself; machine frames that belong to nobody."""

ERRNO: Mapping[int, str] = MappingProxyType(
    {
        1: "EPERM: this domain may not do it",
        2: "ENOENT: no image is loaded",
        12: "ENOMEM: the hypervisor has no memory left",
        14: "EFAULT: the argument cannot be read or written",
        16: "EBUSY: a kexec is in progress",
        22: "EINVAL: a value is not accepted",
        34: "ERANGE: there is no such CPU",
        38: "ENOSYS: this hypervisor has no kexec",
        95: "EOPNOTSUPP: this hypervisor does not know the command (v1 on 4.23 and later)",
        99: "EADDRNOTAVAIL: not page aligned, or outside the crash region",
    }
)
"""What kexec_op answers with (negated), and what it means there."""
