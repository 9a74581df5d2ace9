#!/usr/bin/env bash
# Unicorn runs ERETS and ERETU, FRED's returns from an event, as CLAC, and goes on behind them.
#
# Guess before it was tried: an instruction that the emulated CPU has not (FRED is newer than any model that unicorn
# knows) is UC_ERR_INSN_INVALID, as LKGS, WRMSRNS and SEAMCALL are, which are as new.
# Seen with unicorn 2.1.4, model ICELAKE_SERVER, 64-bit mode: F2 0F 01 CA and F3 0F 01 CA clear EFLAGS.AC, and the
# next instruction is run; the prefix is not looked at.  A CPU without FRED raises #UD for both, one with it and
# CR4.FRED = 1 loads RIP, CS, RFLAGS and RSP from the stack (the SDM's chapter on FRED; CLAC is "NP 0F 01 CA").
#
# What it costs: a kernel's way out of an event is run through, and what stands behind it (padding, the next function)
# as well, without an error; a test that "the old kernel never returns" passes for the wrong reason.
#
# Needs: python3 with venv and pip; seconds.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check unicorn==2.1.4
env/bin/python - <<'PY'
from importlib.metadata import version

from unicorn import UC_ARCH_X86, UC_MODE_64, Uc, UcError
from unicorn.x86_const import (
    UC_CPU_X86_ICELAKE_SERVER,
    UC_X86_REG_CR4,
    UC_X86_REG_EFLAGS,
    UC_X86_REG_RAX,
    UC_X86_REG_RIP,
    UC_X86_REG_RSP,
)

CODE, AC, SMAP = 0x1000, 1 << 18, 1 << 21


def run(code):
    """What emu_start says, EFLAGS.AC, and whether the `mov $0x77, %al` behind the code has been run."""
    machine = Uc(UC_ARCH_X86, UC_MODE_64)
    machine.ctl_set_cpu_model(UC_CPU_X86_ICELAKE_SERVER)
    machine.mem_map(CODE, 0x4000)
    data = bytes.fromhex(code)
    machine.mem_write(CODE, data + b"\xb0\x77")
    machine.reg_write(UC_X86_REG_RSP, CODE + 0x3000)
    machine.reg_write(UC_X86_REG_RAX, 0)
    machine.reg_write(UC_X86_REG_CR4, machine.reg_read(UC_X86_REG_CR4) | SMAP)
    machine.reg_write(UC_X86_REG_EFLAGS, 2 | AC)
    try:
        machine.emu_start(CODE, CODE + len(data) + 2)
        said = "ok"
    except UcError as error:
        said = str(error)
    assert said != "ok" or machine.reg_read(UC_X86_REG_RIP) == CODE + len(data) + 2
    return said, bool(machine.reg_read(UC_X86_REG_EFLAGS) & AC), machine.reg_read(UC_X86_REG_RAX) == 0x77


cases = {
    "CLAC": "0f01ca",
    "ERETS": "f20f01ca",
    "ERETU": "f30f01ca",
    "LKGS": "f20f00f0",
    "WRMSRNS": "0f01c6",
    "SEAMCALL": "660f01cf",
}
seen = {name: run(code) for name, code in cases.items()}
print("unicorn", version("unicorn"))
for name, each in seen.items():
    print(f"{name:9} {cases[name]:9}", *each)
assert seen["CLAC"] == seen["ERETS"] == seen["ERETU"] == ("ok", False, True)
for name in ("LKGS", "WRMSRNS", "SEAMCALL"):
    assert seen[name] == ("Invalid instruction (UC_ERR_INSN_INVALID)", True, False), name
print("as seen")
PY
