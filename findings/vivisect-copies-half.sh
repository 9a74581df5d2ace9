#!/usr/bin/env bash
# vivisect's 64-bit emulator copies half of what REP MOVSQ copies, and does not extend the sign of an immediate.
#
# Guess before it was tried: old instructions of the ring that all code runs in are right, as in other emulators: MOVSQ moves
# eight bytes, an immediate of 32 bits is sign-extended to 64 (SDM volume 2, MOV: REX.W C7 /0); RETFQ and IRETQ are not there.
# Seen with vivisect 1.3.2 (envi.archs.amd64): MOVSQ and LODSQ move four bytes and add 4 to RSI and RDI, with REP as often as RCX
# says, so that half is copied; STOSQ is right.  `mov $-1, %rax` gives 0xffffffff, `and $-4096, %rax` clears the upper half,
# CDQE and CQO give 0 for a negative number, BSWAP of RAX loses four bytes.  Nothing is said.  RETFQ and IRETQ are
# UnsupportedInstruction, as guessed.  Unicorn 2.1.4 is right on each.
#
# What it costs: a purgatory and Linux's relocate_kernel copy pages with REP MOVSQ and round addresses with AND: emulated
# here, the second half of each page is what was there before, and an address in the kernel's half is one below 4 GiB.
#
# Needs: python3 with venv and pip; a minute.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check vivisect==1.3.2 unicorn==2.1.4 2>errors || { cat errors; exit 1; }
env/bin/python - <<'PY'
from importlib.metadata import version

import envi
import envi.archs.amd64
import unicorn
from unicorn import x86_const

CODE, DATA, TO = 0x1000, 0x8000, 0x8800
BYTES = bytes(range(1, 65))
CASES = {  # the bytes; registers beforehand; the register that is looked at; what vivisect has, and a processor
    "rep movsq": ("f348a5", {"rcx": 4, "rsi": DATA, "rdi": TO}, "rdi", TO + 16, TO + 32),
    "movsq": ("48a5", {"rsi": DATA, "rdi": TO}, "rsi", DATA + 4, DATA + 8),
    "lodsq": ("48ad", {"rsi": DATA}, "rax", 0x04030201, 0x0807060504030201),
    "rep stosq": ("f348ab", {"rcx": 4, "rdi": TO}, "rdi", TO + 32, TO + 32),
    "mov $-1, %rax": ("48c7c0ffffffff", {}, "rax", 0xFFFFFFFF, 2**64 - 1),
    "and $-4096, %rax": ("482500f0ffff", {"rax": 0x1_2345_6789}, "rax", 0x23456000, 0x1_2345_6000),
    "cltq (CDQE)": ("4898", {"rax": 0x80000000}, "rax", 0, 0xFFFFFFFF80000000),
    "cqto (CQO)": ("4899", {"rax": 2**63}, "rdx", 0, 2**64 - 1),
    "bswap %rax": ("480fc8", {"rax": 0x1122334455667788}, "rax", 0x88776655, 0x8877665544332211),
}


def in_vivisect(code, registers):
    machine = envi.archs.amd64.Amd64Emulator()
    machine.addMemoryMap(CODE, 7, "code", code.ljust(0x1000, b"\x90"))
    machine.addMemoryMap(DATA, 7, "data", BYTES.ljust(0x1000, b"\xcc"))
    for name, value in registers.items():
        machine.setRegisterByName(name, value)
    machine.setProgramCounter(CODE)
    machine.stepi()
    return machine.getRegisterByName, machine.readMemory(TO, 40)


def in_unicorn(code, registers):
    def number(name):
        return getattr(x86_const, f"UC_X86_REG_{name.upper()}")

    machine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    machine.mem_map(0, 0x10000)
    machine.mem_write(CODE, code.ljust(0x1000, b"\x90"))
    machine.mem_write(DATA, BYTES.ljust(0x1000, b"\xcc"))
    for name, value in registers.items():
        machine.reg_write(number(name), value)
    machine.emu_start(CODE, CODE + len(code))
    return (lambda name: machine.reg_read(number(name))), bytes(machine.mem_read(TO, 40))


print("vivisect", version("vivisect"), "unicorn", version("unicorn"))
differs = False
for name, (code, registers, wanted, here, there) in CASES.items():
    (mine, memory), (theirs, right) = in_vivisect(bytes.fromhex(code), registers), in_unicorn(bytes.fromhex(code), registers)
    got = mine(wanted), theirs(wanted)
    print(f"{name}: {wanted} is {got[0]:#x}, a processor's {got[1]:#x}", "" if got == (here, there) else "  changed")
    differs |= got != (here, there)
    if name == "rep movsq":
        copied = [sum(each != 0xCC for each in data) for data in (memory, right)]
        print("  bytes copied:", *copied)
        differs |= copied != [16, 32]
for name, code in (("RETFQ", "48cb"), ("IRETQ", "48cf")):
    try:
        in_vivisect(bytes.fromhex(code), {"rsp": DATA})
        differs = True
    except envi.UnsupportedInstruction:
        print(name, "is UnsupportedInstruction")
raise SystemExit(differs or print("as seen"))
PY
