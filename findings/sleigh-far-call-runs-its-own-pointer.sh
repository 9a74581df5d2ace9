#!/usr/bin/env bash
# Ghidra's x86-64, as pypcode and icicle-emu have it, goes with a far call to the place where the far pointer lies, and a
# far jump leaves CS as it was.
#
# Guess before it was tried: RETFQ is right there, so the other far transfers are: `lcall *(%rax)` and `ljmp *(%rax)`
# read an offset and a selector at RAX and load RIP and CS with them (SDM volume 2, CALL and JMP: FF /3 and FF /5, m16:64
# with REX.W); RETF of 32 bits (CB) pops two words of four bytes.
# Seen with pypcode 3.3.3 (the p-code) and icicle-emu 0.0.11, which runs it: the call goes to RAX itself, with REX.W and
# without, and pushes its return address; the jump reads RIP and never CS.  CB is right in icicle-emu; in pypcode it
# moves the stack by 8 for EIP and by 4 for CS.  Unicorn 2.1.4 does all as the manual has them.  The p-code is the same
# with pypcode 4.1.0, which wants a newer CPython (2026-11-30).
#
# What it costs: far transfers are how a purgatory and a kernel's first code change CS.  Run or lifted with this, such
# code goes on in the bytes of its own pointer, or with the CS from before: what is said of the code behind it is of
# another machine.
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

CODE, GDT, POINTER, STACK, TARGET = 0x1000, 0x4000, 0x5000, 0x8000, 0x1100
CS, NEW_CS, SS = 8, 24, 16
CASES = {  # the instruction, what lies at RAX, what lies on the stack
    "lcall *m16:64": ("48ff18", struct.pack("<QH", TARGET, NEW_CS), b""),
    "lcall *m16:32": ("ff18", struct.pack("<IH", TARGET, NEW_CS), b""),
    "ljmp *m16:64": ("48ff28", struct.pack("<QH", TARGET, NEW_CS), b""),
    "ljmp *m16:32": ("ff28", struct.pack("<IH", TARGET, NEW_CS), b""),
    "lret (32 bits)": ("cb", b"", struct.pack("<II", TARGET, NEW_CS)),
    "lretq": ("48cb", b"", struct.pack("<QQ", TARGET, NEW_CS)),
}


def in_icicle(code, pointer, stack):
    machine = icicle.Icicle("x86_64", jit=False)
    machine.mem_map(CODE, 0x1000, icicle.MemoryProtection.ExecuteRead)
    machine.mem_map(POINTER, 0x1000, icicle.MemoryProtection.ExecuteRead)
    machine.mem_map(STACK - 0x1000, 0x2000, icicle.MemoryProtection.ReadWrite)
    machine.mem_write(CODE, code)
    machine.mem_write(POINTER, pointer)
    machine.mem_write(STACK, stack)
    for name, value in (("rip", CODE), ("rsp", STACK), ("rax", POINTER), ("cs", CS)):
        machine.reg_write(name, value)
    machine.step(1)
    return tuple(machine.reg_read(name) for name in ("rip", "cs", "rsp"))


def in_unicorn(code, pointer, stack):
    machine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    machine.mem_map(0, 0x10000)
    for address, data in ((CODE, code), (POINTER, pointer), (STACK, stack)):
        machine.mem_write(address, data)
    code64, data = 0x00AF9B000000FFFF, 0x00CF93000000FFFF
    machine.mem_write(GDT, struct.pack("<4Q", 0, code64, data, code64))
    machine.reg_write(x86.UC_X86_REG_GDTR, (0, GDT, 31, 0))
    machine.reg_write(x86.UC_X86_REG_SS, SS)
    machine.reg_write(x86.UC_X86_REG_CS, CS)
    machine.reg_write(x86.UC_X86_REG_RSP, STACK)
    machine.reg_write(x86.UC_X86_REG_RAX, POINTER)
    machine.emu_start(CODE, TARGET, count=1)
    return tuple(machine.reg_read(each) for each in (x86.UC_X86_REG_RIP, x86.UC_X86_REG_CS, x86.UC_X86_REG_RSP))


def pcode(code):
    """Of the p-code of one instruction: whether it writes CS, and how many bytes it takes off the stack."""
    ops = pypcode.Context("x86:LE:64:default").translate(code, CODE, max_instructions=1).ops
    written = [(op.output.getRegisterName(), op) for op in ops if op.output is not None]
    moved = [op.inputs[1].offset for name, op in written if name in ("RSP", "ESP") and op.opcode == pypcode.OpCode.INT_ADD]
    return "CS" in [name for name, _ in written], sum(moved)


print(*(f"{each} {version(each)}" for each in ("pypcode", "icicle-emu", "unicorn")))
seen = {}
for name, (code, pointer, stack) in CASES.items():
    each = bytes.fromhex(code), pointer, stack
    seen[name] = in_icicle(*each), in_unicorn(*each), pcode(each[0])
    print(f"{name:15} rip, cs, rsp in icicle:", *map(hex, seen[name][0]), " in unicorn:", *map(hex, seen[name][1]),
          " p-code: CS written, stack freed:", *seen[name][2])
for bits, word in ((64, 8), (32, 4)):
    call, jump = f"lcall *m16:{bits}", f"ljmp *m16:{bits}"
    pushed = STACK - 2 * word
    assert seen[call] == ((POINTER, CS, pushed), (TARGET, NEW_CS, pushed), (False, 0)), seen[call]
    assert seen[jump] == ((TARGET, CS, STACK), (TARGET, NEW_CS, STACK), (False, 0)), seen[jump]
for name, freed, in_pcode in (("lret (32 bits)", 8, 12), ("lretq", 16, 16)):
    right = TARGET, NEW_CS, STACK + freed
    assert seen[name] == (right, right, (True, in_pcode)), seen[name]
print("as seen")
PY
