#!/usr/bin/env bash
# In the core that QEMU writes with "paging": true a second mapping of some memory hides from volatility3 what lies above it.
#
# Guess before it was tried: "paging": true adds rows for what the guest's page tables map; an address that two rows
# have is readable, as is one that only the larger has; nothing that is readable without paging is lost with it.
# Seen with QEMU 7.2.22 (and 11.1.2, 2026-11-30), a guest of 16 MiB in long mode that maps all RAM one to one and 2 MiB at
# 4 MiB a second time, and volatility3 2.28.2: of the two rows volatility3 asks the one that begins nearest below an address
# alone.  What lies above the end of the small one, up to the end of RAM, is an InvalidAddressException; is_valid() says
# False.  With "paging": false all is read.  drgn refuses QEMU's cores without VMCOREINFO, so it is pyelftools
# 0.33 that shows that both files have the bytes.  Of a Linux guest of 192 MiB 27 in 100 pages were read: each piece of vmalloc's
# is such a row.
#
# What it costs: the dump with linear addresses, made for debuggers, of a stuck guest is the one that a scan finds nothing
# in; and it says nothing.
#
# Needs: qemu-system-x86_64 of Debian bookworm, python3 with venv and pip; half a minute.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check volatility3==2.28.2 pyelftools==0.33
cat > seen.py <<'PY'
import json
import struct
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

from elftools.elf.elffile import ELFFile
from volatility3.framework import contexts, exceptions
from volatility3.framework.layers import elf, physical

BASE, MIB = 0x200000, 1 << 20
# A Multiboot kernel (version 1, with its load addresses): PML4, PDPT, two page directories, and into long mode.
tables = [bytearray(4096) for _ in range(4)]
PML4, PDPT, LOW, HIGH = (BASE + 0x1000 * n for n in range(1, 5))
struct.pack_into("<Q", tables[0], 0, PDPT | 3)
struct.pack_into("<QQ", tables[1], 0, LOW | 3, HIGH | 3)
for number in range(8):
    struct.pack_into("<Q", tables[2], 8 * number, 2 * MIB * number | 0x83)
struct.pack_into("<Q", tables[3], 0, 4 * MIB | 0x83)
CODE = (
    "0f20e0 83c820 0f22e0"  # CR4.PAE
    f"b8{PML4.to_bytes(4, 'little').hex()} 0f22d8"  # CR3
    "b9800000c0 0f32 0d00010000 0f30"  # EFER.LME
    "0f20c0 0d00000080 0f22c0"  # CR0.PG
    "f4 ebfd"  # hlt, for good
)
magic, flags = 0x1BADB002, 1 << 16
head = struct.pack("<8I", magic, flags, -(magic + flags) & 0xFFFFFFFF, BASE, BASE, 0, 0, BASE + 32)
kernel = (head + bytes.fromhex(CODE)).ljust(4096, b"\0") + b"".join(bytes(each) for each in tables)
Path("kernel").write_bytes(kernel)

guest = subprocess.Popen(
    "qemu-system-x86_64 -accel tcg -nodefaults -M q35 -m 16 -display none -qmp stdio -kernel kernel".split(),
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
)


def ask(command, **arguments):
    print(json.dumps({"execute": command, "arguments": arguments}), file=guest.stdin, flush=True)
    while "return" not in (answer := json.loads(guest.stdout.readline())):
        assert "error" not in answer, answer
    return answer["return"]


try:
    ask("qmp_capabilities")
    for _ in range(600):
        registers = ask("human-monitor-command", **{"command-line": "info registers"})
        if "EFER=0000000000000500" in registers and "HLT=1" in registers:
            break
        time.sleep(0.1)
    ask("stop")
    ask("dump-guest-memory", paging=False, protocol="file:plain")
    ask("dump-guest-memory", paging=True, protocol="file:paging")
    said = ask("query-version")["qemu"]
    ask("quit")
finally:
    guest.kill()
    guest.wait()


def readable(name):
    """For each MiB whether volatility3 reads it, and whether a row of the file has it."""
    context = contexts.Context()
    context.config["file.location"] = Path(name).resolve().as_uri()
    context.add_layer(physical.FileLayer(context, "file", "base"))
    layer = elf.Elf64Stacker.stack(context, "base")
    with open(name, "rb") as file:
        rows = [(each["p_paddr"], each["p_filesz"]) for each in ELFFile(file).iter_segments("PT_LOAD")]
    answers = []
    for address in range(0, 16 * MIB, MIB):
        try:
            layer.read(address, 8)
            read = True
        except exceptions.InvalidAddressException:
            read = False
            assert not layer.is_valid(address)
        answers.append((read, any(phys <= address < phys + size for phys, size in rows)))
    print(f"{name:7} rows:", ", ".join(f"{phys:#x} {size:#x}" for phys, size in rows))
    for what, index in (("volatility3", 0), ("in the file", 1)):
        print(f"        {what}, by MiB:", "".join("y" if each[index] else "-" for each in answers))
    return [[each[index] for each in answers] for index in (0, 1)]


print("QEMU", "{major}.{minor}.{micro}".format(**said), "volatility3", version("volatility3"), "pyelftools", version("pyelftools"))
whole = [True] * 16
assert readable("plain") == [whole, whole]
assert readable("paging") == [[number < 6 for number in range(16)], whole]
print("as seen")
PY
env/bin/python seen.py
