#!/usr/bin/env bash
# capstone's group "privilege" has WRMSR and not RDMSR, XRSTORS and not XSAVES; it has IRETQ and RDTSCP, that any code may run.
#
# Guess before it was tried: CS_GRP_PRIVILEGE is what raises #GP outside of CPL 0 (SDM volume 3, "Privileged
# Instructions"), for each instruction that capstone has a name for.
# Seen with capstone 5.0.9 (64-bit code).  Not in the group: RDMSR, CLTS, WBNOINVD, XSAVES, ENCLS, SETSSBSY, IN, OUT,
# INS.  In it, though CPL 3 may run them: IRETQ, RDTSCP, STR, RDPMC (by CR4.PCE), VMCALL.  iced-x86 1.21.0 has
# is_privileged for all of the first and for none of the second.
#
# What it costs: a rule of the kind "nothing privileged in this code" lets a read of an MSR, CLTS and port I/O by, and
# stops at each IRETQ; of the pairs RDMSR and WRMSR, XSAVES and XRSTORS it sees one half.
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

# What the SDM allows at CPL 0 alone (IN, OUT and INS: by IOPL and the task's bitmap), and what it allows at CPL 3.
ring_0 = """rdmsr 0f32; wrmsr 0f30; clts 0f06; hlt f4; invd 0f08; wbinvd 0f09; wbnoinvd f30f09; swapgs 0f01f8; lgdt 0f0110
mov-to-cr3 0f22d8; invlpg 0f0138; xsaves 0fc728; xrstors 0fc718; encls 0f01cf; setssbsy f30f01e8; in e460; out ee; ins 6c"""
ring_3 = "iretq 48cf; rdtscp 0f01f9; str 0f00c8; rdpmc 0f33; vmcall 0f01c1; rdtsc 0f31; sgdt 0f0100; smsw 0f01e0; retfq 48cb"
reader = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
reader.detail = True


def judged(table):
    """Of each name: whether capstone, and whether iced-x86 calls it privileged."""
    for each in table.replace("\n", ";").split(";"):
        name, code = each.split()
        one = next(reader.disasm(bytes.fromhex(code), 0))
        other = next(iter(iced_x86.Decoder(64, bytes.fromhex(code))))
        assert one.size == other.len == len(code) // 2, name
        yield name, one.group(capstone.CS_GRP_PRIVILEGE), other.is_privileged


print(*(f"{each} {version(each)}" for each in ("capstone", "iced-x86")))
missing = [name for name, by_capstone, _ in judged(ring_0) if not by_capstone]
too_many = [name for name, by_capstone, _ in judged(ring_3) if by_capstone]
print("CPL 0 alone, and not in capstone's group:", *missing)
print("allowed at CPL 3, and in it:", *too_many)
assert missing == "rdmsr clts wbnoinvd xsaves encls setssbsy in out ins".split()
assert too_many == "iretq rdtscp str rdpmc vmcall".split()
assert all(by_iced for _, _, by_iced in judged(ring_0))
assert not any(by_iced for _, _, by_iced in judged(ring_3))
print("as seen")
PY
