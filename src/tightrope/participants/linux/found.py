"""Where an old kernel has its relocation code: by its symbols, or by a signature.

    linked ->  relocate_kernel   code that runs at V
               identity_mapped   code that runs at P
               ...               6.x: 2048 bytes from relocate_kernel on are copied, whatever
                                 follows in the text (KEXEC_CONTROL_CODE_MAX_SIZE, asm/kexec.h)
               __relocate_kernel_end   7.x: what is copied ends here, variables, gdt and idt with it

The signature, for a kernel without symbols: the first instructions, which save the callee's
registers in the order of the psABI and then the flags, in one place alone of the executable text;
and behind them a known shape.  identity_mapped is then the distance that the code adds to P.

Rules: a symbol that stands several times is taken where it lies inside the code; there is no guess.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tightrope.errors import ImageError
from tightrope.memory import PAGE_SIZE, Virt
from tightrope.model.vmlinux import Vmlinux
from tightrope.participants.linux.convention import Convention, Shape, shape

CONTROL_CODE = 2048
"""KEXEC_CONTROL_CODE_MAX_SIZE up to 6.12."""
VARIABLES = (
    "kexec_va_control_page",
    "kexec_pa_table_page",
    "kexec_debug_8250_mmio32",
    "kexec_debug_8250_port",
    "kexec_debug_gdt",
    "kexec_debug_idt",
    "kexec_debug_exc_vectors",
)
ROUTINES = ("identity_mapped", "virtual_mapped", "swap_pages")
SIGNATURE_64 = re.compile(
    rb"\x53\x55\x41\x54\x41\x55\x41\x56\x41\x57\x9c.{50,160}?\x49\x81\xc0(....)\x41\x50\xc3",
    re.DOTALL,
)
"""push rbx, rbp, r12 to r15, flags ... add $identity_mapped - relocate_kernel, r8; push r8; ret."""
SIGNATURE_32 = re.compile(rb"\x53\x56\x57\x55\x9c.{50,160}?\x89\xf8\x05(....)\x50\xc3", re.DOTALL)
"""push ebx, esi, edi, ebp, flags ... mov edi, eax; add $identity_mapped - relocate_kernel, eax;
push; ret."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """relocate_kernel of one kernel: `code` is what the kernel copies into the control page."""

    source: str
    version: str | None
    convention: Convention
    virt: Virt
    """Where relocate_kernel is linked to lie."""
    text: Virt
    """Where the kernel's text is linked to begin: V lies as far behind it in the running kernel."""
    code: bytes
    symbols: Mapping[str, int]
    """Offsets into `code` of routines, variables, and what `Shape` names."""
    page: bytes
    """What the running kernel has at V: the whole page, of which `code` is the beginning."""


def find(kernel: Vmlinux) -> Found:
    """The relocation code of a kernel.

    Raises ImageError when there is none, or when its calling convention is not known; MissingPart
    without iced-x86.
    """
    if kernel.symbols is None:
        return _by_signature(kernel)
    start = kernel.symbols.address("relocate_kernel")
    if start is None:
        raise _refused(
            kernel, "has no relocate_kernel: built without CONFIG_KEXEC, or no x86 Linux"
        )
    end = kernel.symbols.address("__relocate_kernel_end")
    size = CONTROL_CODE if end is None else end - start
    if not 0 < size <= PAGE_SIZE:
        raise _refused(kernel, f"its relocation code has {size:#x} bytes, more than a control page")
    symbols = {"relocate_kernel": 0}
    for name in (*ROUTINES, *VARIABLES):
        inside = [a for a in kernel.symbols.addresses_of(name) if start <= a < start + size]
        if len(inside) == 1:
            symbols[name] = inside[0] - start
    return _found(kernel, start, size, symbols)


def _by_signature(kernel: Vmlinux) -> Found:
    signature = SIGNATURE_64 if kernel.bits == 64 else SIGNATURE_32
    places = [
        (Virt(segment.virt + match.start()), int.from_bytes(match[1], "little"))
        for segment in kernel.segments
        for match in signature.finditer(segment.data)
    ]
    if len(places) != 1:
        where = "nowhere" if not places else f"in {len(places)} places"
        raise _refused(
            kernel,
            "has no symbols (no kallsyms), and the first instructions of a relocate_kernel that could be"
            f" known without stand {where}",
        )
    start, identity = places[0]
    return _found(kernel, start, CONTROL_CODE, {"relocate_kernel": 0, "identity_mapped": identity})


def _found(kernel: Vmlinux, start: Virt, size: int, symbols: dict[str, int]) -> Found:
    code = kernel.at(start, size)
    identity = symbols.get("identity_mapped", 0)
    known = shape(code, identity, kernel.bits) if 0 < identity < size else None
    if known is None or not _fits(known, start, symbols):
        raise _refused(
            kernel,
            "the calling convention of its relocate_kernel is not known: it is none of"
            f" {', '.join(each.value for each in Convention)}",
        )
    symbols["after_table_a"] = known.after_table
    symbols["set_stack"] = known.set_stack
    page = code
    if known.convention is Convention.LINUX_6:
        page = kernel.at(start, PAGE_SIZE)
    return Found(
        source=kernel.source,
        version=kernel.version,
        convention=known.convention,
        virt=start,
        text=Virt(min(each.virt for each in kernel.segments if each.virt)),
        code=code,
        symbols=symbols,
        page=page,
    )


def _fits(known: Shape, start: Virt, symbols: Mapping[str, int]) -> bool:
    """What the convention needs besides the instructions is there."""
    if known.convention is Convention.LINUX_7:
        named = set(VARIABLES) <= symbols.keys()
        return named and symbols["kexec_pa_table_page"] == known.root_variable
    # V is a page: the old kernel's text has the code at its beginning.
    return known.convention is Convention.LINUX_I386 or start % PAGE_SIZE == 0


def _refused(kernel: Vmlinux, problem: str) -> ImageError:
    return ImageError(problem, source=kernel.source, field="relocate_kernel")
