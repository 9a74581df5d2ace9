#!/usr/bin/env bash
# In 64-bit code miasm moves 32 bits to and from CR3, takes CR8 for CR0, and lets WRGSBASE write its own operand.
#
# Guess before it was tried: CLAC and INVPCID are too new for it, and are an error ("cannot disasm"); what an x86-64 kernel
# had from its beginning (MOV to CR3 and CR8, SWAPGS) is right; MOV of a control register has 64 bits whatever REX.W is,
# and CR8 is REX.R with the number 0 (SDM volume 2, MOV to and from control registers).
# Seen with miasm 0.1.5, the newest: CLAC and INVPCID are errors, as guessed.  0F 22 D8 is `MOV CR3, EAX`, 0F 20 D8
# `MOV EAX, CR3`, and so the lifted expressions: its cr3 is a register of 32 bits.  44 0F 22 C0 is `MOV CR0, EAX`; with
# REX.W, which changes nothing on a CPU, the lifter raises an error.  SWAPGS is `INVLPG EAX`.  F3 0F AE /3 with a
# register, WRGSBASE, is `REP STMXCSR` of that register, and lifts to RBX = 0x1FA0; WRFSBASE to nothing.
#
# What it costs: tables above 4 GiB are lost on the way into CR3 and a CR3 that is saved and put back is another; a write of
# the task priority switches paging off; code that sets the per-CPU base has a constant in a register behind it.
#
# Needs: python3 with venv and pip; seconds.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check miasm==0.1.5 iced-x86==1.21.0 2>errors || { cat errors; exit 1; }
env/bin/python - <<'PY'
from importlib.metadata import version

import iced_x86
from miasm.analysis.machine import Machine
from miasm.arch.x86.regs import cr3
from miasm.core.locationdb import LocationDB

SEEN = {  # the bytes; what iced-x86 calls them; what miasm does, and what it lifts them to
    "0f22d8": ("mov cr3,rax", "MOV CR3, EAX", ["CR3 = EAX"]),
    "0f20d8": ("mov rax,cr3", "MOV EAX, CR3", ["EAX = CR3"]),
    "440f22c0": ("mov cr8,rax", "MOV CR0, EAX", ["CR0 = EAX"]),
    "440f20c0": ("mov rax,cr8", "MOV EAX, CR0", ["EAX = CR0"]),
    "0f22e0": ("mov cr4,rax", "MOV CR4, EAX", ["CR4 = EAX"]),
    "480f22d8": ("mov cr3,rax", "MOV CR3, RAX", "ValueError"),
    "0f01f8": ("swapgs", "INVLPG EAX", "NotImplementedError"),
    "f3480faedb": ("wrgsbase rbx", "REP STMXCSR RBX", ["RBX = 0x1FA0"]),
    "f3480faed3": ("wrfsbase rbx", "REP LDMXCSR RBX", []),
    "0f01ca": ("clac", "Disasm_Exception", None),
    "660f388200": ("invpcid rax,[rax]", "Disasm_Exception", None),
}
machine, places = Machine("x86_64"), LocationDB()
lifter, formatter = machine.lifter_model_call(places), iced_x86.Formatter(iced_x86.FormatterSyntax.INTEL)


def in_miasm(code):
    """The instruction's name, and its expressions or the error that stands for them."""
    try:
        instruction = machine.mn.dis(code, 64)
    except Exception as error:
        return type(error).__name__, None
    instruction.offset = 0
    name = " ".join(str(instruction).split())
    try:
        return name, [str(each) for each in lifter.get_ir(instruction)[0]]
    except Exception as error:
        return name, type(error).__name__


print("miasm", version("miasm"), "iced-x86", version("iced-x86"), "- bits of cr3 in miasm:", cr3.size)
differs = cr3.size != 32
for code, wanted in SEEN.items():
    data = bytes.fromhex(code)
    got = formatter.format(iced_x86.Decoder(64, data).decode()), *in_miasm(data)
    print(f"{code:11} {got[0]:18} in miasm: {got[1]:16} {got[2]}", "" if got == wanted else f"  was: {wanted}")
    differs |= got != wanted
raise SystemExit(differs or print("as seen"))
PY
