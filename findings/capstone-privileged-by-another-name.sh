#!/usr/bin/env bash
# capstone gives newer privileged instructions the name of an older one that differs by the prefix alone.
#
# Guess before it was tried: an instruction that the decoder does not know is none: disassembly stops there, as it
# does for LKGS (F2 0F 00 /6), and skipdata says ".byte".
# Seen with capstone 5.0.9 (64-bit): the prefix is dropped where the opcode without it is known.  ERETS and ERETU
# (FRED's returns from an event) are `clac`, SEAMCALL (into the TDX module) `encls`, VMGEXIT (out of an SEV-ES
# guest) `vmmcall`, CLUI `rdpkru`, MCOMMIT `monitorx`.  iced-x86 1.21.0 has all of them right.  The same with capstone 6.0.0
# (capstone6pwndbg 8.0.0, 2026-11-30).
#
# What it costs: a kernel's way back to user space reads as one harmless instruction on flags, after which the
# disassembly runs on into what is never executed; a check for "calls the hypervisor" counts both as one.
#
# Needs: python3 with venv and pip; seconds.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check capstone==5.0.9 iced-x86==1.21.0
env/bin/python - <<'PY'
from importlib.metadata import version

import capstone
import iced_x86

WRITTEN = (  # what the manuals call it, its bytes, what capstone calls it
    ("erets", "f20f01ca", "clac"),
    ("eretu", "f30f01ca", "clac"),
    ("seamcall", "660f01cf", "encls"),
    ("vmgexit", "f20f01d9", "vmmcall"),
    ("clui", "f30f01ee", "rdpkru"),
    ("mcommit", "f30f01fa", "monitorx"),
    ("lkgs", "f20f00f0", "none"),
    ("setssbsy", "f30f01e8", "setssbsy"),
)
decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
formatter = iced_x86.Formatter(iced_x86.FormatterSyntax.GAS)
print("capstone", version("capstone"), "iced-x86", version("iced-x86"))
for name, code, said in WRITTEN:
    data = bytes.fromhex(code)
    seen = [(each.mnemonic.strip(), each.size) for each in decoder.disasm(data, 0)]
    iced = formatter.format(iced_x86.Decoder(64, data).decode()).split()[0]
    print(f"{name:9} {code}  capstone: {seen}  iced-x86: {iced}")
    assert seen == ([] if said == "none" else [(said, 4)]), (name, seen)
    assert iced == name
print("as seen")
PY
