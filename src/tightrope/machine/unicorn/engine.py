"""The Unicorn instance: registers in and out, memory mapped, hooks.

Rules: ICELAKE_SERVER model (older models drop CR4 bits in silence), UC_TLB_VIRTUAL, so that every
first read, write or fetch of a page is asked of us.  A 64-bit old kernel gets a 64-bit engine,
which also leaves long mode; a 32-bit one gets a 32-bit engine, whose registers have the same names
here and r8 to r15 are always 0.  Registers that are read in a hook go through preallocated arrays:
the binding's own `reg_read` costs several microseconds each.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable, Collection, Sequence
from typing import Any

from tightrope.errors import MachineError
from tightrope.machine.held import held
from tightrope.machine.unicorn import binding, callbacks
from tightrope.machine.unicorn.binding import LEGACY, REGISTER, Batch, Failed
from tightrope.memory import PAGE_SHIFT, PAGE_SIZE
from tightrope.model import Registers
from tightrope.observe.familiar import NONE, Familiar
from tightrope.observe.physical import Ram
from tightrope.x86 import cpu as x86
from tightrope.x86.walk import Access

__all__ = ["Answer", "Batch", "Engine", "Failed"]

Answer = int | tuple[int, Collection[Access]] | None
"""A physical page, with what else is allowed there without another question; None where a CPU
faults."""
SYSTEM = ("rip", "rflags", "cr0", "cr2", "cr3", "cr4", *x86.SEGMENTS)
NEEDED_EFER = x86.EFER_LME | x86.EFER_LMA | x86.EFER_NXE


def _nothing(*_: int) -> None:
    """What is called ahead of an instruction, and for an access, when nobody watches."""


class Engine:
    """One Unicorn CPU over one `Ram`."""

    def __init__(self, ram: Ram, bits: int = 64) -> None:
        self.ram = ram
        self.bits = bits
        self.before: Callable[[int], None] = _nothing
        self.accessed: Callable[[bool, int, int], None] = _nothing
        self.familiar = Familiar(NONE, array("Q"), 0)
        self._raised: BaseException | None = None
        self._shown: int | None = None
        """The frame that every linear address leads to meanwhile: see `forget_code_in`."""
        self._callbacks: dict[int, object] = {}
        self._batches: dict[tuple[str, ...], Batch] = {}
        self._single: dict[str, Batch] = {}
        # The binding's annotations lack what its x86 class adds: Any, and only in this file.
        self.uc: Any = binding.uc.Uc(
            binding.const.UC_ARCH_X86,
            binding.const.UC_MODE_64 if bits == 64 else binding.const.UC_MODE_32,
        )
        self.uc.ctl_set_cpu_model(binding.x86.UC_CPU_X86_ICELAKE_SERVER)
        self.uc.ctl_set_tlb_mode(binding.const.UC_TLB_VIRTUAL)  # type: ignore[attr-defined]
        self.uc.ctl_exits_enabled(True)
        self._wide = binding.Wide(self.uc._uch)
        self._names = x86.GENERAL if bits == 64 else x86.GENERAL[:8]
        self._general, self._system = self.batch(*self._names), self.batch(*SYSTEM)
        for number, extent in enumerate(ram.extents):
            self.uc.mem_map_ptr(
                extent.start, extent.size, binding.const.UC_PROT_ALL, ram.address_in_process(number)
            )
        self._new = self.saved()

    def number(self, name: str) -> int:
        """Unicorn's number of a register."""
        return int((LEGACY if self.bits == 32 else REGISTER).get(name) or REGISTER[name])

    def read(self, name: str) -> int:
        """One register by name; for segments the selector."""
        one = self._single.get(name)
        if one is None:
            one = self._single[name] = self.batch(name)
        # A register narrower than 64 bits leaves the rest of the word alone.
        one.values[0] = 0
        return int(one.read()[0])

    def write(self, name: str, value: int) -> None:
        """One register by name."""
        self.uc.reg_write(self.number(name), value)

    def batch(self, *names: str) -> Batch:
        """See `Batch`; those who name the same registers share one."""
        if names not in self._batches:
            self._batches[names] = Batch(self.uc._uch, [self.number(name) for name in names])
        return self._batches[names]

    def efer(self) -> int:
        """IA32_EFER."""
        return self._wide.msr(x86.MSR_EFER)

    def load(self, registers: Registers) -> None:
        """Put the CPU into a state.  Raises MachineError when the emulated model cannot hold it.

        It starts from a new CPU: what `Registers` does not name, SSE and MSRs and the exception
        that was raised last among it, is as after a reset.  The order matters: PAE and LME before
        PG, the gdt before the selectors, all before rip.
        """
        self.restore(self._new)
        self.write("cr4", registers.cr4)
        self.uc.reg_write(REGISTER["msr"], (x86.MSR_EFER, registers.efer))
        self.write("cr3", registers.cr3)
        self.write("cr0", registers.cr0)
        # Other bits of CR4 and EFER that this model has none of are kept by whoever watches.
        for name, value, got, needed in (
            ("CR4", registers.cr4, self.read("cr4"), x86.CR4_TRANSLATES),
            ("EFER", registers.efer, self.efer(), NEEDED_EFER),
            ("CR0", registers.cr0, self.read("cr0"), -1),
        ):
            if (value ^ got) & needed:
                raise MachineError(
                    f"the emulated CPU cannot hold {name} = {value:#x}: it has {got:#x}"
                )
        self.set_table("gdtr", *registers.gdt)
        self.set_table("idtr", *registers.idt)
        for name, selector in registers.segments.items():
            self.write(name, selector)
        for number, name in enumerate(self._names):
            self._general.values[number] = registers.general[name]
        self._general.write()
        self.write("rflags", registers.rflags)
        self.write("cr2", registers.cr2)
        self.write("dr7", 0)
        self.write("rip", registers.rip)

    def saved(self) -> object:
        """The CPU's whole state, descriptor caches included, for `restore`."""
        return self.uc.context_save()

    def saved_bytes(self) -> bytes:
        """The same as it lies in Unicorn: a raw copy of QEMU's CPU state."""
        return bytes(self.uc.context_save())

    def restore(self, state: object) -> None:
        """Go back to a saved state."""
        self.uc.context_restore(state)

    def registers(self) -> Registers:
        """The CPU as it is."""
        ctypes.memset(self._system.values, 0, ctypes.sizeof(self._system.values))  # as `read` does
        now = dict(zip(SYSTEM, self._system.read(), strict=True))
        return Registers(
            general=dict.fromkeys(x86.GENERAL, 0)
            | dict(zip(self._names, self._general.read(), strict=True)),
            efer=self.efer(),
            segments={name: now.pop(name) for name in x86.SEGMENTS},
            **now,
            gdt=self.table("gdtr"),
            idt=self.table("idtr"),
        )

    def table(self, name: str) -> tuple[int, int]:
        """Base and limit of "gdtr" or "idtr"."""
        return self._wide.table(REGISTER[name])

    def set_table(self, name: str, base: int, limit: int) -> None:
        """Write "gdtr" or "idtr"; what was loaded from it stays loaded."""
        self.uc.reg_write(REGISTER[name], (0, base, limit, 0))

    # ------------------------------------------------------------------------------------ hooks

    def _mishap(self, err: BaseException) -> None:
        """An exception cannot pass through the engine: `start` raises it, the first of a run only.

        The binding's own way loses it where the engine stops with an error of its own.
        """
        if self._raised is None:
            self._raised = err
        self.stop()

    def on_translation(self, answer: Callable[[int, Access], Answer]) -> int:
        """`answer(page, access)` for a first access; where it is None the CPU stops at this
        instruction."""

        def fill(
            _handle: int, page: int, access: int, entry: Sequence[callbacks.TlbEntry], _data: int
        ) -> bool:
            if self._shown is not None:
                entry[0].paddr, entry[0].perms = self._shown, binding.PERMISSION[Access.FETCH]
                return True
            kind = binding.ACCESS[access]
            try:
                found = answer(page, kind)
            except BaseException as err:
                self._mishap(err)
                return False
            if found is None:
                return False
            allowed = binding.PERMISSION[kind]
            if isinstance(found, tuple):
                found, also = found
                for each in also:
                    allowed |= binding.PERMISSION[each]
            entry[0].paddr = found
            entry[0].perms = allowed
            return True

        return self._hook(binding.const.UC_HOOK_TLB_FILL, callbacks.TRANSLATION(fill))

    def on_instruction(self) -> int:
        """Call `self.before(rip)` ahead of every instruction that is not familiar."""

        def code(_handle: int, rip: int, _size: int, _data: int) -> None:
            known = self.familiar
            if rip in known.rips and len(known.trace) < known.limit:
                known.trace.append(rip)
                return
            try:
                if rip not in known.ready or not known.known(rip):
                    self.before(rip)
            except BaseException as err:
                self._mishap(err)

        return self._hook(binding.const.UC_HOOK_CODE, callbacks.CODE(code))

    def _hook(self, kind: int, callback: ctypes._CFunctionType) -> int:
        """Register a callback with the library itself: see `callbacks`."""
        hook = ctypes.c_size_t()
        called = ctypes.cast(callback, ctypes.c_void_p)
        everywhere = ctypes.c_uint64(1), ctypes.c_uint64(0)
        status = binding.library.uc_hook_add(
            self.uc._uch, ctypes.byref(hook), kind, called, None, *everywhere
        )
        if status != binding.const.UC_ERR_OK:
            raise MachineError(f"Unicorn refuses a hook: error {status}")
        self._callbacks[hook.value] = callback
        return hook.value

    def on_access(self) -> int:
        """Call `self.accessed(is_write, physical address, bytes)` for every data access."""
        write = binding.const.UC_MEM_WRITE

        def access(_handle: int, kind: int, phys: int, size: int, _value: int, _data: int) -> None:
            try:
                self.accessed(kind == write, phys, size)
            except BaseException as err:
                self._mishap(err)

        kinds = binding.const.UC_HOOK_MEM_READ | binding.const.UC_HOOK_MEM_WRITE
        return self._hook(kinds, callbacks.ACCESS(access))

    def on_hole(self, record: Callable[[int], bool]) -> tuple[int, ...]:
        """`record(physical address)` for an access where no memory is; the CPU stops unless it is
        told (True) that there is some now.

        Only where no memory is: in the range of any hook of memory Unicorn takes the long way for
        each store (accel/tcg/cputlb.c, uc_mem_hook_installed()).
        """

        def hole(
            _uc: object, _kind: int, phys: int, _size: int, _value: int, _data: object
        ) -> bool:
            try:
                return record(phys)
            except BaseException as err:
                self._mishap(err)
                return False

        kind = binding.const.UC_HOOK_MEM_UNMAPPED
        starts = [0, *(each.end for each in self.ram.extents)]
        ends = [*(each.start for each in self.ram.extents), 1 << 64]
        return tuple(
            int(self.uc.hook_add(kind, hole, None, start, end - 1))
            for start, end in zip(starts, ends, strict=True)
            if start < end
        )

    def on_exception(self, record: Callable[[int], None]) -> int:
        """`record(vector)` for an exception that the CPU raised by itself."""

        def interrupt(_uc: object, vector: int, _data: object) -> None:
            try:
                record(vector)
            except BaseException as err:
                self._mishap(err)

        return int(self.uc.hook_add(binding.const.UC_HOOK_INTR, interrupt))

    def on_invalid(self, record: Callable[[], None]) -> int:
        """`record()` for an instruction that does not exist; the CPU stops."""

        def invalid(_uc: object, _data: object) -> bool:
            try:
                record()
            except BaseException as err:
                self._mishap(err)
            return False

        return int(self.uc.hook_add(binding.const.UC_HOOK_INSN_INVALID, invalid))

    def on_port(
        self, read: Callable[[int, int], int], write: Callable[[int, int, int], None]
    ) -> tuple[int, int]:
        """`read(port, bytes)` and `write(port, bytes, value)` for IN and OUT."""

        def port_in(_uc: object, port: int, size: int, _data: object) -> int:
            try:
                return read(port, size)
            except BaseException as err:
                self._mishap(err)
                return 0

        def port_out(_uc: object, port: int, size: int, value: int, _data: object) -> None:
            try:
                write(port, size, value)
            except BaseException as err:
                self._mishap(err)

        which = binding.x86.UC_X86_INS_IN, binding.x86.UC_X86_INS_OUT
        return self._in_place(which[0], port_in), self._in_place(which[1], port_out)

    def _in_place(self, which: int, callback: Callable[..., object]) -> int:
        """A hook that is called in place of one instruction."""
        kind = binding.const.UC_HOOK_INSN
        return int(self.uc.hook_add(kind, callback, None, 1, 0, which))

    def on_cpuid(self, answer: Callable[[int, int], tuple[int, int, int, int]]) -> int:
        """`answer(eax, ecx)` gives what CPUID leaves in eax, ebx, ecx and edx."""
        batch = self.batch("rax", "rbx", "rcx", "rdx")

        def cpuid(_uc: object, _data: object) -> bool:
            try:
                values = batch.read()
                asked = values[0] & 0xFFFF_FFFF, values[2] & 0xFFFF_FFFF
                for number, value in enumerate(answer(*asked)):
                    values[number] = value
                batch.write()
            except BaseException as err:
                self._mishap(err)
            return True  # done: Unicorn's own is left out

        return self._in_place(binding.x86.UC_X86_INS_CPUID, cpuid)

    def own_mmu(self, ours: bool) -> None:
        """Whether translations are asked of us (the normal case) or are Unicorn's own business."""
        self.uc.ctl_set_tlb_mode(binding.const.UC_TLB_VIRTUAL if ours else binding.const.UC_TLB_CPU)
        self.forget_translations()

    def open_bus(self, phys: int) -> None:
        """Put a page of ones where nothing is, as an unanswered read gives on a PC."""
        page = phys & -PAGE_SIZE
        self.uc.mem_map(page, PAGE_SIZE)
        self.uc.mem_write(page, b"\xff" * PAGE_SIZE)

    def forget_code(self) -> None:
        """Drop translated code: after bytes were changed behind Unicorn's back."""
        self.uc.ctl_flush_tb()

    def forget_code_in(self, frame: int) -> None:
        """The same of one frame, by its number: to translate all again takes most of a short walk.

        Unicorn drops what it finds behind a linear address (2.1.4): it is shown the frame at one.
        """
        self._shown = frame << PAGE_SHIFT
        self.forget_translations()
        self.uc.ctl_remove_cache(PAGE_SIZE, 2 * PAGE_SIZE)
        self._shown = None
        self.forget_translations()

    def forget_translations(self) -> None:
        """Drop all translations: the next access of each page asks again."""
        self.uc.ctl(binding.const.UC_CTL_TLB_FLUSH, binding.const.UC_CTL_IO_WRITE)

    def unhook(self, *hooks: int) -> None:
        """Remove hooks."""
        for each in hooks:
            if each in self._callbacks:
                binding.library.uc_hook_del(self.uc._uch, ctypes.c_size_t(each))
                del self._callbacks[each]
            else:
                self.uc.hook_del(each)

    def start(
        self, rip: int, *, until: int | None = None, exits: Sequence[int] = (), count: int = 0
    ) -> None:
        """Run from `rip` until a stop or a fault (`Failed`); to `until`, or so many instructions.

        `exits` are addresses at which it stops as well.
        """
        self.uc.ctl_set_exits([*exits] if until is None else [until, *exits])
        self._raised = None
        try:
            with held(self.stop):
                self.uc.emu_start(rip, 0, 0, count)
        finally:
            raised, self._raised = self._raised, None
            if raised is not None:
                raise raised

    def stop(self) -> None:
        """Stop before the instruction that is about to run."""
        self.uc.emu_stop()
