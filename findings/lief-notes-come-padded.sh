#!/usr/bin/env bash
# LIEF hands out an ELF note's bytes with the padding behind them, and the size in the file is not to be had.
#
# Guess before it was tried: `note.description` is n_descsz bytes, so that VMCOREINFO's text is what the kernel
# wrote, and a note of five letters is five letters.
# Seen with lief 1.0.0: "linux" (Xen's GUEST_OS) comes as "linux\0\0\0", a VMCOREINFO of 17 bytes as 20, the last
# three zeros; no property of a note has the 5 or the 17.  One of 16 bytes comes as 16.  Besides, a note that the
# kernel owns (Linux, 0x101: LINUX_ELFNOTE_LTO_INFO) is of the type GNU_BUILD_ATTRIBUTE_FUNC.
#
# What it costs: whoever splits VMCOREINFO into lines has a last one of zeros, KEY=VALUE only for sizes that are a
# multiple of 4; what is compared with another reader's bytes, or hashed, differs for some kernels and not for others.
#
# Needs: python3 with venv and pip; seconds.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check lief==1.0.0
env/bin/python - <<'PY'
import io
import struct
from importlib.metadata import version

import lief


def note(owner, number, what):
    name = owner + b"\0"
    pad = lambda data: data + bytes(-len(data) % 4)
    return struct.pack("<III", len(name), len(what), number) + pad(name) + pad(what)


written = [
    (b"Xen", 6, b"linux"),
    (b"VMCOREINFO", 0, b"OSRELEASE=6.12.0\n"),
    (b"VMCOREINFO", 0, b"OSRELEASE=6.12.\n"),
    (b"Linux", 0x101, bytes(4)),
]
notes = b"".join(note(*each) for each in written)
head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1" + bytes(9), 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 64, 0, 0)
row = struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(notes), len(notes), 4)
kernel = lief.ELF.parse(io.BytesIO(head + row + notes))
read = list(kernel.notes)
print("lief", version("lief"))
for (owner, number, what), each in zip(written, read, strict=True):
    print(owner.decode(), hex(number), "written:", what, "read:", bytes(each.description), each.type)
assert [bytes(each.description) for each in read] == [what + bytes(-len(what) % 4) for _, _, what in written]
assert len(read[0].description) == 8 and len(read[1].description) == 20 and len(read[2].description) == 16
sizes = {value for name in dir(read[0]) if name[0] != "_" for value in [getattr(read[0], name)] if isinstance(value, int)}
assert 5 not in sizes, sizes
assert read[3].type == lief.ELF.Note.TYPE.GNU_BUILD_ATTRIBUTE_FUNC
print("as seen")
PY
