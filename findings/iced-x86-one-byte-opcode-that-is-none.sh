#!/usr/bin/env bash
# iced-x86 wants a second byte before it says that an opcode of one byte is no instruction in 64-bit code.
#
# Seen with iced-x86 1.21.0 (PyPI): the opcodes that 64-bit mode took away (06, 27, 60, 9A, EA ...).
# Guess beforehand: 06 (push %es) is invalid in 64-bit mode whatever follows, so the decoder says
# INVALID_INSTRUCTION and the length is 1, as GNU objdump has it.  It says NO_MORE_BYTES at the end of the
# bytes, and with more of them the invalid instruction is two bytes long.
#
# What it costs: at the end of a page whose neighbour is not mapped, NO_MORE_BYTES is no proof that a CPU
# would fetch on: there the CPU raises #UD, and whoever goes by the decoder tells of a page fault.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check iced-x86==1.21.0
"$work/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

from iced_x86 import Decoder, DecoderError

NONE_IN_64_BITS = bytes.fromhex("06 07 0e 16 17 1e 1f 27 2f 37 3f 60 61 82 9a ce d4 d5 d6 ea")
NAMES = {value: name for name, value in vars(DecoderError).items() if isinstance(value, int)}


def told(data: bytes) -> tuple[str, int]:
    decoder = Decoder(64, data)
    instruction = decoder.decode()
    return NAMES[decoder.last_error], instruction.len


print("iced-x86", version("iced-x86"))
alone = {byte: told(bytes([byte])) for byte in NONE_IN_64_BITS}
followed = {byte: told(bytes([byte]) + bytes(14)) for byte in NONE_IN_64_BITS}
for byte in NONE_IN_64_BITS:
    print(f"{byte:02x} alone: {alone[byte]}  with 14 more: {followed[byte]}")
hlt = told(b"\xf4")
print(f"f4 (hlt) alone: {hlt}")
sys.exit(
    not (
        {error for error, _ in alone.values()} == {"NO_MORE_BYTES"}
        and set(followed.values()) == {("INVALID_INSTRUCTION", 2)}
        and hlt == ("NONE", 1)
    )
)
PYTHON
