#!/usr/bin/env bash
# capstone takes UD1 and UD0 for two bytes, and what follows for the next instruction.
#
# Guess before it was tried: `ud1 -3(%eax),%ecx` is one instruction with a ModRM byte and what that asks for, as the
# SDM has it (volume 2, UD: 0F B9 /r), and as GNU as and clang write it.
# Seen with capstone 5.0.9: 67 0F B9 48 FD is `ud1` of three bytes, then `std` with a REX prefix; UD0 (0F FF /r) the
# same.  iced-x86 1.21.0 and GNU objdump take the whole.  The same with capstone 6.0.0 (capstone6pwndbg 8.0.0, 2026-11-30).
#
# What it costs: Linux with UBSAN_TRAP keeps what went wrong in that operand; a listing of such a function has `std`
# and the like in it that no CPU executes, and may be out of step for some instructions.  Who goes on behind the trap by
# that length goes on in the middle of it.
#
# Needs: python3 with venv and pip, GNU as and objcopy; seconds.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check capstone==5.0.9 iced-x86==1.21.0
printf 'ud1 -3(%%eax), %%ecx\nret\n' > trap.s
as --64 -o trap.o trap.s
objdump -d trap.o | grep -- 'ud1 *-0x3(%eax),%ecx'
objcopy -O binary -j .text trap.o trap.bin
env/bin/python - <<'PY'
from importlib.metadata import version

import capstone
import iced_x86

code = open("trap.bin", "rb").read()
decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
seen = [(each.mnemonic.strip(), each.size) for each in decoder.disasm(code, 0)]
formatter = iced_x86.Formatter(iced_x86.FormatterSyntax.GAS)
iced = [(formatter.format(each), each.len) for each in iced_x86.Decoder(64, code)]
print("capstone", version("capstone"), "iced-x86", version("iced-x86"), "GNU as wrote", code.hex(" "))
print("capstone:", seen)
print("iced-x86:", iced)
assert seen == [("ud1", 3), ("std", 2), ("ret", 1)], seen
assert [size for _, size in iced] == [5, 1], iced
print("as seen")
PY
