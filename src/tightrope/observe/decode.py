"""What an instruction is about to do, as far as a watcher has to know.

Rules: iced-x86 decodes and prints; this file sorts instructions into kinds, keeps the operands that
a rule needs by name, and computes linear addresses from register values that the caller gives.  It
knows neither memory nor an engine.  Imported only when a machine runs.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from functools import lru_cache

from iced_x86 import (
    Code,
    Decoder,
    DecoderError,
    FlowControl,
    Formatter,
    FormatterSyntax,
    Instruction,
    InstructionInfoFactory,
    MemorySizeExt,
    Mnemonic,
    OpAccess,
    OpKind,
    Register,
)

from tightrope.x86.walk import Access

ReadRegister = Callable[[str], int]

NAMES: dict[int, str] = {
    value: name.lower() for name, value in vars(Register).items() if isinstance(value, int)
}


class Kind(Enum):
    """What has to happen before an instruction of this kind runs."""

    PLAIN = auto()
    CONTROL_WRITE = auto()
    CONTROL_READ = auto()
    DEBUG_WRITE = auto()
    WRMSR = auto()
    RDMSR = auto()
    DESCRIPTOR_TABLE = auto()
    SEGMENT_LOAD = auto()
    STACK = auto()
    FAR_RETURN = auto()
    FAR_JUMP = auto()
    INDIRECT = auto()
    FLAGS = auto()
    STRING = auto()
    INVLPG = auto()
    HALT = auto()
    STAYS = auto()
    """A jump to itself."""
    HOSTED = auto()
    """A confidential guest cannot do it without its host."""


_FLAGS = {Mnemonic.CLI, Mnemonic.STI, Mnemonic.POPFQ, Mnemonic.POPF, Mnemonic.POPFD}
_TABLES = {Mnemonic.LGDT: "gdt", Mnemonic.LIDT: "idt"}
_HOSTED = {
    Mnemonic.CPUID, Mnemonic.INVD, Mnemonic.WBINVD, Mnemonic.RDPMC, Mnemonic.MONITOR, Mnemonic.MWAIT,
    Mnemonic.IN, Mnemonic.OUT, Mnemonic.INSB, Mnemonic.INSW, Mnemonic.INSD,
    Mnemonic.OUTSB, Mnemonic.OUTSW, Mnemonic.OUTSD,
}  # fmt: skip
"""#VE in a TDX guest (TDX Module specification 348549, "instructions that cause #VE") and #VC in a
SEV-ES guest (AMD APM volume 2, table 15-36) alike."""
_FAR = {Mnemonic.RETF, Mnemonic.IRET, Mnemonic.IRETD, Mnemonic.IRETQ}
_FAR_JUMPS = {
    Code.JMP_M1616: 2,
    Code.JMP_M1632: 4,
    Code.JMP_M1664: 8,
    Code.CALL_M1616: 2,
    Code.CALL_M1632: 4,
    Code.CALL_M1664: 8,
}
"""Far jumps and calls through memory: how many bytes of offset lie in front of the selector."""
_MOVS = {
    Mnemonic.MOVSB: 1,
    Mnemonic.MOVSW: 2,
    Mnemonic.MOVSD: 4,
    Mnemonic.MOVSQ: 8,
}
_STOS = {Mnemonic.STOSB: 1, Mnemonic.STOSW: 2, Mnemonic.STOSD: 4, Mnemonic.STOSQ: 8}
_INDIRECT = {FlowControl.INDIRECT_BRANCH, FlowControl.INDIRECT_CALL, FlowControl.RETURN}
_CONTROL = {Register.CR0, Register.CR2, Register.CR3, Register.CR4, Register.CR8}
_UNDEFINED = {Mnemonic.UD0, Mnemonic.UD1, Mnemonic.UD2}
_STACK = {Register.RSP, Register.ESP}
_WRITES = {OpAccess.WRITE, OpAccess.COND_WRITE, OpAccess.READ_WRITE, OpAccess.READ_COND_WRITE}
_SEGMENTS = {Register.ES, Register.CS, Register.SS, Register.DS, Register.FS, Register.GS}

_formatter = Formatter(FormatterSyntax.GAS)
_information = InstructionInfoFactory()


class Operation:
    """One decoded instruction.  `text` is AT&T syntax; `target` and `source` are register names."""

    __slots__ = (
        "_instruction",
        "_mask",
        "cut",
        "kind",
        "plain",
        "sets_state",
        "size",
        "source",
        "string_width",
        "target",
        "text",
    )

    def __init__(self, code: bytes, rip: int, bits: int = 64) -> None:
        decoder = Decoder(bits, code, ip=rip)
        self._instruction = decoder.decode()
        self.cut = decoder.last_error == DecoderError.NO_MORE_BYTES and _goes_on(code, bits)
        """There is more of it than there are bytes."""
        self._mask = (1 << bits) - 1
        self.size = len(self._instruction)
        self.text = _formatter.format(self._instruction)
        self.kind, self.target, self.source = _sort(self._instruction, bits)
        self.string_width = 0
        if self.kind is Kind.STRING:
            mnemonic = self._instruction.mnemonic
            self.string_width = _MOVS.get(mnemonic) or -_STOS[mnemonic]
        self.sets_state = self.kind in (Kind.DESCRIPTOR_TABLE, Kind.SEGMENT_LOAD, Kind.STACK)
        self.plain = self.kind is Kind.PLAIN

    @property
    def valid(self) -> bool:
        """False when the bytes are no instruction."""
        return self._instruction.code != Code.INVALID

    @property
    def goes_on(self) -> bool:
        """No jump, call or return: what follows is executed next, but for an exception."""
        return bool(self._instruction.flow_control == FlowControl.NEXT)

    @property
    def raises(self) -> int | None:
        """The vector of an exception that the instruction is there to raise: INT3, INT n, UD2."""
        it = self._instruction
        if it.mnemonic in _UNDEFINED:
            return 6
        if it.mnemonic == Mnemonic.INT:
            return it.immediate8
        return {Mnemonic.INT1: 1, Mnemonic.INT3: 3}.get(it.mnemonic)

    def memory_operand(self, read: ReadRegister) -> int | None:
        """The linear address that the operand in memory names, in flat segments; None without one.

        Also where nothing is read or written there: INVLPG only names a page.
        """
        it = self._instruction
        if all(it.op_kind(number) != OpKind.MEMORY for number in range(it.op_count)):
            return None
        base, index = it.memory_base, it.memory_index
        address = it.memory_displacement
        if base not in (Register.NONE, Register.RIP, Register.EIP):
            address += read(NAMES[base])
        if index != Register.NONE:
            address += read(NAMES[index]) * it.memory_index_scale
        return address & self._mask

    def selector_at(self, read: ReadRegister) -> int:
        """The linear address that a far return, jump or call takes its selector from."""
        if self.kind is Kind.FAR_JUMP:
            operand = self.memory_operand(read)
            assert operand is not None, "a far jump through memory has an operand there"
            return operand + _FAR_JUMPS[self._instruction.code]
        # The second thing that is popped, in the operand's size.
        return self.accesses(read)[1][0]

    def on_stack(self, read: ReadRegister) -> frozenset[int]:
        """The addresses among `accesses` that go through SS: what is wrong with one is #SS, not
        #GP."""
        out = set()
        for used in _information.info(self._instruction).used_memory():
            address = used.displacement
            if used.base != Register.NONE:
                address += read(NAMES[used.base])
            if used.index != Register.NONE:
                address += read(NAMES[used.index]) * used.scale
            if used.segment == Register.SS:
                out.add(address & self._mask)
        return frozenset(out)

    def accesses(self, read: ReadRegister) -> list[tuple[int, int, Access]]:
        """(linear address, bytes, access) of every memory access, implicit ones too."""
        out = []
        for used in _information.info(self._instruction).used_memory():
            address = used.displacement
            if used.base != Register.NONE and used.base != Register.RIP:
                address += read(NAMES[used.base])
            if used.index != Register.NONE:
                address += read(NAMES[used.index]) * used.scale
            writes = used.access in _WRITES
            size = MemorySizeExt.size(used.memory_size) or abs(self.string_width) or 1
            out.append((address & self._mask, size, Access.WRITE if writes else Access.READ))
        return out


def _goes_on(code: bytes, bits: int) -> bool:
    """Whether a byte could follow that makes an instruction of it.

    iced-x86 1.21 asks for a second byte of opcodes that are none in 64-bit code whatever follows
    (06).
    """
    return any(
        Decoder(bits, code + bytes([after]) + bytes(15)).decode().code != Code.INVALID
        for after in range(256)
    )


@lru_cache(maxsize=4096)
def decoded(code: bytes, rip: int, bits: int = 64) -> Operation:
    """The instruction that `code` (up to 15 bytes) begins with; kept, because routines are few."""
    return Operation(code, rip, bits)


def _sort(instruction: Instruction, bits: int) -> tuple[Kind, str, str]:
    """The kind, and the registers that it is about ("" where there is none)."""
    mnemonic = instruction.mnemonic
    first = instruction.op0_register if instruction.op_count > 0 else Register.NONE
    second = instruction.op1_register if instruction.op_count > 1 else Register.NONE
    if mnemonic == Mnemonic.MOV:
        if first in _CONTROL:
            return Kind.CONTROL_WRITE, NAMES[first], NAMES[second]
        if second in _CONTROL:
            return Kind.CONTROL_READ, NAMES[second], NAMES[first]
        if NAMES.get(first, "").startswith("dr"):
            return Kind.DEBUG_WRITE, NAMES[first], NAMES[second]
        if first in _STACK:
            return Kind.STACK, "rsp", ""
        if first in _SEGMENTS:
            return Kind.SEGMENT_LOAD, NAMES[first], NAMES.get(second, "none")
    if mnemonic == Mnemonic.LEA and first in _STACK:
        return Kind.STACK, "rsp", ""
    if mnemonic in _TABLES:
        return Kind.DESCRIPTOR_TABLE, _TABLES[mnemonic], ""
    if mnemonic == Mnemonic.WRMSR:
        return Kind.WRMSR, "", ""
    if mnemonic == Mnemonic.RDMSR:
        return Kind.RDMSR, "", ""
    if mnemonic == Mnemonic.INVLPG:
        return Kind.INVLPG, "", ""
    if mnemonic in _HOSTED:
        return Kind.HOSTED, "", ""
    if mnemonic == Mnemonic.HLT:
        return Kind.HALT, "", ""
    if mnemonic in _FAR:
        return Kind.FAR_RETURN, "cs", ""
    if mnemonic in _FLAGS:
        return Kind.FLAGS, "rflags", ""
    if (
        (mnemonic in _MOVS or mnemonic in _STOS)
        and (instruction.has_rep_prefix or instruction.has_repne_prefix)
        # With an address-size prefix the registers count otherwise: left to the CPU.
        and instruction.op0_kind == (OpKind.MEMORY_ESRDI if bits == 64 else OpKind.MEMORY_ESEDI)
    ):
        return Kind.STRING, "", ""
    if instruction.code in _FAR_JUMPS:
        return Kind.FAR_JUMP, "cs", ""
    if instruction.flow_control in _INDIRECT:
        return Kind.INDIRECT, "", ""
    if mnemonic == Mnemonic.JMP and instruction.near_branch_target == instruction.ip:
        return Kind.STAYS, "", ""
    return Kind.PLAIN, "", ""
