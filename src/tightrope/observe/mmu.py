"""The MMU under observation: our walker, every translation recorded, and the worst-case TLB.

A CPU may go on using what it cached under older tables until something flushes it (SDM 4.10.2.2,
4.10.4).  Whether the walk is safe only gets worse the more the TLB holds, so the one worst case is
the TLB that holds everything the manual still allows; there is no need to search.  `contexts` are
the older tables that such a TLB may remember, each with what of it survives.

Rules: this file knows paging and no engine.  The control registers are its own copies, written by
whoever executes the instruction, after `x86.cpu` has allowed it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from tightrope.memory import NUMBER, PAGE_SHIFT, PAGE_SIZE, Phys, Virt
from tightrope.model import Buffer, Cpu, Registers, Stale, Step, Translation
from tightrope.observe.physical import Ram
from tightrope.x86 import cpu as x86
from tightrope.x86.walk import Access, Mmu, Refused, Translated, load_pdptes, walk


@dataclass(slots=True)
class Context:
    """Tables that were in use once, and which of their translations may still be cached."""

    mmu: Mmu
    read: Callable[[int, int], int | None]
    only_global: bool
    dropped: set[int] = field(default_factory=set)
    """Pages (linear address >> 12) that INVLPG removed since."""


class WatchedMmu:
    """Translates for a run and records each question once per page, access and TLB epoch."""

    def __init__(
        self,
        ram: Ram,
        cpu: Cpu,
        registers: Registers,
        frozen: Mapping[int, Buffer],
        same: int = PAGE_SIZE,
    ) -> None:
        """`frozen` has table pages as they were before the walk: frame address -> 4096 bytes.

        `same` is how much of a page has to be alike for its code to be: a contract's.
        """
        self._same = same
        self._ram = ram
        self._frozen = frozen
        self._cpu = cpu
        self.mmu = registers.mmu(cpu)
        # The old kernel loaded CR3 long ago, when nothing of the handover was in memory.
        loaded = load_pdptes(self.entry_before, self.mmu)
        if isinstance(loaded, tuple):
            self.mmu = replace(self.mmu, pdptes=loaded)
        self.contexts: list[Context] = []
        self.log: list[Translation] = []
        self._pages: dict[Access, dict[int, int]] = {access: {} for access in Access}
        """By access, number of the linear page -> where it is: what has been asked for."""
        self._large: dict[int, dict[tuple[Access, int], int]] = {}
        """The same of larger pages, by the shift that makes a page's number of an address."""
        self._before: dict[int, Translated | Refused] = {}
        """By number of the linear page, what `entry_before` gives for it: see `written`."""
        self._looked: dict[tuple[Access, int], int] = {}
        """By access and number of the linear page, where it is: what was looked at since memory
        was written."""

    def state(self, *, code64: bool) -> x86.ControlState:
        """What the legality of the next control-register write depends on."""
        now = self.mmu
        return x86.ControlState(
            cr0=now.cr0,
            cr3=now.cr3,
            cr4=now.cr4,
            efer=now.efer,
            code64=code64,
            physical_bits=self._cpu.physical_bits,
            la57=self._cpu.la57,
            facts=self._cpu.facts,
        )

    @property
    def facts(self) -> int:
        """Whose CPU it is and what guest runs on it: see `x86.control`."""
        return self._cpu.facts

    # ------------------------------------------------------------------- what changes the tables

    def pdpte_refusal(
        self, *, cr0: int | None = None, cr3: int | None = None, cr4: int | None = None
    ) -> str | None:
        """Why a control-register write raises #GP(0) for a PDPTE, under PAE paging (SDM 4.4.1)."""
        now = self.mmu
        if now.efer & x86.EFER_LMA:
            return None
        then = replace(
            now,
            cr0=now.cr0 if cr0 is None else cr0,
            cr3=now.cr3 if cr3 is None else cr3,
            cr4=now.cr4 if cr4 is None else cr4,
        )
        if cr3 is None and not self._loads(then):
            return None
        loaded = load_pdptes(self._ram.word, then)
        return loaded.reason if isinstance(loaded, Refused) else None

    def _loads(self, then: Mmu) -> bool:
        now = self.mmu
        return x86.loads_pdptes(then.cr0, then.cr4, was_cr0=now.cr0, was_cr4=now.cr4)

    def _loaded(self, mmu: Mmu) -> Mmu:
        """The same state with the PDPTEs that the CPU loads with it."""
        loaded = load_pdptes(self._ram.word, mmu)
        if loaded is None and mmu.pdptes is None:
            return mmu
        return replace(mmu, pdptes=loaded if isinstance(loaded, tuple) else None)

    def write_cr3(self, value: int) -> None:
        """MOV to CR3: non-global translations go, global ones stay (SDM 4.10.4.1).

        With bit 63 set nothing goes; without CR4.PCIDE a CPU refuses that bit.
        """
        before = self.mmu
        keeps_all = bool(value & x86.CR3_NO_FLUSH)
        keeps_global = bool(before.cr4 & x86.CR4_PGE)
        if not keeps_all and keeps_global:
            self.contexts = [replace(each, only_global=True) for each in self.contexts]
        elif not keeps_all:
            self.contexts = []
        if keeps_all or keeps_global:
            # Whether the lower half may be used is asked at each access, of CR4 as it is then.
            lass = before.cr4 & x86.CR4_LASS
            cached = replace(before, cr4=before.cr4 ^ lass) if lass else before
            self.contexts.append(
                Context(mmu=cached, read=self.entry_before, only_global=not keeps_all)
            )
        self.mmu = self._loaded(replace(before, cr3=value & ~x86.CR3_NO_FLUSH))
        if before.cr0 & x86.CR0_PG:
            self._forget()

    def write_cr4(self, value: int) -> None:
        """MOV to CR4; see `x86.cpu.flushes_everything`."""
        if x86.flushes_everything(self.mmu.cr4, value):
            self.contexts.clear()
        then = replace(self.mmu, cr4=value)
        self.mmu = self._loaded(then) if self._loads(then) else then
        self._forget()

    def write_cr0(self, value: int) -> None:
        """MOV to CR0: clearing PG drops everything (SDM 4.10.4.1), reserved bits stay clear."""
        value &= x86.CR0_DEFINED
        if self.mmu.cr0 & x86.CR0_PG and not value & x86.CR0_PG:
            self.contexts.clear()
        efer = self.mmu.efer
        if not value & x86.CR0_PG:
            efer &= ~x86.EFER_LMA
        elif efer & x86.EFER_LME:
            efer |= x86.EFER_LMA
        then = replace(self.mmu, cr0=value, efer=efer)
        self.mmu = self._loaded(then) if self._loads(then) else then
        self._forget()

    def write_efer(self, value: int) -> None:
        """WRMSR to EFER; LMA is the CPU's own."""
        lma = self.mmu.efer & x86.EFER_LMA
        self.mmu = replace(self.mmu, efer=value & ~x86.EFER_LMA | lma)
        self._forget()

    def invlpg(self, virt: int) -> None:
        """INVLPG drops one page from every context, global or not."""
        for context in self.contexts:
            context.dropped.add(virt >> 12)
        self._forget()

    # ----------------------------------------------------------------------------- translations

    def translate(
        self, virt: int, access: Access, *, instruction: int, step: Step
    ) -> Refused | Phys:
        """The physical address of `virt`; `Refused` when the CPU would fault.

        The first question for a page since the last change of the tables is answered by a walk and
        recorded; later ones come from the cache, as the CPU's do.
        """
        known = self.cached(virt, access)
        if known is not None:
            return known
        got = walk(self._ram.word, self.mmu, virt, access)
        if isinstance(got, Translated):
            self.note(virt, access, got, instruction=instruction, step=step)
            return got.phys
        return got

    def note(
        self, virt: int, access: Access, got: Translated, *, instruction: int, step: Step
    ) -> None:
        """Record a first question and its answer, which `ask` has given."""
        stale = self._stale(virt, access, got) if self.contexts else ()
        self._pages[access][virt >> PAGE_SHIFT] = got.phys & -PAGE_SIZE
        # With a stale context the answer may differ from one 4 KiB page to the next.
        if got.page_size > PAGE_SIZE and not self.contexts:
            shift = got.page_size.bit_length() - 1
            pages = self._large.setdefault(shift, {})
            pages[access, virt >> shift] = got.phys & -got.page_size
        self.log.append(
            Translation(
                instruction=instruction,
                step=step,
                access=access,
                virt=Virt(virt),
                phys=got.phys,
                cr3=self.mmu.cr3,
                visits=got.visits,
                sets_accessed=got.sets_accessed,
                stale=stale,
            )
        )

    def ask(self, virt: int, access: Access) -> Translated | None:
        """The answer to a first question, without a trace in the log; None where a CPU faults, and
        where older tables may answer as well.
        """
        got = None if self.contexts else walk(self._ram.word, self.mmu, virt, access)
        return got if isinstance(got, Translated) else None

    def refusal(self, virt: int, access: Access) -> Refused | None:
        """Why an access would fault, without a trace in the log."""
        got = walk(self._ram.word, self.mmu, virt, access)
        return got if isinstance(got, Refused) else None

    def cached(self, virt: int, access: Access) -> Phys | None:
        """The physical address of a linear one that was asked for before, from the cache alone."""
        page = self._pages[access].get(virt >> PAGE_SHIFT)
        if page is not None:
            return Phys(page | virt & (PAGE_SIZE - 1))
        for shift, large in self._large.items():
            page = large.get((access, virt >> shift))
            if page is not None:
                return Phys(page | virt & (1 << shift) - 1)
        return None

    def mapping(self, virt: int, access: Access) -> tuple[int, int, Phys] | None:
        """The cached translation of an address: where it begins, its size, where it leads."""
        for shift, large in self._large.items():
            page = large.get((access, virt >> shift))
            if page is not None:
                return virt >> shift << shift, 1 << shift, Phys(page)
        page = self._pages[access].get(virt >> PAGE_SHIFT)
        if page is not None:
            return virt & -PAGE_SIZE, PAGE_SIZE, Phys(page)
        return None

    def written(self) -> None:
        """Something wrote to memory, which may be a table."""
        self._looked.clear()
        self._before.clear()

    def _forget(self) -> None:
        self.written()
        for pages in self._pages.values():
            pages.clear()
        self._large.clear()

    def look(self, virt: int, size: int, access: Access = Access.READ) -> bytes | Refused:
        """The bytes at a linear address, without a trace in the log; None of them in a hole."""
        out = b""
        while size:
            phys = self.cached(virt, access)
            if phys is None:
                frame = self._looked.get((access, virt >> PAGE_SHIFT))
                if frame is None:
                    got = walk(self._ram.word, self.mmu, virt, access)
                    if isinstance(got, Refused):
                        return got
                    frame = self._looked[access, virt >> PAGE_SHIFT] = got.phys >> PAGE_SHIFT
                phys = Phys(frame << PAGE_SHIFT | virt % PAGE_SIZE)
            part = min(size, PAGE_SIZE - virt % PAGE_SIZE)
            view = self._ram.view(phys, part)
            if view is None:
                return Refused(
                    vector=18,
                    error_code=0,
                    reason=f"no memory answers at {phys:#x}",
                    visits=(),
                )
            out += view
            virt += part
            size -= part
        return out

    def before_the_walk(self, virt: int) -> Phys | None:
        """Where the old kernel's tables led to while they were whole: it loaded its segments
        then."""
        got = self._before.get(virt >> PAGE_SHIFT)
        if got is None:
            got = self._before[virt >> PAGE_SHIFT] = walk(
                self.entry_before, self.mmu, virt, Access.READ
            )
        if isinstance(got, Refused):
            return None
        return Phys(got.phys & -PAGE_SIZE | virt % PAGE_SIZE)

    def look_before(self, virt: int, size: int) -> bytes | None:
        """The bytes at a linear address of the old kernel's, on one page, by its tables as they
        were."""
        phys = self.before_the_walk(virt)
        view = None if phys is None else self._ram.view(phys, size)
        return None if view is None else bytes(view)

    def _stale(self, virt: int, access: Access, now: Translated) -> tuple[Stale, ...]:
        """What older translations of this page the CPU may use instead, where they differ."""
        out = []
        for context in self.contexts:
            if virt >> 12 in context.dropped:
                continue
            then = walk(context.read, context.mmu, virt, Access.READ)
            if isinstance(then, Refused) or (context.only_global and not then.is_global):
                continue
            allowed = (
                then.executable
                if access is Access.FETCH
                else then.writable or access is Access.READ
            )
            if then.phys == now.phys and allowed:
                continue
            same = access is Access.FETCH and self._same_page(then.phys, now.phys)
            out.append(
                Stale(
                    phys=then.phys,
                    cr3=context.mmu.cr3,
                    is_global=then.is_global,
                    harmless=allowed and same,
                )
            )
        return tuple(out)

    def _same_page(self, one: int, other: int) -> bool:
        first = self._ram.view(one & ~(PAGE_SIZE - 1), self._same)
        second = self._ram.view(other & ~(PAGE_SIZE - 1), self._same)
        return first is not None and second is not None and first == second

    def entry_before(self, phys: int, size: int) -> int | None:
        """Entries as they were before the walk: what a stale translation was made from."""
        page = self._frozen.get(phys & ~(PAGE_SIZE - 1))
        if page is None:
            return self._ram.word(phys, size)
        entry: int = NUMBER[size](page, phys & (PAGE_SIZE - 1))[0]
        return entry
