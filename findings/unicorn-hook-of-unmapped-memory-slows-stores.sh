#!/usr/bin/env bash
# A hook for accesses to memory that is not mapped makes stores to memory that is mapped many times slower.
#
# Seen with unicorn 2.1.4 (PyPI): a loop of stores through a translation that allows no execution, with
# UC_HOOK_MEM_UNMAPPED on all addresses, and on the addresses outside the mapped memory.
# Guess beforehand: such a hook costs nothing until an access misses, since nothing is called before.  But
# notdirty_write() asks uc_mem_hook_installed() for the address of each store, and that counts hooks of
# unmapped and protected memory as well: a page in the range of one never gets to the short way, and each
# store looks for translated code that it might hit.  The range of the hook decides, not whether it is called.
#
# What it costs: a zstd decompressor of 15 MB took 20 s instead of 6.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check unicorn==2.1.4 setuptools
"$work/venv/bin/python" - <<'PYTHON'
import sys
import time

import unicorn
from unicorn import unicorn_const as const
from unicorn import x86_const as x86

CODE, DATA, SIZE, TURNS = 0x10000, 0x20000, 0x40000, 2_000_000
LOOP = bytes.fromhex("488907 48ffc9 75f8")
"""mov %rax, (%rdi); dec %rcx; jnz to the mov"""


def seconds(*ranges: tuple[int, int]) -> float:
    uc = unicorn.Uc(const.UC_ARCH_X86, const.UC_MODE_64)
    uc.ctl_set_tlb_mode(const.UC_TLB_VIRTUAL)
    uc.mem_map(CODE, SIZE)
    uc.mem_write(CODE, LOOP)

    def fill(_uc, page, access, entry, _data):
        # Only what holds the loop may be executed.
        code = access == const.UC_MEM_FETCH
        entry.paddr = page
        entry.perms = const.UC_PROT_READ | (const.UC_PROT_EXEC if code else const.UC_PROT_WRITE)
        return True

    uc.hook_add(const.UC_HOOK_TLB_FILL, fill)
    for start, end in ranges:
        uc.hook_add(const.UC_HOOK_MEM_UNMAPPED, lambda *_: False, None, start, end)
    uc.reg_write(x86.UC_X86_REG_RDI, DATA)
    uc.reg_write(x86.UC_X86_REG_RCX, TURNS)
    started = time.process_time()
    uc.emu_start(CODE, CODE + len(LOOP))
    assert uc.reg_read(x86.UC_X86_REG_RCX) == 0
    return time.process_time() - started


print("unicorn", unicorn.__version__)
none = min(seconds() for _ in range(3))
outside = min(seconds((0, CODE - 1), (CODE + SIZE, (1 << 64) - 1)) for _ in range(3))
everywhere = min(seconds((1, 0)) for _ in range(3))
for what, took in (("no hook", none), ("outside", outside), ("everywhere", everywhere)):
    print(f"{what:11} {1e9 * took / TURNS:7.1f} ns a store")
sys.exit(not (everywhere > 3 * outside and outside < 2 * none))
PYTHON
