"""Which calling convention a relocate_kernel has, told from its instructions up to the jump to P.

    LINUX_6      rdi list, rsi an array of pages, rdx start, rcx preserve_context, r8 host_mem_enc.
                 The root of the tables is the array's third word, the stack is P + 4096, P its
                 first.
    LINUX_7      rdi list, rsi P, rdx start, rcx flags.  The root of the tables is a variable behind the
                 code (kexec_pa_table_page); the idt and the gdt are dropped by the code itself.
    LINUX_I386   on the stack: list, array of pages, start, has_pae, preserve_context; i386 and PAE.

Sources: arch/x86/kernel/relocate_kernel_64.S and relocate_kernel_32.S as they are in Debian's 6.1,
6.12, 7.2 and 7.3, read as machine code; what lies between 6.12 and 7.2 has other conventions, and
is not known.

Rules: a shape is a set of facts that all have to be there; nobody counts versions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from tightrope.errors import MissingPart


class Convention(StrEnum):
    """How relocate_kernel is called; the value is what a report calls it."""

    LINUX_6 = "Linux 6.1 to 6.12, x86_64"
    LINUX_7 = "Linux 7.2 and 7.3, x86_64"
    LINUX_I386 = "Linux 6.1, i386 and PAE"


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What the code up to the identity address does, by offset from relocate_kernel."""

    convention: Convention
    after_table: int
    """The instruction after the first write of CR3."""
    set_stack: int
    """The instruction that sets the stack pointer to the control page's end."""
    root_variable: int | None
    """LINUX_7: the variable that CR3 is loaded from."""


def shape(code: bytes, identity: int, bits: int) -> Shape | None:
    """The shape of `code`, whose part at the identity address begins at `identity`; None when not
    known.

    Raises MissingPart without iced-x86.
    """
    facts = dict(_facts(code[:identity], bits))
    after, stack = facts.get("cr3 written"), facts.get("stack")
    if after is None or stack is None:
        return None
    behind = dict(_facts(code[identity : identity + 0x100], bits))
    root = facts.get("root variable")
    if bits == 32:
        known = {"arguments on the stack", "root from the array"} <= facts.keys()
        convention = Convention.LINUX_I386
    elif root is not None:
        # Both bits of flags are tested behind the jump; in 6.14 rcx was preserve_context alone.
        known = {"stack from rsi", "gdt", "idt"} <= facts.keys() and {
            "flag 1",
            "flag 2",
        } <= behind.keys()
        convention = Convention.LINUX_7
    else:
        known = {"root from the array", "encryption kept"} <= facts.keys()
        convention = Convention.LINUX_6
    if not known:
        return None
    return Shape(convention=convention, after_table=after, set_stack=stack, root_variable=root)


def _facts(code: bytes, bits: int) -> Iterator[tuple[str, int]]:
    """Name and offset of each thing that the instructions do; straight on, no branch is
    followed."""
    try:
        import iced_x86 as x
    except ImportError as err:
        raise MissingPart("iced-x86 is not installed: install tightrope[rehearse]") from err
    reg, mnemonic = x.Register, x.Mnemonic
    array, root = (reg.RSI, 16) if bits == 64 else (reg.EBP, 8)
    loaded: dict[int, str] = {}
    variables: dict[int, int] = {}
    for each in x.Decoder(bits, code, ip=0):
        here = each.ip
        if each.mnemonic == mnemonic.MOV and each.op1_kind == x.OpKind.MEMORY:
            place = (each.memory_base, each.memory_displacement)
            if place == (array, root):
                loaded[each.op0_register] = "root from the array"
            elif each.is_ip_rel_memory_operand:
                variables[each.op0_register] = each.ip_rel_memory_address
            elif place == (reg.ESP, 0x1C) and each.op0_register == reg.EBP:
                yield "arguments on the stack", here
        elif each.mnemonic == mnemonic.MOV and each.op0_register == reg.CR3:
            source = each.op1_register
            if source in loaded:
                yield loaded[source], here
            if source in variables:
                yield "root variable", variables[source]
            yield "cr3 written", each.next_ip
            loaded, variables = {}, {}
        elif each.mnemonic == mnemonic.MOV and (each.op0_register, each.op1_register) == (
            reg.R12,
            reg.R8,
        ):
            yield "encryption kept", here
        elif each.mnemonic == mnemonic.LEA and each.op0_register in (reg.RSP, reg.ESP):
            if each.memory_displacement == 0x1000:
                yield "stack", here
                if each.memory_base == reg.RSI:
                    yield "stack from rsi", here
        elif each.mnemonic in (mnemonic.LGDT, mnemonic.LIDT):
            yield "gdt" if each.mnemonic == mnemonic.LGDT else "idt", here
        elif each.mnemonic == mnemonic.TEST and each.op0_register == reg.R11L:
            yield f"flag {each.immediate8}", here
