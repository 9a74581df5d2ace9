#!/usr/bin/env bash
# GNU objcopy and strip copy a vmcore into one whose program headers have no memory, and exit 0.
#
# Guess before it was tried: objcopy keeps the program headers of an ELF core; a copy reads as the original does, as with
# an executable or a vmlinux.
# Seen with binutils 2.44 (Debian trixie) on a core of one note and two rows of RAM: "warning: allocated section `load1'
# not in segment", status 0.  The copy has one program header, a PT_NOTE of size 0: no row, no VMCOREINFO.  The bytes are
# still there, as sections by the names note0, load1, load2, with linear addresses; the physical ones are nowhere.  strip does
# the same.  2.47.50 (forky, 2026-11-30) too; 2.40 leaves the rows with sizes of 0.  A core that QEMU wrote fares the same.
#
# What it costs: a dump put through objcopy (to add the build's notes as a section, to drop one, or because "strip
# FILE" ran over a folder) looks as large as before and reads as a machine without memory; strip does it in place.
#
# Needs: Debian's archive in apt's sources, python3; half a minute.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
archive=$(grep -rhoE '[a-z+]+://[^][:space:]]+/debian/?([[:space:]]|$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null \
    | tr -d ' ' | head -n 1 || true)
mkdir -p lists/partial cache/archives/partial
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive trixie main" >sources.list
apt=(apt-get -o "APT::Sandbox::User=$(id -un)" -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Architectures=amd64)
"${apt[@]}" update >/dev/null
"${apt[@]}" download binutils-x86-64-linux-gnu=2.44-3 libbinutils=2.44-3 libsframe1=2.44-3 libc6 libzstd1 zlib1g >/dev/null
for each in *.deb; do dpkg-deb -x "$each" root; done
binutil() {  # NAME ARGUMENT...: trixie's program with trixie's libraries
    root/usr/lib64/ld-linux-x86-64.so.2 --library-path root/usr/lib/x86_64-linux-gnu "root/usr/bin/x86_64-linux-gnu-$1" "${@:2}"
}

python3 - <<'END'
import struct
text = b"OSRELEASE=6.12.0\nPAGESIZE=4096\n"
note = struct.pack("<III", 11, len(text), 0) + b"VMCOREINFO\0\0" + text + bytes(-len(text) % 4)
rows = ((0x100000, b"A" * 8192), (0x200000, b"B" * 4096))
table = struct.pack("<IIQQQQQQ", 4, 0, 64 + 56 * 3, 0, 0, len(note), len(note), 4)
body = b""
for phys, data in rows:
    where, size = 4096 + len(body), len(data)
    table += struct.pack("<IIQQQQQQ", 1, 7, where, 0xFFFF888000000000 + phys, phys, size, size, 4096)
    body += data
head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1" + bytes(9), 4, 62, 1, 0, 64, 0, 0, 64, 56, 3, 0, 0, 0)
open("vmcore", "wb").write((head + table + note).ljust(4096, b"\0") + body)
END
rows() {  # FILE: kind, physical address and size in the file of each program header
    python3 -c '
import struct, sys
data = open(sys.argv[1], "rb").read()
(at,), (number,) = struct.unpack_from("<Q", data, 32), struct.unpack_from("<H", data, 56)
for each in range(number):
    kind, _, _, _, phys, size = struct.unpack_from("<IIQQQQ", data, at + 56 * each)
    print({1: "load", 4: "note"}[kind], f"{phys:#x} {size:#x}", end="; ")
' "$1"
}
status=0
expect() {  # WHAT WANTED GOT
    echo "$1: $3"
    [[ $3 == "$2" ]] || { echo "  was: $2"; status=1; }
}
binutil objcopy --version | head -1
expect "the core" "note 0x0 0x38; load 0x100000 0x2000; load 0x200000 0x1000; " "$(rows vmcore)"
for tool in objcopy strip; do
    code=0
    cp vmcore copy
    binutil "$tool" copy 2>said || code=$?
    expect "$tool, status" 0 "$code"
    expect "$tool says" "warning: allocated section \`load1' not in segment" "$(head -1 said | grep -o 'warning: .*')"
    expect "$tool, the copy" "note 0x0 0x0; " "$(rows copy)"
done
exit $status
