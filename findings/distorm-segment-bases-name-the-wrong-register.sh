#!/usr/bin/env bash
# diStorm names the register of RDFSBASE, RDGSBASE, WRFSBASE and WRGSBASE by the digit that tells them apart: always RAX,
# RCX, RDX and RBX.
#
# Guess before it was tried: F3 0F AE /0 to /3 (SDM volume 2, RDFSBASE) has the register in ModRM.r/m, as the other
# instructions of group 15 have their operand, with REX.B for R8 to R15; what is too new for it is DB.
# Seen with distorm3s 3.5.5 (of 2026; distorm3 3.5.2 as well): /0 is RAX, /1 RCX, /2 RDX and /3 RBX whatever r/m and
# REX.B are: `wrgsbase %r8` is WRGSBASE RBX, in the text and in the decoded operands.  Of the 64 four are right, by
# chance.  iced-x86 1.21.0 has all of them.  ENDBR64 and RDPID are DB, as guessed.
#
# What it costs: Linux reads and writes the bases of FS and GS with these where it enters and switches; whoever follows
# the base of per-CPU data through a listing, or through the decoded operands, follows the wrong register.
#
# Needs: python3 with venv and pip, a C compiler (distorm3s has no wheels); half a minute.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check distorm3s==3.5.5 iced-x86==1.21.0 2>errors || { cat errors; exit 1; }
env/bin/python - <<'PY'
from importlib.metadata import version

import distorm3
import iced_x86

NAMES = ("RDFSBASE", "RDGSBASE", "WRFSBASE", "WRGSBASE")
REGISTERS = ("RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", *(f"R{each}" for each in range(8, 16)))
formatter = iced_x86.Formatter(iced_x86.FormatterSyntax.INTEL)
print("distorm3s", version("distorm3s"), "iced-x86", version("iced-x86"))
right = 0
for digit, name in enumerate(NAMES):
    seen = set()
    for number, register in enumerate(REGISTERS):
        code = bytes((0xF3, 0x48 | number >> 3, 0x0F, 0xAE, 0xC0 | digit << 3 | number & 7))
        assert formatter.format(iced_x86.Decoder(64, code).decode()) == f"{name} {register}".lower()
        ((_, size, text, _),) = distorm3.Decode(0, code, distorm3.Decode64Bits)
        (operand,) = distorm3.Decompose(0, code, distorm3.Decode64Bits)[0].operands
        assert (size, text) == (5, f"{name} {operand.name}")
        seen.add(operand.name)
        right += operand.name == register
    print(f"/{digit} {name} of sixteen registers:", *seen)
    assert seen == {REGISTERS[digit]}
print("right:", right)
assert right == 4
for name, code in (("ENDBR64", "f30f1efa"), ("RDPID", "f30fc7f8")):
    first = distorm3.Decode(0, bytes.fromhex(code), distorm3.Decode64Bits)[0][2]
    print(name, "begins as", first)
    assert first == "DB 0xf3"
print("as seen")
PY
