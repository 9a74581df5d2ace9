#!/usr/bin/env bash
# The newest iasl reads a reset vector behind a wakeup structure that has none: out of the next structure of the MADT.
#
# Guess before it was tried: `iasl -d` of a MADT with a Multiprocessor Wakeup structure (type 0x10) shows its fields, and
# the text compiles to the same bytes, but for the compiler's id in the header; of version 0 (16 bytes, ACPI 6.4) as of
# version 1 (24 bytes, with a ResetVector; Linux knows both sizes, ACPI_MADT_MP_WAKEUP_SIZE_V0 and _V1).
# Seen with acpica-tools 20260408 (Debian forky): version 1 is right.  For version 0 it shows "ResetVector" as well, with the
# first eight bytes of what follows; compiled, the structure is 24 bytes long, with that vector, and the table grows by 8.  As
# the last structure of a table it "terminates in the middle of a data structure", and the text does not compile:
# "Field name "ResetVector" needed".  20250404 (trixie, 2026-11-30) is right for version 0; of version 1 it shows no vector
# and compiles a table without it, 8 bytes shorter and without a word.  20200925 (bookworm) does not know the type.
#
# What it costs: whether a guest's processors can be parked again, and with it whether a kexec works there, is read from that
# field: a firmware of version 0 (TDX) seems to have it.  A table that is taken apart, changed in one word and put back
# (an initrd's kernel/firmware/acpi) promises a vector that is none.
#
# Needs: Debian's archive in apt's sources, python3; half a minute.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
archive=$(grep -rhoE '[a-z+]+://[^][:space:]]+/debian/?([[:space:]]|$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null \
    | tr -d ' ' | head -n 1 || true)
mkdir -p lists/partial cache/archives/partial
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive forky main" >sources.list
apt=(apt-get -o "APT::Sandbox::User=$(id -un)" -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Architectures=amd64)
"${apt[@]}" update >/dev/null
"${apt[@]}" download acpica-tools=20260408-1 libc6 >/dev/null
for each in *.deb; do dpkg-deb -x "$each" root; done
printf '#!/bin/sh\nexec %s --library-path %s %s "$@"\n' "$work/root/usr/lib64/ld-linux-x86-64.so.2" \
    "$work/root/usr/lib/x86_64-linux-gnu" "$work/root/usr/bin/iasl" >iasl  # forky's program with forky's C library
chmod +x iasl
./iasl -v | grep version

python3 - <<'PY'
import re
import struct
import subprocess
from pathlib import Path

X2APIC = struct.pack("<BBHIII", 9, 16, 0, 0x100, 1, 0x100)
IO_APIC = struct.pack("<BBBBII", 1, 12, 0, 0, 0xFEC00000, 0)
VERSION_0 = struct.pack("<BBHIQ", 0x10, 16, 0, 0, 0x12345000)
VERSION_1 = struct.pack("<BBHIQQ", 0x10, 24, 1, 0, 0x12345000, 0x1_2345_6789)


def back(name, *structures):
    """The reset vector that iasl shows of a MADT, the bytes behind its header when it is compiled again, and complaints."""
    body = struct.pack("<II", 0xFEE00000, 1) + b"".join(structures)
    table = bytearray(struct.pack("<4sIBB6s8sI4sI", b"APIC", 36 + len(body), 6, 0, b"FINDER", b"WAKEUP  ", 1, b"FIND", 1) + body)
    table[9] = -sum(table) % 256
    Path(name + ".dat").write_bytes(table)
    subprocess.run(["./iasl", "-d", name + ".dat"], capture_output=True, check=True)
    text = Path(name + ".dsl").read_text()
    again = subprocess.run(["./iasl", name + ".dsl"], capture_output=True, text=True)
    compiled = Path(name + ".aml")
    vector = re.search(r"ResetVector : ([0-9A-F]+)", text)
    complaint = re.search(r'Field name "\w+" needed', again.stdout + again.stderr)
    return (
        int(vector[1], 16) if vector else None,
        compiled.read_bytes()[36:] == body if compiled.exists() else None,
        compiled.stat().st_size - len(table) if compiled.exists() else None,
        "in the middle of a data structure" in text,
        complaint[0] if complaint else None,
    )


first = struct.unpack_from("<Q", X2APIC)[0]
seen = {
    "version 1, last": back("one", X2APIC, VERSION_1),
    "version 0, in front": back("front", VERSION_0, X2APIC, IO_APIC),
    "version 0, last": back("last", X2APIC, VERSION_0),
}
for name, (vector, *rest) in seen.items():
    print(f"{name}: reset vector {vector and hex(vector)}; the same bytes, bytes more, cut off, complaint:", *rest)
print("the structure behind begins", hex(first))
assert seen["version 0, in front"] == (first, False, 8, False, None)
assert seen["version 0, last"] == (None, None, None, True, 'Field name "ResetVector" needed')
assert seen["version 1, last"] == (0x1_2345_6789, True, 0, False, None)
print("as seen")
PY
