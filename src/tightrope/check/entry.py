"""Rules about the state in which the new kernel is entered: a contract for each protocol and mode.

Rules: asked only of a run that got there; registers are those at the kernel's own first
instruction.  Source unless said otherwise: Linux Documentation/arch/x86/boot.rst, "64-bit Boot
Protocol".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from tightrope.abi import boot
from tightrope.check.case import Case
from tightrope.check.rule import Found, finding, rule
from tightrope.check.switching import x86_flags
from tightrope.errors import MachineError
from tightrope.memory import Extent
from tightrope.model import Confidential, Memory, Protocol, SegmentRole, Step, Stop
from tightrope.x86 import cpu as x86
from tightrope.x86.bits import named_bits
from tightrope.x86.walk import Access, ReadEntry, Refused, walk

BOOT_64 = "boot.rst, 64-bit Boot Protocol"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What an entry point expects of the CPU; `linux_selectors`: the very selectors, not only flat
    ones."""

    bits: int
    mend: str
    zero: tuple[str, ...] = ()
    cr0_off: int = 0
    linux_selectors: bool = False
    names: tuple[str, ...] = ()
    """Registers with arguments, boot_params apart."""

    @property
    def paging(self) -> bool:
        """64-bit code runs with paging on, and every 32-bit entry wants it off."""
        return self.bits == 64

    @property
    def cr4(self) -> int:
        """What is on in CR4, LA57 apart."""
        return x86.CR4_PAE if self.paging else 0


MEND_32 = "CR0 = NE ET MP PE; CR4 = 0; EFER.LME off"
MEND_64 = "CR0 = PG NE ET MP PE; CR4 = PAE, and LA57 as it was"
MEND_PVH = "CR0 = ET PE; CR4 = 0; EFER.LME off"
CONTRACTS: Mapping[tuple[Protocol, int], Contract] = {
    (Protocol.LINUX_64, 64): Contract(bits=64, mend=MEND_64, linux_selectors=True),
    (Protocol.LINUX_32, 32): Contract(
        bits=32, mend=MEND_32, zero=("rbp", "rdi", "rbx"), linux_selectors=True
    ),
    (Protocol.MULTIBOOT, 32): Contract(bits=32, mend=MEND_32, names=("rax", "rbx")),
    (Protocol.MULTIBOOT2, 32): Contract(bits=32, mend=MEND_32, names=("rax", "rbx")),
    (Protocol.PVH, 32): Contract(
        bits=32, mend=MEND_PVH, cr0_off=x86.CR0_NE | x86.CR0_MP, names=("rbx",)
    ),
    (Protocol.FLAT, 32): Contract(bits=32, mend=MEND_32),
    (Protocol.FLAT, 64): Contract(bits=64, mend=MEND_64),
}
"""By protocol and mode.  boot.rst, "64-bit Boot Protocol" and "32-bit Boot Protocol"; Multiboot
0.6.96, section 3.2; Multiboot2 2.0, section 3.3; Xen docs/misc/pvh.pandoc.  Nobody asks a flat
binary."""
FOUR_GIB = 1 << 32
COM1 = 0x3F8
CR0_OFF = x86.CR0_WP | x86.CR0_AM | x86.CR0_TS | x86.CR0_EM | x86.CR0_CD | x86.CR0_NW


def contract(case: Case) -> Contract:
    """What the plan's entry expects.  Raises KeyError for a mode that its protocol has not."""
    return CONTRACTS[case.intent.protocol, case.intent.entry_bits]


@rule(
    "arrived",
    Step.COPY,
    says="The walk ends at the new kernel's first instruction.",
    source="the thread, step 6",
    mend="look at the last instructions (`--trace FILE` writes all): they show how it got there",
)
def arrived(case: Case) -> Iterator[Found]:
    """The walk ends at the new kernel's first instruction."""
    run = case.run
    if run.stop in (Stop.HALT, Stop.LIMIT) or (run.stop is Stop.FAULT and run.fault is None):
        how = "halted" if run.stop is Stop.HALT else f"was still going after {run.instructions}"
        how = "reset the machine" if run.stop is Stop.FAULT else how
        said = bytes(value & 0xFF for port, value in run.ports if port == COM1).decode("latin-1")
        rip, text = case.ended_at
        yield finding(
            f"the walk {how} at {rip:#x} and never reached the new kernel",
            evidence={k: v for k, v in (("instruction", text), ("it said", said.strip())) if v},
            step=run.step_starts[-1][1],
        )


@rule(
    "known-state",
    Step.COPY,
    says="CR0 and CR4 are known at the entry: nothing of the old kernel's is left on.",
    source="Linux relocate_kernel_64.S, identity_mapped",
    mend="set CR0 and CR4 whole, to the protocol's values, and clear EFER.LME for 32 bits",
)
def known_state(case: Case) -> Iterator[Found]:
    """CR0 and CR4 have known values: nothing of the old kernel's is left on."""
    if case.run.stop is not Stop.ENTRY:
        return
    registers = case.run.registers
    wanted = contract(case)
    kept = case.handover.registers.cr4 & x86.CR4_LA57 if wanted.paging else 0
    # Nobody has a handler: a machine check is the end with MCE as without (SDM volume 3, 6.15).
    either = x86.CR4_MCE
    if case.host.confidential is Confidential.TDX:
        kept |= x86.CR4_MCE  # such a guest cannot clear it
        either = 0
    cr0_on = x86.CR0_PE | (x86.CR0_PG if wanted.paging else 0)
    cr0_off = CR0_OFF | wanted.cr0_off | (0 if wanted.paging else x86.CR0_PG)
    problems = []
    if registers.cr0 & cr0_on != cr0_on or registers.cr0 & cr0_off:
        problems.append(f"CR0 is {named_bits(registers.cr0, x86.CR0_NAMES)}")
    if (registers.cr4 ^ (wanted.cr4 | kept)) & ~either:
        problems.append(f"CR4 is {named_bits(registers.cr4, x86.CR4_NAMES)}")
    # LME left on without paging makes a 32-bit kernel's first CR0.PG long mode, or #GP (SDM 4.1.1).
    long_mode = registers.efer & (x86.EFER_LMA if wanted.paging else x86.EFER_LMA | x86.EFER_LME)
    if bool(long_mode) != wanted.paging:
        problems.append(f"EFER is {named_bits(registers.efer, x86.EFER_NAMES)}")
    if problems:
        yield finding(
            "the new kernel is entered with what the old one had on: " + "; ".join(problems),
            mend=wanted.mend,
        )


@rule(
    "entry-levels",
    Step.COPY,
    says="Linux's 64-bit entry is entered with 5 levels only if the image accepts them.",
    source="boot.rst, xloadflags bit 5 (XLF_5LEVEL); Linux commit ee338b9ee282",
    mend="take its 32-bit entry: only with paging off can a CPU go from 5 levels to 4",
)
def levels(case: Case) -> Iterator[Found]:
    """With 5 levels in use, the image has XLF_5LEVEL."""
    registers, image = case.run.registers, case.intent.image
    if case.run.stop is not Stop.ENTRY or case.intent.protocol is not Protocol.LINUX_64:
        return
    if registers.cr4 & x86.CR4_LA57 and not image.xloadflags & boot.XLoadFlags.XLF_5LEVEL:
        yield finding(
            "the new kernel is entered with 5 levels of tables, and knows of 4 alone (no XLF_5LEVEL)",
            evidence={"xloadflags": f"{image.xloadflags:#x}"},
        )


@rule(
    "entry-selectors",
    Step.COPY,
    says="Segments are flat, from a gdt that can be read; Linux has CS 0x10 and DS, ES, SS 0x18.",
    source=BOOT_64,
    mend="load a gdt with __BOOT_CS 0x10 and __BOOT_DS 0x18, and load the selectors",
)
def selectors(case: Case) -> Iterator[Found]:
    """The gdt has flat segments for CS, DS, ES and SS; Linux wants the selectors 0x10 and 0x18."""
    if case.run.stop is not Stop.ENTRY:
        return
    run = case.run
    exact = contract(case).linux_selectors
    for name in ("cs", "ds", "es", "ss"):
        wanted = boot.BOOT_CS if name == "cs" else boot.BOOT_DS
        selector = run.registers.segments[name]
        word = run.descriptors.get(name)
        descriptor = None if word is None else x86.Descriptor.decode(word)
        if exact and selector != wanted:
            problem = f"{name} is {selector:#x}, not {wanted:#x}"
        elif descriptor is None:
            problem = f"the gdt has no readable descriptor for {name} = {selector:#x}"
        elif (
            not descriptor.flat
            or descriptor.code != (name == "cs")
            or (name == "cs" and descriptor.long != (case.intent.entry_bits == 64))
        ):
            problem = f"the descriptor of {name} is {word:#018x}: not a flat 4 GiB segment"
        else:
            continue
        yield finding(
            problem,
            evidence={"gdt": f"{run.registers.gdt[0]:#x}, limit {run.registers.gdt[1]:#x}"},
        )
        return


@rule(
    "entry-flags",
    Step.COPY,
    says="Interrupts are off, the direction flag is clear, and nothing is being traced.",
    source=BOOT_64,
    mend="pushq $0; popfq before the jump",
)
def flags(case: Case) -> Iterator[Found]:
    """IF and DF are clear at the entry."""
    value = case.run.registers.rflags
    if case.run.stop is Stop.ENTRY and value & (x86.RFLAGS_IF | x86.RFLAGS_DF | x86.RFLAGS_TF):
        yield finding(f"flags at the entry are {x86_flags(value)}")


def _called(case: Case, register: str) -> str:
    """A register's name at the entry: esi where the new kernel is entered in 32 bits."""
    return f"e{register[1:]}" if case.intent.entry_bits == 32 else register


@rule(
    "entry-boot-params",
    Step.COPY,
    says="rsi, esi at the 32-bit entry, holds the address of boot_params.",
    source=BOOT_64,
    mend="let the entry stub load rsi, esi at the 32-bit entry, with the address of boot_params",
)
def boot_params_pointer(case: Case) -> Iterator[Found]:
    """rsi, esi at a 32-bit entry, is the address of boot_params."""
    if case.run.stop is not Stop.ENTRY or not contract(case).linux_selectors:
        return
    rsi = case.run.registers.general["rsi"]
    if rsi != case.intent.boot_params:
        yield finding(
            f"{_called(case, 'rsi')} is {rsi:#x}, and boot_params lies at"
            f" {case.intent.boot_params:#x}",
            mend=f"let the entry stub load {_called(case, 'rsi')} with the address of boot_params",
        )


@rule(
    "entry-arguments",
    Step.COPY,
    says="Multiboot's magic word is in eax, and ebx holds the address of what it or PVH hands over.",
    source="Multiboot 0.6.96, 3.2; Multiboot2 2.0, 3.3; Xen docs/misc/pvh.pandoc",
    mend="let the entry stub load eax and ebx with what the protocol asks for",
)
def arguments(case: Case) -> Iterator[Found]:
    """eax and ebx hold what Multiboot puts there, ebx what PVH does."""
    if case.run.stop is not Stop.ENTRY:
        return
    for name in contract(case).names:
        value, wanted = case.run.registers.general[name], case.intent.arguments[name]
        if value != wanted:
            yield finding(
                f"{_called(case, name)} is {value:#x}, and {case.intent.protocol.value} puts"
                f" {wanted:#x} there",
                mend=f"let the entry stub load {_called(case, name)} with {wanted:#x}",
            )


@rule(
    "entry-in-reach",
    Step.COPY,
    says="Through a 32-bit entry, everything that the new kernel is handed lies below 4 GiB.",
    source="boot.rst, 32-bit Boot Protocol; Multiboot 0.6.96, 3.3",
    mend="place it below 4 GiB",
)
def below_4g(case: Case) -> Iterator[Found]:
    """A 32-bit entry has no address above 4 GiB: all that the new kernel is handed lies below."""
    if case.run.stop is not Stop.ENTRY or case.intent.entry_bits != 32:
        return
    for segment in case.intent.segments:
        if segment.destination.end > FOUR_GIB:
            yield finding(
                f"the {segment.name} lies at {segment.destination}, where 32-bit code cannot reach"
            )
            return


@rule(
    "entry-zeroed",
    Step.COPY,
    says="At the 32-bit entry ebp, edi and ebx are zero.",
    source="boot.rst, 32-bit Boot Protocol",
    mend="zero them in the entry stub",
)
def zeroed(case: Case) -> Iterator[Found]:
    """ebp, edi and ebx are 0 at the 32-bit entry."""
    if case.run.stop is not Stop.ENTRY:
        return
    general = case.run.registers.general
    wrong = [each for each in contract(case).zero if general[each]]
    if wrong:
        shown = ", ".join(f"{_called(case, each)} is {general[each]:#x}" for each in wrong)
        yield finding(f"registers that have to be 0 at the entry are not: {shown}")


@rule(
    "entry-mapped",
    Step.COPY,
    says="All segments, the kernel's init_size and the trampoline's place are mapped to themselves.",
    source=f"{BOOT_64}; find_trampoline_placement() in Linux arch/x86/boot/compressed/pgtable_64.c",
    mend="map [load, load + init_size), boot_params, the command line and low memory 1:1",
)
def reachable(case: Case) -> Iterator[Found]:
    """The kernel's [load, load + init_size), boot_params and the command line are mapped to
    themselves.

    So is low memory: a decompressor copies code there, and runs it, to change the levels of paging.
    """
    if case.run.stop is not Stop.ENTRY:
        return
    intent = case.intent
    mmu, read = case.run.registers.mmu(case.host.cpu), case.once(_entries)
    for segment in intent.segments:
        # The kernel runs where it lies, and writes over itself; what it is handed is its to change.
        runs = segment.role is SegmentRole.KERNEL or intent.kernel_entry in segment.destination
        virt = segment.destination.start
        while virt < segment.destination.end:
            access = Access.WRITE
            got = walk(read, mmu, virt, access)
            if runs and not isinstance(got, Refused) and not got.executable:
                access = Access.FETCH
                got = walk(read, mmu, virt, access)
            if isinstance(got, Refused) or got.phys != virt:
                why = got.reason if isinstance(got, Refused) else f"leads to {got.phys:#x}"
                yield finding(
                    f"{virt:#x} of the {segment.name} cannot be {_USE[access]} by the new kernel: {why}"
                )
                return
            virt = (virt & -got.page_size) + got.page_size
    yield from _trampoline(case)


def _trampoline(case: Case) -> Iterator[Found]:
    """Low memory, by page_table_b as it was built: that it is there at all, `table-b-covers`
    asks."""
    if case.intent.protocol is not Protocol.LINUX_64 or case.handover.page_table_b is None:
        return
    mapped = case.mapped_b
    closed = ~mapped.executable & (mapped.virt < np.uint64(TRAMPOLINE_END))
    for at in closed.nonzero()[0].tolist():
        page = Extent.sized(int(mapped.virt[at]), int(mapped.size[at]))
        for each in case.intent.identity:
            if each.extent.end <= TRAMPOLINE_END and each.extent.overlaps(page):
                yield finding(
                    f"{page.start:#x} of {each.what} cannot be executed by the new kernel",
                    mend="map low memory so that it can be executed: a trampoline is put there",
                )
                return


_USE = {Access.WRITE: "used", Access.FETCH: "executed"}
TRAMPOLINE_END = 0xA_0000
"""find_trampoline_placement() stays below BIOS_START_MAX, 0x9f000, whatever the BIOS says."""


@rule(
    "entry-stack",
    Step.COPY,
    says="There is a stack, and a readable zero at its top.",
    source="kexec-tools purgatory/arch/x86_64/setup-x86_64.S reads 0(%rsp)",
    mend="enter with rsp inside a mapped page, and a zero pushed there",
)
def stack_readable(case: Case) -> Iterator[Found]:
    """There is a stack: 0(%rsp) can be read and is zero, and the word below can be written."""
    if case.run.stop is not Stop.ENTRY:
        return
    rsp = case.run.registers.general["rsp"]
    # The new kernel's word, whatever the old one's was.
    word = case.intent.entry_bits // 8
    mmu, read = case.run.registers.mmu(case.host.cpu), case.once(_entries)
    for at, access in ((rsp, Access.READ), (rsp - word, Access.WRITE)):
        got = walk(read, mmu, at, access)
        if isinstance(got, Refused):
            yield finding(
                f"the stack cannot be used: {access.value} at {at:#x}: {got.reason}",
                mend=f"enter with {_called(case, 'rsp')} inside a mapped page",
            )
            return
        # A loader's purgatory has read its zero already, and hands on a stack of its own.
        ours = case.loaded is None
        if ours and access is Access.READ and (there := read(got.phys, word)) != 0:
            yield finding(
                f"0(%{_called(case, 'rsp')}) at {at:#x} is {there:#x}, not zero",
                mend="push a zero before the jump: purgatories take it for a return address",
            )
            return


def _entries(case: Case) -> ReadEntry:
    """Memory as the walk left it, for walks that ask for the same tables again and again."""
    # Of the memory alone: a case that held itself would keep a machine's memory until it is
    # collected.
    return cache(partial(_entry, case.run.memory))


def _entry(memory: Memory, phys: int, size: int) -> int | None:
    try:
        return int.from_bytes(memory.read(Extent.sized(phys, size)), "little")
    except MachineError:
        return None
