#!/usr/bin/env bash
# QEMU dumps an x86_64 guest that is not in long mode as a 64-bit ELF core of an i386; its kdump says x86_64; and
# LIEF finds no memory in the core.
#
# Guess before it was tried: qemu-system-x86_64 writes EM_X86_64 whatever the CPU does at the moment, in both
# formats; and who reads ELF goes by the class in e_ident for the width of the fields.
# Seen with QEMU 7.2.22 (Debian): before long mode (here at reset; in a purgatory's or decompressor's 32-bit part as
# well) e_ident says ELFCLASS64, e_machine EM_386, and NT_PRSTATUS has the 144 bytes of an i386.  The kdump file of
# the same moment has "x86_64" in its header.  Readers differ: pyelftools 0.33 goes by e_ident and finds all rows; LIEF
# 1.0.0 goes by the machine, reads with 32-bit fields, and has no segment (it warns on standard error).
#
# What it costs: the dump of a guest that is stuck on its way into a kernel is the one that is wanted, and the one that
# is empty; a reader that asks for EM_X86_64 sends it away.
#
# Needs: qemu-system-x86_64 of Debian bookworm, python3 with venv and pip; half a minute.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check lief==1.0.0 pyelftools==0.33
timeout 60 qemu-system-x86_64 -S -nodefaults -M q35 -m 16 -display none -qmp stdio > answers <<'QMP'
{"execute": "qmp_capabilities"}
{"execute": "dump-guest-memory", "arguments": {"paging": false, "protocol": "file:core"}}
{"execute": "dump-guest-memory", "arguments": {"paging": false, "protocol": "file:kdump", "format": "kdump-zlib"}}
{"execute": "quit"}
QMP
env/bin/python - <<'PY'
import struct
import subprocess
from importlib.metadata import version

import lief
from elftools.elf.elffile import ELFFile

core = open("core", "rb").read()
kind, machine = core[4], struct.unpack_from("<H", core, 18)[0]
flattened = open("kdump", "rb").read()
at = flattened.index(b"KDUMP   ")
kdump = flattened[at + 12 + 4 * 65 : at + 12 + 5 * 65].rstrip(b"\0").decode()
with open("core", "rb") as file:
    read = ELFFile(file)
    loads = [each for each in read.iter_segments() if each["p_type"] == "PT_LOAD"]
    rows, size = len(loads), sum(each["p_filesz"] for each in loads)
    notes = {
        each["n_name"]: each["n_descsz"] for part in read.iter_segments("PT_NOTE") for each in part.iter_notes()
    }
parsed = lief.ELF.parse("core")
print(subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True).stdout.splitlines()[0])
print("class", kind, "machine", machine, "the kdump's machine", kdump, "notes", notes)
print("pyelftools", version("pyelftools"), "rows", rows, "bytes", size)
print("lief", version("lief"), "segments", len(parsed.segments), parsed.header.identity_class, parsed.header.machine_type)
assert (kind, machine, kdump) == (2, 3, "x86_64")
assert notes["CORE"] == 144
assert rows >= 4 and size >= 16 << 20
assert len(parsed.segments) == 0
print("as seen")
PY
