#!/usr/bin/env bash
# Ghidra's x86-64, as pypcode and icicle-emu have it, takes three words off the stack for IRETQ; a processor takes five.
#
# Guess before it was tried: in 64-bit mode IRETQ loads RIP, CS, RFLAGS, RSP and SS, also where the privilege level stays
# (SDM volume 2, IRET: "IRET pops SS:RSP unconditionally only in 64-bit mode").
# Seen with pypcode 3.3.3 (the p-code of 48 CF) and icicle-emu 0.0.11, which runs it: RIP and CS, then the flags; RSP is
# moved on by 24 and the words for RSP and SS stay where they are.  pypcode 4.1.0 still says so in its ia.sinc.
# RETFQ is right, with two words; unicorn 2.1.4 has the stack that the frame names.
#
# What it costs: code behind an IRETQ runs on the wrong stack, and what a symbolic execution says of it (a kernel's entry
# code, a purgatory that changes CS with IRETQ) is of another machine; nothing faults where both stacks are mapped.
#
# Needs: python3 with venv and pip; half a minute.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check pypcode==3.3.3 icicle-emu==0.0.11 unicorn==2.1.4
env/bin/python - <<'PY'
import struct
from importlib.metadata import version

import icicle
import pypcode
import unicorn
from unicorn import x86_const as x86

CODE, STACK, GDT, BEHIND, NEW = 0x1000, 0x8000, 0x4000, 0x1100, 0x9000
IRETQ, RETFQ = bytes.fromhex("48cf"), bytes.fromhex("48cb")
FRAME = struct.pack("<5Q", BEHIND, 8, 2, NEW, 16)


def popped(code):
    """How far the p-code of one instruction moves RSP, as a sum of its additions."""
    ops = pypcode.Context("x86:LE:64:default").translate(code).ops
    moved = [op for op in ops if op.output is not None and op.output.getRegisterName() == "RSP"]
    assert all(op.opcode == pypcode.OpCode.INT_ADD for op in moved)
    return sum(op.inputs[1].offset for op in moved)


def in_icicle(code):
    machine = icicle.Icicle("x86_64", jit=False)
    machine.mem_map(CODE, 0x1000, icicle.MemoryProtection.ExecuteRead)
    machine.mem_map(STACK, 0x2000, icicle.MemoryProtection.ReadWrite)
    machine.mem_write(CODE, code)
    machine.mem_write(STACK, FRAME)
    machine.reg_write("rip", CODE)
    machine.reg_write("rsp", STACK)
    machine.step(1)
    return machine.reg_read("rip"), machine.reg_read("rsp")


def in_unicorn(code):
    machine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    machine.mem_map(0, 0x10000)
    machine.mem_write(CODE, code)
    machine.mem_write(STACK, FRAME)
    machine.mem_write(GDT, struct.pack("<3Q", 0, 0x00AF9A000000FFFF, 0x00CF92000000FFFF))
    machine.reg_write(x86.UC_X86_REG_GDTR, (0, GDT, 23, 0))
    machine.reg_write(x86.UC_X86_REG_SS, 16)
    machine.reg_write(x86.UC_X86_REG_CS, 8)
    machine.reg_write(x86.UC_X86_REG_RSP, STACK)
    machine.emu_start(CODE, BEHIND, count=1)
    return machine.reg_read(x86.UC_X86_REG_RIP), machine.reg_read(x86.UC_X86_REG_RSP)


print(*(f"{each} {version(each)}" for each in ("pypcode", "icicle-emu", "unicorn")))
for name, code, words in (("IRETQ", IRETQ, 3), ("RETFQ", RETFQ, 2)):
    print(name, "p-code moves RSP by", popped(code), "icicle: rip, rsp", *map(hex, in_icicle(code)))
    assert popped(code) == 8 * words
    assert in_icicle(code) == (BEHIND, STACK + 8 * words)
print("IRETQ in unicorn: rip, rsp", *map(hex, in_unicorn(IRETQ)))
assert in_unicorn(IRETQ) == (BEHIND, NEW)
print("as seen")
PY
