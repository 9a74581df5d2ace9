"""Where a guest's kernel leaves its notes when it dies: one for each CPU, and vmcoreinfo.

    Linux   crash_notes, a per-CPU pointer; vmcoreinfo_note
    Xen     crash_notes, (start, size) for each CPU; vmcoreinfo_data

Source: Linux kernel/crash_core.c, include/linux/crash_core.h (CRASH_CORE_NOTE_BYTES,
VMCOREINFO_NOTE_SIZE), include/linux/elfcore.h; xen/common/kexec.c of 4.17 and 4.20.

Rules: lines as `host.Told` takes them.  A kernel whose symbols do not lead there tells none; then
those of the core header that it has loaded have to do.
"""

from __future__ import annotations

from collections.abc import Iterator

from tightrope.abi import elf
from tightrope.deeds.watch.kernel import GuestKernel
from tightrope.deeds.watch.memory import GuestMemory
from tightrope.deeds.watch.xen import GuestXen
from tightrope.errors import BadInput, MachineError
from tightrope.plan.taken import core_rows

CPU_NOTE = {64: 0x170, 32: 0xCC}
"""Two ELF note headers, "CORE", and struct elf_prstatus: 336 bytes, 144 in 32 bits."""
VMCOREINFO = 0x1024
"""Two ELF note headers, "VMCOREINFO", and a page."""
XEN_VMCOREINFO = 0x1000
MOST_CPUS = 64


def told(
    memory: GuestMemory, kernel: GuestKernel | GuestXen, datas: tuple[bytes, ...]
) -> Iterator[str]:
    """START SIZE WHAT of each, in hexadecimal."""
    try:
        rows = list(
            _xen(memory, kernel) if isinstance(kernel, GuestXen) else _linux(memory, kernel)
        )
    except (BadInput, MachineError):
        rows = list(_loaded(datas))
    for start, size, what in rows:
        yield f"{start:x} {size:x} {what}"


def _linux(memory: GuestMemory, kernel: GuestKernel) -> Iterator[tuple[int, int, str]]:
    word = kernel.width.size

    def number(name: str, index: int = 0) -> int:
        return memory.word(kernel.mmu, kernel.address(name) + index * word, word)

    possible, notes = number("__cpu_possible_mask"), number("crash_notes")
    for cpu in range(possible.bit_length()):
        if possible >> cpu & 1:
            at = (notes + number("__per_cpu_offset", cpu)) % (1 << kernel.width.bits)
            yield memory.lies(kernel.mmu, at), CPU_NOTE[kernel.width.bits], f"CPU {cpu}'s registers"
    yield memory.lies(kernel.mmu, number("vmcoreinfo_note")), VMCOREINFO, "vmcoreinfo"


def _xen(memory: GuestMemory, kernel: GuestXen) -> Iterator[tuple[int, int, str]]:
    rows = memory.word(kernel.mmu, kernel.address("common/kexec.c#crash_notes"))
    for cpu in range(min(memory.word(kernel.mmu, kernel.address("nr_cpu_ids"), 4), MOST_CPUS)):
        at, size = (memory.word(kernel.mmu, rows + 16 * cpu + 8 * each) for each in range(2))
        if at:
            yield memory.lies(kernel.mmu, at), size, f"CPU {cpu}'s registers"
    at = kernel.address("common/kexec.c#vmcoreinfo_data")
    yield memory.lies(kernel.mmu, at), XEN_VMCOREINFO, "vmcoreinfo of Xen"


def _loaded(datas: tuple[bytes, ...]) -> Iterator[tuple[int, int, str]]:
    rows = (row for data in datas for row in core_rows(data) if row["type"] == elf.PT_NOTE)
    for number, row in enumerate(rows):
        yield row["paddr"], row["memsz"], f"note {number}"
