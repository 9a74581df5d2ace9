#!/usr/bin/env bash
# dissect.executable takes the first two sections of a Linux kernel's PE for data directories, and its boot code for sections.
#
# Guess before it was tried: a kernel is a PE file like others; its optional header says that it has six data directories
# (NumberOfRvaAndSizes) and 0xa0 bytes (SizeOfOptionalHeader), and the section table begins behind those (Microsoft's PE
# Format: the number of directories is not fixed, and the table's place comes of the size in the file header).
# Seen with dissect.executable 1.11 and Debian's 6.1.192: sixteen are read, whatever is said.  Of four sections there are
# .text, .data and two of the bytes ff from behind the table; .setup and .compat are gone.  There is a DEBUG directory
# at 0x7465732e (".set") and others.  No error, until a name is asked for: UnicodeDecodeError.  pefile 2024.8.26 has the
# four.  cle 9.2.213 (angr) has an IndexError for the same reason, 10.0.5 not (2026-11-30).  A UKI has all sixteen.
#
# What it costs: a survey of boot images that goes by sections (which of them hold what, where the certificate's data
# begins) has half of a kernel and two sections at 0xffffffff; a listing of names ends with the first kernel.
#
# Needs: Debian bookworm's package lists, python3 with venv and pip; half a minute.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get -o APT::Sandbox::User="$(id -un)" download linux-image-6.1.0-57-cloud-amd64=6.1.192-3 >/dev/null
dpkg-deb -x linux-image-*.deb root
cp root/boot/vmlinuz-* kernel
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check dissect.executable==1.11 pefile==2024.8.26 2>errors || { cat errors; exit 1; }
env/bin/python - <<'PY'
from importlib.metadata import version

import pefile
from dissect.executable import PE

right = pefile.PE("kernel", fast_load=True)
read = PE(open("kernel", "rb"))
print("dissect.executable", version("dissect.executable"), "pefile", version("pefile"))
header = right.FILE_HEADER.SizeOfOptionalHeader, right.OPTIONAL_HEADER.NumberOfRvaAndSizes
print("the kernel: bytes of optional header, directories:", *header)
assert header == (0xA0, 6) == (read.file_header.SizeOfOptionalHeader, read.optional_header.NumberOfRvaAndSizes)
theirs = [(each.Name.rstrip(b"\0"), each.VirtualAddress) for each in right.sections]
mine = [(each.header.Name.rstrip(b"\0"), each.virtual_address) for each in read.sections]
print("sections by pefile:", theirs)
print("sections by dissect:", mine)
assert [name for name, _ in theirs] == [b".setup", b".compat", b".text", b".data"]
assert mine == theirs[2:] + [(b"\xff" * 8, 0xFFFFFFFF)] * 2
directories = read.optional_header.DataDirectory
print("directories by dissect:", len(directories), "the seventh:", hex(directories[6].VirtualAddress))
assert len(directories) == 16 and directories[6].VirtualAddress.to_bytes(4, "little") == b".set"
try:
    print([each.name for each in read.sections])
    raise SystemExit("the names were read")
except UnicodeDecodeError as error:
    print("the names:", error)
print("as seen")
PY
