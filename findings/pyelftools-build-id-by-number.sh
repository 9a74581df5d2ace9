#!/usr/bin/env bash
# pyelftools names an ELF note by its number, whoever owns it: a kernel has two NT_GNU_BUILD_ID, and one is Xen's.
#
# Guess before it was tried: the type of a note is a name within its owner's numbers (gABI: "each owner defines its
# own"), so that NT_GNU_BUILD_ID is said of GNU's 3 alone and a number of Xen's stays a number.
# Seen with pyelftools 0.33: of a kernel's notes (Xen's stand before GNU's in .notes), Xen's 3 (VIRT_BASE, the
# address where the kernel is mapped) is NT_GNU_BUILD_ID, 1 (ENTRY) NT_GNU_ABI_TAG and 5 (XEN_VERSION)
# NT_GNU_PROPERTY_TYPE_0.  Only GNU's is made hexadecimal; n_desc of the others is bytes.
#
# What it costs: "the first note of type NT_GNU_BUILD_ID" of any vmlinux with Xen's notes is the address
# 0xffffffff80000000, the same for every kernel: a dump is then matched with the wrong debug symbols, or with
# none.  n_name has to be asked as well.
#
# Needs: python3 with venv and pip; seconds.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check pyelftools==0.33
env/bin/python - <<'PY'
import io
import struct
from importlib.metadata import version

from elftools.elf.elffile import ELFFile


def note(owner, number, what):
    name = owner + b"\0"
    pad = lambda data: data + bytes(-len(data) % 4)
    return struct.pack("<III", len(name), len(what), number) + pad(name) + pad(what)


notes = (
    note(b"Xen", 5, b"xen-3.0\0")
    + note(b"Xen", 3, struct.pack("<Q", 0xFFFFFFFF80000000))
    + note(b"Xen", 1, struct.pack("<Q", 0xFFFFFFFF82FCC000))
    + note(b"GNU", 3, bytes(range(20)))
)
head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1" + bytes(9), 2, 62, 1, 0x1000000, 64, 0, 0, 64, 56, 1, 64, 0, 0)
row = struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(notes), len(notes), 4)
kernel = ELFFile(io.BytesIO(head + row + notes))
seen = [(each["n_name"], each["n_type"], each["n_desc"]) for each in next(kernel.iter_segments()).iter_notes()]
print("pyelftools", version("pyelftools"))
for each in seen:
    print(*each)
first = next(desc for _, kind, desc in seen if kind == "NT_GNU_BUILD_ID")
assert first == struct.pack("<Q", 0xFFFFFFFF80000000)
assert [kind for owner, kind, _ in seen if owner == "Xen"] == [
    "NT_GNU_PROPERTY_TYPE_0", "NT_GNU_BUILD_ID", "NT_GNU_ABI_TAG"
]
assert seen[-1] == ("GNU", "NT_GNU_BUILD_ID", bytes(range(20)).hex())
print("as seen")
PY
