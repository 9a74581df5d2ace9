#!/usr/bin/env bash
# Unicorn's 64-bit mode begins without paging, in a state that no CPU can be in, and a CR3 that code loads is not walked.
#
# Guess before it was tried: UC_MODE_64 is long mode as the SDM has it (volume 3, 10.8.5: EFER.LMA is 1 while LME and
# CR0.PG are), so that CR0.PG and CR4.PAE read as 1, and that a MOV to CR3 takes effect with the next access.
# Seen with unicorn 2.1.4: EFER has LME and LMA, CR0 is 0x11 (no PG), CR4 has no PAE, CS is 0.  MOV to CR3 of tables that
# map nothing but the code's 2 MiB is obeyed, and an address that they do not map is read where it is physically.
# With CR4.PAE and CR0.PG written by reg_write beforehand the same access is an exception.
#
# What it costs: a kexec's last steps, whose one danger is a page that the new tables lack, run through whatever the tables
# are; and code that saves CR0 and CR4 to put them back (Linux's relocate_kernel) keeps values that a CPU would refuse.
#
# Needs: python3 with venv and pip; seconds.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check unicorn==2.1.4 setuptools
env/bin/python - <<'PY'
import struct
from importlib.metadata import version

from unicorn import UC_ARCH_X86, UC_MODE_64, Uc, UcError
from unicorn import x86_const as x86

CODE, TABLES, FAR, EFER = 0x1000, 0x10000, 0x201000, 0xC0000080
PG, PAE, LME, LMA = 1 << 31, 1 << 5, 1 << 8, 1 << 10
STEPS = bytes.fromhex("0f22d8 8a1c2500102000")
"""mov %rax, %cr3; mov FAR, %bl"""


def machine():
    uc = Uc(UC_ARCH_X86, UC_MODE_64)
    uc.mem_map(0, 4 << 20)
    # PML4, PDPT and a page directory with its first entry alone: FAR is in the second 2 MiB.
    for number, entry in enumerate((TABLES + 0x1000 | 3, TABLES + 0x2000 | 3, 0x83)):
        uc.mem_write(TABLES + 0x1000 * number, struct.pack("<Q", entry))
    uc.mem_write(CODE, STEPS)
    uc.mem_write(FAR, b"\x55")
    uc.reg_write(x86.UC_X86_REG_RAX, TABLES)
    return uc


def run(uc):
    try:
        uc.emu_start(CODE, CODE + len(STEPS))
    except UcError as error:
        return str(error)
    return uc.reg_read(x86.UC_X86_REG_RBX) & 0xFF


plain, paged = machine(), machine()
cr0, cr4, efer = plain.reg_read(x86.UC_X86_REG_CR0), plain.reg_read(x86.UC_X86_REG_CR4), plain.msr_read(EFER)
paged.reg_write(x86.UC_X86_REG_CR3, TABLES)
paged.reg_write(x86.UC_X86_REG_CR4, cr4 | PAE)
paged.reg_write(x86.UC_X86_REG_CR0, cr0 | PG)
print("unicorn", version("unicorn"), f"CR0 {cr0:#x} CR4 {cr4:#x} EFER {efer:#x}")
as_it_is, with_paging = run(plain), run(paged)
print("an address that the tables do not map, as it is:", as_it_is)
print("the same with CR4.PAE and CR0.PG:               ", with_paging)
assert efer & (LME | LMA) == LME | LMA and not cr0 & PG and not cr4 & PAE
assert plain.reg_read(x86.UC_X86_REG_CR3) == TABLES
assert as_it_is == 0x55
assert with_paging == "Unhandled CPU exception (UC_ERR_EXCEPTION)"
print("as seen")
PY
