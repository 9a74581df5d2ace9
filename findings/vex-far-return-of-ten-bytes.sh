#!/usr/bin/env bash
# In angr's VEX a 64-bit far return takes ten bytes off the stack, CR3 is moved with 32 bits, and SWAPGS is nothing.
#
# Guess before it was tried: VEX comes from Valgrind and knows user mode; what only a kernel executes (IRETQ, LRETQ,
# SWAPGS, MOV of a control register) is Ijk_NoDecode, an error that a symbolic execution stops at.
# Seen with pyvex 9.2.213: WRMSR, INVLPG, LGDT, LTR, CLAC and far jumps are NoDecode, as guessed.  48 CB (LRETQ) loads RIP
# with 8 bytes and CS with the next two, and RSP is moved by 10, where a processor pops two words of 8 (SDM volume 2, RET);
# CB, the one of 32 bits, is the same.  0F 22 D8 puts the low 32 bits of RAX into CR3, 0F 20 D8 those of CR3 into RAX.
# 0F 01 F8 is one instruction without a statement.  The same with pyvex 10.0.5, which wants CPython 3.12 (2026-11-30).
#
# What it costs: behind the `push $cs; push; lretq` that a kernel and a purgatory change CS with, the stack is off by six;
# tables above 4 GiB never get into CR3; per-CPU data is read at the user's GS.  The path goes on, without an error.
#
# Needs: python3 with venv and pip; half a minute.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
# bitstring is what pyvex asks for in any version; with 5.0.0, the newest, `import pyvex` fails.
env/bin/pip install -q --disable-pip-version-check pyvex==9.2.213 archinfo==9.2.213 bitstring==4.2.3 2>errors \
    || { cat errors; exit 1; }
env/bin/python - <<'PY'
from importlib.metadata import version

import archinfo
import pyvex

ARCH = archinfo.ArchAMD64()
RAX, RSP, RIP = (ARCH.registers[each][0] for each in ("rax", "rsp", "rip"))


def lifted(code):
    return pyvex.lift(bytes.fromhex(code), 0x1000, ARCH, max_inst=1, opt_level=0)


def run(code, registers, memory):
    """What VEX's statements make of these registers (by offset); memory is words by address and size."""
    registers, temporaries = dict(registers), {}

    def value(it):
        if isinstance(it, pyvex.expr.Const):
            return it.con.value
        if isinstance(it, pyvex.expr.RdTmp):
            return temporaries[it.tmp]
        if isinstance(it, pyvex.expr.Get):
            return registers[it.offset]
        if isinstance(it, pyvex.expr.Load):
            return memory[value(it.addr), it.result_size(block.tyenv) // 8]
        arguments = [value(each) for each in it.args]
        return {
            "Iop_Add64": lambda a, b: (a + b) % 2**64,
            "Iop_Sub64": lambda a, b: (a - b) % 2**64,
            "Iop_64to32": lambda a: a % 2**32,
            "Iop_32Uto64": lambda a: a,
        }[it.op](*arguments)

    block = lifted(code)
    for each in block.statements:
        if isinstance(each, pyvex.stmt.WrTmp):
            temporaries[each.tmp] = value(each.data)
        elif isinstance(each, pyvex.stmt.Put):
            registers[each.offset] = value(each.data)
    return registers, value(block.next)


def far_return(code):
    """Where a far return goes and how far it moves the stack."""
    registers, to = run(code, {RSP: 0x8000}, {(0x8000, 8): 0x1122334455667788, (0x8008, 2): 0x10})
    return hex(to), registers[RSP] - 0x8000


print("pyvex", version("pyvex"))
seen = {}
for name, code in (("LRETQ", "48cb"), ("LRET of 32 bits", "cb")):
    seen[name] = far_return(code)
    print(f"{name}: goes to and frees:", *seen[name])
(cr3,) = [each.offset for each in lifted("0f22d8").statements if isinstance(each, pyvex.stmt.Put) and each.offset != RIP]
page = 0x1_2345_6000
seen["to CR3"] = hex(run("0f22d8", {RAX: page, RIP: 0x1003}, {})[0][cr3])
seen["from CR3"] = hex(run("0f20d8", {cr3: page, RIP: 0x1003}, {})[0][RAX])
print(f"MOV of {page:#x} to CR3: {seen['to CR3']}, from CR3: {seen['from CR3']}")
swapgs = lifted("0f01f8")
seen["SWAPGS"] = swapgs.jumpkind, [type(each).__name__ for each in swapgs.statements]
print("SWAPGS:", *seen["SWAPGS"])
undecoded = {"WRMSR": "0f30", "INVLPG": "0f0138", "LGDT": "0f0117", "LTR": "0f00d8", "CLAC": "0f01ca", "LJMP": "48ff28"}
seen["none"] = [name for name, code in undecoded.items() if lifted(code).jumpkind == "Ijk_NoDecode"]
print("NoDecode:", *seen["none"])
assert seen["LRETQ"] == seen["LRET of 32 bits"] == ("0x1122334455667788", 10)
assert seen["to CR3"] == seen["from CR3"] == "0x23456000"
assert seen["SWAPGS"] == ("Ijk_Boring", ["IMark"])
assert seen["none"] == list(undecoded)
print("as seen")
PY
