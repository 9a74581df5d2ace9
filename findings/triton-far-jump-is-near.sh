#!/usr/bin/env bash
# Triton runs a far jump and a far call of six bytes as near ones of eight, and says that there was no fault.
#
# Guess before it was tried: of the instructions that a kernel's entry has, Triton knows few; what it does not know,
# lretq, iretq and the far jump with its pointer in memory, is FAULT_UD, so that who steps with it sees where it ends.
# Seen with triton-library 1.0.0rc4: that holds for lretq, iretq, lgdt and for the far jump with REX.W (48 ff /5) or
# 66.  Without a prefix, which in 64-bit mode is the m16:32 form (Intel SDM, JMP: offset of 32 bits, then the selector),
# eight bytes are read and all are the new rip: selector and what lies behind it are its upper half.  cs stays.  ff /3
# pushes 8 bytes, one address, where the CPU pushes cs and eip in 8.  Both are NO_FAULT; the text is "jmp ptr [rax]", of
# the other "ljmp [rax]".
#
# What it costs: a symbolic walk of a boot path goes on at an address that nothing jumps to, and the change of the code
# segment, 64-bit code to compatibility mode, is not seen.
#
# Needs: python3 with venv and pip; half a minute.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check triton-library==1.0.0rc4 2>errors || { cat errors; exit 1; }
env/bin/python - <<'PY'
from importlib.metadata import version

from triton import ARCH, EXCEPTION, Instruction, MemoryAccess, TritonContext

print("triton-library", version("triton-library"))
NAMES = {EXCEPTION.NO_FAULT: "NO_FAULT", EXCEPTION.FAULT_UD: "FAULT_UD"}
POINTER = (0x200000).to_bytes(4, "little") + (0x10).to_bytes(2, "little") + b"\xaa\xbb"


def run(code):
    """What Triton says of one instruction at 0x1000, with rax at the pointer: its verdict, its text, and the state after it."""
    context = TritonContext(ARCH.X86_64)
    registers = context.registers
    for register, value in ((registers.rax, 0x2000), (registers.rsp, 0x8000), (registers.cs, 0x33)):
        context.setConcreteRegisterValue(register, value)
    context.setConcreteMemoryAreaValue(0x2000, POINTER)
    instruction = Instruction(0x1000, bytes.fromhex(code))
    said = NAMES[context.processing(instruction)]
    rip, rsp, cs = (context.getConcreteRegisterValue(each) for each in (registers.rip, registers.rsp, registers.cs))
    pushed = context.getConcreteMemoryValue(MemoryAccess(0x7FF8, 8))
    print(f"{code:7} {instruction.getDisassembly():15} {said:9} rip {rip:#x} rsp {rsp:#x} cs {cs:#x} pushed {pushed:#x}")
    return said, rip, rsp, cs, pushed


for unknown in ("48cb", "48cf", "0f0110", "48ff28", "48ff18", "66ff28"):
    assert run(unknown)[0] == "FAULT_UD", unknown
# The CPU would be at 0x200000 with cs 0x10, and the call would leave 0x33 and 0x1002 in two halves of the pushed eight.
assert run("ff28") == ("NO_FAULT", 0xBBAA001000200000, 0x8000, 0x33, 0)
assert run("ff18") == ("NO_FAULT", 0xBBAA001000200000, 0x7FF8, 0x33, 0x1002)
print("as seen")
PY
