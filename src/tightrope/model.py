"""The finished values that flow between rooms.  Nouns only: nothing here does anything.

    bytes -> Image -+
                    +-> Plan -> Handover -> Run -> Findings -> Verdict
    file  -> Host  -+-> World -----^

Rules: everything is frozen, keyword-only and slotted.  Addresses are bytes, `Phys` or `Virt`;
extents are [start, end); frame numbers are address >> 12.  Arrays are numpy, read-only by custom.
Whoever needs a new fact adds a field here, not a side channel.

May import: memory, p2m, x86
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING

from tightrope.memory import Extent, Machine, MemoryMap, Phys, PseudoPhys, Virt
from tightrope.x86.walk import Access, TableVisit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tightrope.p2m import P2m

Buffer = bytes | bytearray | memoryview


# ------------------------------------------------------------------------------------- the walk


class Step(IntEnum):
    """The six steps of the walk as the thread numbers them, and what is prepared before them."""

    PREPARE = 0
    CALL = 1
    TABLE_A = 2
    STATE = 3
    IDENTITY = 4
    TABLE_B = 5
    COPY = 6


STEP_NAMES: Mapping[Step, str] = {
    Step.PREPARE: "prepare: image, page list, control page and tables are in memory",
    Step.CALL: "call the relocation code at V under the current pgd",
    Step.TABLE_A: "load page_table_a (still at V, now backed by the control page)",
    Step.STATE: "set idt, gdt, segments and stack",
    Step.IDENTITY: "jump to the identity address P",
    Step.TABLE_B: "load page_table_b",
    Step.COPY: "copy the pages, enter the new kernel",
}
PAGING_OFF = "turn paging off"
"""What step 5 is on i386 and PAE."""


class Paging(StrEnum):
    """The four page-table formats; the value is the name used in host files and on the command line."""

    I386 = "i386"
    PAE = "pae"
    X86_64 = "x86_64"
    LA57 = "la57"

    @property
    def long_mode(self) -> bool:
        """64-bit code: paging cannot be turned off where it runs, so there is a page_table_b."""
        return self in (Paging.X86_64, Paging.LA57)


# ---------------------------------------------------------------------------------------- image


class Protocol(StrEnum):
    """What state and arguments an entry point expects; the sources are in `abi`."""

    LINUX_64 = "linux64"
    LINUX_32 = "linux32"
    PVH = "pvh"
    MULTIBOOT = "multiboot"
    MULTIBOOT2 = "multiboot2"
    FLAT = "flat"
    """No arguments: the first byte, or an ELF file's e_entry, in flat segments."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EntryPoint:
    """One way into an image: `offset` bytes from the image's base, in `bits` mode."""

    name: str
    offset: int
    bits: int
    protocol: Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What lies at `offset` bytes from the image's base: `data` first, zeros up to `size` bytes."""

    offset: int
    data: memoryview
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Payload:
    """The compressed kernel inside a bzImage; `offset` and `size` in bytes of its one part."""

    offset: int
    size: int
    compression: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """A kernel image, read and checked.  Sizes, alignments and limits are bytes.

    Offsets count from the image's base: the load address of a bzImage, the lowest physical address
    of an ELF or Multiboot kernel, the given address of a flat binary; `pref_address` is where the
    image wants its base, and has it unless it is `relocatable`.
    """

    source: str
    format: str
    """One of "bzImage", "unified kernel image", "ELF32", "ELF64", "Multiboot" and "flat binary"."""
    parts: tuple[Part, ...]
    """What is loaded, lowest first, at least one; no two have a byte in the same page.

    A bzImage has one: what follows the setup code, a signature behind it included.
    """
    file_size: int
    """Bytes that were read; of what a gzip file unpacks to when it was one."""
    setup_header: bytes
    """The setup header as boot_params wants it: the file's bytes from 0x1f1 to the header's end.

    Empty in an image that has none; then `protocol`, `loadflags` and `xloadflags` are 0.
    """
    protocol: int
    """Version of the Linux boot protocol."""
    version: str | None
    entries: tuple[EntryPoint, ...]
    """The preferred one first, at least one."""
    relocatable: bool
    pref_address: Phys
    init_size: int
    """Bytes from the base that the image needs before it reads its memory map."""
    alignment: int
    min_alignment: int
    cmdline_limit: int
    """Bytes of command line without its terminating zero."""
    initrd_limit: Phys
    """The highest address that a byte of the initrd or of a module may have.

    `above_4g` lifts it for 64-bit entries.
    """
    above_4g: bool
    """Kernel, boot_params, command line and initrd may lie above 4 GiB (XLF_CAN_BE_LOADED_ABOVE_4G)."""
    loadflags: int
    xloadflags: int
    payload: Payload | None
    initrd: memoryview | None
    """What a unified kernel image carries, None when it carries none."""
    command_line: str | None
    """What a unified kernel image carries, None when it carries none."""
    relocations: NDArray[np.int64] | None = None
    """Offsets of 32-bit words to which the distance from `pref_address` is added, where it is moved."""
    reach: int | None = None
    """Where the image ends at the latest, wherever it is moved; None: where its entry's mode does."""


# ----------------------------------------------------------------------------------------- host


@dataclass(frozen=True, kw_only=True, slots=True)
class Registers:
    """What a CPU holds.  `general` has rax..r15; segments are selectors; tables are (base, limit)."""

    general: Mapping[str, int]
    rip: int
    rflags: int
    cr0: int
    cr2: int
    cr3: int
    cr4: int
    efer: int
    segments: Mapping[str, int]
    gdt: tuple[int, int]
    idt: tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cpu:
    """What the old kernel's CPU can do.  `physical_bits` is MAXPHYADDR."""

    physical_bits: int
    nx: bool
    pse: bool
    pge: bool
    gbpages: bool
    la57: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelText:
    """The old kernel's image: [virt, virt + size) is [phys, phys + size).

    It is mapped by large global pages, of 2 MiB, or of 4 MiB on i386.
    """

    virt: Virt
    phys: Phys
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DirectMap:
    """The old kernel maps RAM below `size` at `virt` + physical address, in pages of `page_size` bytes.

    On i386 `virt` is PAGE_OFFSET, the memory split, and `size` the end of lowmem.
    """

    virt: Virt
    page_size: int
    size: int = 1 << 52


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """An extent and the reason it is here; the reason is a noun phrase for reports."""

    extent: Extent
    what: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LowMapping:
    """Something the old kernel maps besides its text and direct map, such as EFI's 1:1 leftovers."""

    virt: Virt
    phys: Phys
    size: int
    is_global: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """The old kernel's world as a description; `host.world` turns it into bytes."""

    source: str
    paging: Paging
    cpu: Cpu
    cr0: int
    cr4: int
    efer: int
    memory: MemoryMap
    text: KernelText
    relocation: Virt | None
    """V: where the old kernel has `relocate_new_kernel` mapped, page aligned, in its text or in one of
    `low_mappings`; None where it calls the control page itself, through its direct map."""
    direct_map: DirectMap
    private: Extent
    """RAM that holds the old kernel's page tables, gdt, idt and stack."""
    busy: tuple[Named, ...]
    """RAM that the old kernel cannot give away; text and `private` are busy without being listed."""
    crash_region: Extent | None
    firmware: tuple[Named, ...]
    """What new kernels read early outside plain RAM: EFI tables, setup_data."""
    rsdp: Phys | None
    low_mappings: tuple[LowMapping, ...]
    crash_notes: tuple[Named, ...] = ()
    """ELF notes in the old kernel's memory: one per CPU, and vmcoreinfo."""
    xen: Xen | None = None
    """The old kernel is a hypervisor: all of the above is its own, in machine addresses."""


class XenInterface(StrEnum):
    """How dom0 asks the hypervisor for the jump."""

    V1 = "v1"
    """The thread's: dom0's own tables, list and code; a fixmap for each page."""
    V2 = "v2"
    """Xen 4.4 on: segments; list, tables and code are the hypervisor's."""


class XenCrash(StrEnum):
    """Who dies in a crash kexec under Xen."""

    DOM0 = "dom0"
    """It panics and asks for the jump by hypercall."""
    HYPERVISOR = "hypervisor"
    """It starts what was loaded by itself; dom0's tables need not be the current ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dom0:
    """The guest that asks for the jump.  What it calls physical is pseudo-physical: see `p2m`."""

    bits: int
    p2m: P2m
    text: Virt
    """Where its kernel is mapped; `text_start` and `text_size` say what of it."""
    text_start: PseudoPhys
    text_size: int
    relocation: Virt
    """V of bare Linux: where its kernel has `relocate_new_kernel`, in its text, page aligned."""
    tables: Extent
    """Pseudo-physical: where its page tables lie."""
    busy: tuple[Named, ...]
    """Pseudo-physical memory that it cannot give away, besides its text and tables."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Xen:
    """What makes a host a hypervisor."""

    version: tuple[int, int]
    virt_start: Virt
    """HYPERVISOR_VIRT_START: dom0's own mappings lie below it in 32 bits, around it in 64."""
    fixmap: Virt
    """FIX_KEXEC_BASE_0: the fixmap of the first page of v1's list; each further one is a page lower."""
    dom0: Dom0


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Bytes that lie at a physical address, and what they are."""

    phys: Phys
    data: Buffer
    what: str

    @property
    def extent(self) -> Extent:
        """Where the piece lies."""
        return Extent.sized(self.phys, len(self.data))


@dataclass(frozen=True, kw_only=True, slots=True)
class WayOut:
    """How a 64-bit hypervisor leaves long mode before it calls a 32-bit dom0's code."""

    virt: Virt
    """Where its code lies in the hypervisor's text, page aligned; `code` is the frame."""
    code: Phys
    words: Phys
    """The page of what the code reads: page_list, descriptor tables, the arguments of the call."""
    wide: Tables
    """The 4-level tables that it goes on with: `virt` and `code` lead to the code."""
    narrow: Tables
    """The PAE tables under which dom0's code is called."""


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """A complete old kernel laid out: bytes, and the CPU as it is when `machine_kexec` calls V."""

    host: Host
    pieces: tuple[Piece, ...]
    pgd: Phys
    """The current pgd: root of the old kernel's page tables."""
    tables: Mapping[int, memoryview]
    """Its page tables: frame address -> 4096 bytes, each also a piece."""
    code_phys: Phys
    """The frame that backs V before the switch: the old kernel's own page of relocation code, or the
    control page where V is in the direct map."""
    registers: Registers
    arguments: tuple[Extent, ...] = ()
    """Memory that the call hands over besides registers: words on the stack, v1's page_list."""
    way_out: WayOut | None = None
    """What comes before V where a 64-bit hypervisor calls 32-bit code."""


# ----------------------------------------------------------------------------------------- plan


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """A piece of the new kernel: `data` first, zeros up to the end of `destination`."""

    name: str
    destination: Extent
    data: Buffer
    why: str


ZERO_FRAME = -1
"""The source of a page that has none: it is cleared (Xen's IND_ZERO)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class XenPage:
    """One page of v1's page_list: the machine address in its even slot, the fixmap's in its odd one."""

    name: str
    slot: int
    """The even slot."""
    machine: Machine
    pseudo: PseudoPhys | None
    """What dom0 calls it; None where it is not dom0's, as in the crash region."""
    fixmap: Virt | None
    """None for the root of page_table_b, which has no odd slot."""


@dataclass(frozen=True, kw_only=True, slots=True)
class XenLoad:
    """The load hypercall: pages of v1, or segments of v2."""

    interface: XenInterface
    crash: XenCrash | None
    pages: tuple[XenPage, ...] = ()
    segments: tuple[Named, ...] = ()
    """v2: the destinations of what has a buffer."""
    mapped: tuple[Named, ...] = ()
    """v2: segments without a buffer, which the image only wants to reach."""
    legacy_exit: bool = False
    """v2: EM_386, the image is entered with paging off."""
    leaves: Virt | None = None
    """v1 for a 32-bit dom0 of a 64-bit hypervisor: where that has the code which leaves long mode."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Backup:
    """Whole pages of the old kernel's low memory, and where in the crash region they are kept."""

    source: Extent
    copy: Phys


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Where every byte goes.  Arrays have one element per copied page, in the order of the copy."""

    image: Image
    host: Host
    segments: tuple[Segment, ...]
    destinations: NDArray[np.int64]
    """Frame numbers that the copy writes."""
    sources: NDArray[np.int64]
    """Frame numbers that the copy reads; equal to the destination where the page is in place."""
    head: int
    """The first word of the page list (`kimage->head`)."""
    list_pages: Mapping[int, NDArray[np.unsignedinteger]]
    """Frame address -> the words of each page of the list, as wide as the old kernel's."""
    control_page: Phys
    relocation: Virt
    """V: the host's, or where its direct map has the control page."""
    spare: tuple[Extent, ...]
    """Frames set aside for page_table_a and page_table_b."""
    identity: tuple[Named, ...]
    """What has to be reachable after step 5, each address as itself, and why."""
    entry: Phys
    """Where the relocation code jumps: the entry stub."""
    protocol: Protocol
    """What state the new kernel's entry expects."""
    kernel_entry: Phys
    """The new kernel's own first instruction."""
    entry_bits: int
    """The mode of that instruction, 32 or 64."""
    arguments: Mapping[str, int]
    """What the protocol puts into registers: those of `Registers.general` that are not zero."""
    command_line: str
    crash: bool = False
    """Everything lies in the crash region already: the list is just IND_DONE."""
    xen: XenLoad | None = None
    """What dom0 hands to the hypervisor; None where the old kernel jumps by itself."""
    backup: tuple[Backup, ...] = ()
    """What the entry stub of a crash kexec copies before the new kernel writes over it."""

    @property
    def paging(self) -> Paging:
        """The tables of the walk: the host's, but for 32-bit code that a 64-bit hypervisor calls."""
        leaves = self.xen is not None and self.xen.leaves is not None
        return Paging.PAE if leaves else self.host.paging

    @property
    def word(self) -> int:
        """Bytes of a word of the code that walks: 8 in long mode, else 4."""
        return 8 if self.paging.long_mode else 4

    @property
    def boot_params(self) -> int:
        """The zero page's address.  Raises KeyError where the protocol has none."""
        return self.arguments["rsi"]

    @property
    def in_place(self) -> int:
        """Pages whose source frame is their destination: no copy needed."""
        return int((self.destinations == self.sources).sum())


# ------------------------------------------------------------------------------------- handover


@dataclass(frozen=True, kw_only=True, slots=True)
class Code:
    """A routine assembled from a `.S` file; `symbols` are offsets into `data`."""

    name: str
    data: bytes
    symbols: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tables:
    """One tree of page tables: frame address -> 4096 bytes."""

    root: Phys
    pages: Mapping[int, memoryview]


@dataclass(frozen=True, kw_only=True, slots=True)
class Handover:
    """Everything `machine_kexec` needs: control page, page_table_a, page_table_b, page list."""

    plan: Plan
    world: World
    design: str
    code: Code
    page_table_a: Tables
    page_table_b: Tables | None
    """None where step 5 turns paging off."""
    pieces: tuple[Piece, ...]
    """All bytes that lie in memory before the walk, apart from the source pages' contents."""
    segments: tuple[Segment, ...]
    """What lies in the source pages (the plan's segments, unless a sabotage says otherwise)."""
    registers: Registers
    """The CPU at the call: rip = V and the routine's arguments."""
    at_v: Code | None = None
    """The code at V where it is not the control page's: then the old kernel's page stays behind V."""
    static: tuple[Piece, ...] = ()
    """What the design has in the old kernel's own image, outside the crash region with it."""
    jumps_to: Phys | None = None
    """Where step 4 lands, None for the control page."""
    prepared: Tables | None = None
    """Xen's v1: page_table_a as dom0 filled it in, before the hypervisor overwrote it."""


# ------------------------------------------------------------------------------------------ run


class Memory(typing.Protocol):
    """Physical memory as a run left it."""

    def read(self, extent: Extent) -> memoryview:
        """The bytes of an extent inside one RAM region.  Raises MachineError outside."""

    def written(self) -> frozenset[int] | None:
        """Numbers of the frames that may hold something, of a memory that was all zeros when the old
        kernel was laid into it; None where it was not, as where a real kernel has booted.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Stale:
    """A translation that an older table left in the TLB and that the manual still allows."""

    phys: Phys
    cr3: int
    is_global: bool
    harmless: bool
    """A fetch that finds the same 4096 bytes there, and the right to execute them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Translation:
    """One question to the MMU and its answer."""

    instruction: int
    step: Step
    access: Access
    virt: Virt
    phys: Phys
    cr3: int
    visits: tuple[TableVisit, ...]
    sets_accessed: bool
    """The walker had to set an accessed or dirty bit, that is, to write into a table."""
    stale: tuple[Stale, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RegisterWrite:
    """A write of a control register, EFER, DR7, a descriptor table or the flags, and its instruction."""

    instruction: int
    step: Step
    rip: Virt
    register: str
    before: int
    after: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """An exception, and how far its delivery got."""

    instruction: int
    step: Step
    vector: int
    error_code: int | None
    address: int | None
    """The linear address, for a page fault (what the CPU puts into CR2)."""
    access: Access | None
    rip: Virt
    text: str
    reason: str
    """The manual's reason in words."""
    visits: tuple[TableVisit, ...]
    """The walk of the faulting address up to the entry where it stopped."""
    escalation: tuple[str, ...]
    """What happened on the way to a handler, last line first to be believed."""
    triple: bool


class Sight(StrEnum):
    """What a machine may observe on the walk; the value is what a report calls it.

    Registers, memory and descriptors at the end are not here: every machine shows those.
    """

    INSTRUCTIONS = "every instruction"
    """`trace`, `texts` and `step_starts`."""
    TRANSLATIONS = "every translation"
    REGISTER_WRITES = "every write of a control register, segment or table"
    STORES = "every store"
    LOADS = "every load"
    COPIES = "every copy"
    FAULTS = "the exception itself"


EVERYTHING = frozenset(Sight)


class Stop(StrEnum):
    """Why a run ended."""

    ENTRY = "entry"
    FAULT = "fault"
    HALT = "halt"
    LIMIT = "limit"


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What a machine saw between V and the new kernel's first instruction."""

    machine: str
    stop: Stop
    instructions: int
    trace: NDArray[np.uint64]
    """The rip of every instruction, in order; a repeated string instruction counts once."""
    texts: Mapping[int, str]
    """The instruction at each rip, as it was when first executed."""
    step_starts: tuple[tuple[int, Step], ...]
    """(instruction index, step), in order: where each step of the walk began."""
    translations: tuple[Translation, ...]
    register_writes: tuple[RegisterWrite, ...]
    stores: NDArray[np.int64]
    """Shape (n, 4): instruction index, step, physical address, bytes; copies are not among them."""
    loads: NDArray[np.int64]
    """Same shape, for reads."""
    copies: NDArray[np.int64]
    """Shape (n, 4): instruction index, destination, source (physical addresses), bytes."""
    fault: Fault | None
    registers: Registers
    memory: Memory
    descriptors: Mapping[str, int]
    """The descriptors that the segment selectors name, read from the gdt as the CPU would."""
    blind: tuple[str, ...] = field(default=())
    """What this machine cannot see, one phrase each."""
    sees: frozenset[Sight] = EVERYTHING
    """What it observed on this walk.  What is not among them is empty above, and means nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Console:
    """What a new kernel said after it was entered."""

    lines: tuple[str, ...]
    seconds: float
    stopped: str


# -------------------------------------------------------------------------------------- verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that a check found wrong, at the step of the walk where it belongs."""

    rule: str
    step: Step
    message: str
    evidence: Mapping[str, str]
    mend: str


class Outcome(StrEnum):
    """The three verdicts."""

    HOLDS = "holds"
    FALLS = "falls"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The answer of a rehearsal, with everything that a report needs."""

    outcome: Outcome
    handover: Handover
    run: Run
    findings: tuple[Finding, ...]
    rules: tuple[str, ...]
    """Every rule that was asked, found or not."""
    unasked: Mapping[str, str] = field(default_factory=dict)
    """Each rule that this machine could not answer, and why."""
    console: Console | None
    seconds: Mapping[str, float]
    """Wall time of each stage."""
