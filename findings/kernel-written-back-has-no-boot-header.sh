#!/usr/bin/env bash
# GNU objcopy and LIEF write a kernel's PE file back without Linux's boot header in it.
#
# Guess before it was tried: a bzImage is a PE file with a boot header at 0x1f1, in front of its first section; what reads
# it as PE and writes it with one section more, or as it was, keeps the bytes that it does not know, as pefile does.
# Seen with Debian's 6.1.192, objcopy 2.40 (2.47.50 and llvm-objcopy 21.1.8 as well, 2026-11-30) and LIEF 1.0.0: no error, of objcopy
# no word; LIEF warns while it reads, as of each kernel, of SizeOfOptionalHeader (0xa0, six data directories).
# LIEF fills everything between the section table and the first section, 0x198 to 0xfff, with zeros; objcopy makes new
# headers of its own there and drops what lies behind the last section.  At 0x1f1 setup_sects is 0, at 0x1fe there is
# no 0xAA55, and at 0x202 no HdrS: neither a boot loader nor kexec takes that file for a kernel, as a bzImage.  .text, where
# the payload lies, is whole, and `file` says PE32+.  pefile 2024.8.26 writes all bytes back.
#
# What it costs: a kernel that a pipeline gave a note or an SBAT section is none any more.  (In a UKI the kernel is data:
# LIEF wrote one back whole.)
#
# Needs: Debian bookworm's package lists, python3 with venv and pip; half a minute.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get -o APT::Sandbox::User="$(id -un)" download linux-image-6.1.0-57-cloud-amd64=6.1.192-3 \
    binutils-x86-64-linux-gnu=2.40-2 libbinutils=2.40-2 >/dev/null
for each in *.deb; do dpkg-deb -x "$each" root; done
cp root/boot/vmlinuz-* kernel
objcopy() { LD_LIBRARY_PATH=root/usr/lib/x86_64-linux-gnu root/usr/bin/x86_64-linux-gnu-objcopy "$@"; }
objcopy --version | head -1
echo "sbat,1" >sbat
objcopy --add-section .sbat=sbat kernel objcopy-added 2>said
objcopy kernel objcopy-copied 2>>said
echo "objcopy says: $(cat said)"
[[ ! -s said ]]
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check lief==1.0.0 pefile==2024.8.26 2>errors || { cat errors; exit 1; }
env/bin/python - <<'PY'
import struct
from importlib.metadata import version
from pathlib import Path

import lief
import pefile

print("lief", version("lief"), "pefile", version("pefile"))
parsed = lief.PE.parse("kernel")
parsed.write("lief-written")
section = lief.PE.Section(".sbat")
section.content = list(b"sbat,1\n")
parsed.add_section(section)
parsed.write("lief-added")
pefile.PE("kernel", fast_load=True).write("pefile-written")


def header(data):
    """setup_sects, boot_flag, magic and init_size of the boot header."""
    return data[0x1F1], data[0x1FE:0x200], data[0x202:0x206], struct.unpack_from("<I", data, 0x260)[0]


def text(name):
    """The bytes of .text, where the compressed kernel lies."""
    (found,) = [each for each in pefile.PE(name, fast_load=True).sections if each.Name.rstrip(b"\0") == b".text"]
    return found.get_data()[: found.Misc_VirtualSize]


kernel, whole = Path("kernel").read_bytes(), text("kernel")
print("the kernel:", header(kernel))
assert header(kernel)[1:3] == (b"\x55\xaa", b"HdrS")
for name in ("lief-written", "lief-added", "objcopy-copied", "objcopy-added"):
    data = Path(name).read_bytes()
    print(f"{name}: boot header {header(data)}; .text is {'whole' if text(name) == whole else 'another'}")
    assert header(data)[2] != b"HdrS" and header(data)[1] != b"\x55\xaa"
    assert text(name) == whole and data[:2] == b"MZ"
lief_written = Path("lief-written").read_bytes()
assert not any(lief_written[0x198:0x1000]) and any(kernel[0x198:0x1000]) and lief_written[0x1000:] == kernel[0x1000:]
assert Path("pefile-written").read_bytes() == kernel
print("as seen; pefile wrote the same bytes")
PY
