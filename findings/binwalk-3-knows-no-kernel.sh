#!/usr/bin/env bash
# binwalk 3 does not know an x86 kernel of today, nor the frame of LZ4 that Linux uses: Debian's 6.1 is a Windows program.
#
# Guess before it was tried: binwalk 3, which has a signature "Linux kernel boot image", tells a bzImage by HdrS at 0x202,
# and finds what is compressed in it by the magic numbers that Linux itself goes by.
# Seen with pybinwalk 0.0.3 (binwalk 3.1.0): of Debian's 6.1.192 "Windows PE binary", with constants of hash functions inside;
# no kernel, and no LZ4, though the payload begins with 0x184C2102 (the legacy frame, which `lz4 -l` writes and
# lib/decompress_unlz4.c reads).  A legacy frame alone is nothing; today's frame is found.  What it looks for is the code of
# a boot sector, `mov $0x7c0, %ax` and so on (its src/signatures/linux.rs), which kernels have not had since they are PE.
# Debian's 6.12.107 is a zstd stream and no more, not even PE (2026-11-30).  binwalk 2.3.3 of Debian bookworm finds the
# legacy frame, and no zstd; `file` says Linux kernel.
#
# What it costs: "there is no kernel in this image" is what it says of each image with one; and an initrd that lz4
# compressed for Linux is not there at all.
#
# Needs: Debian bookworm's package lists, lz4, python3 with venv and pip; half a minute.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get -o APT::Sandbox::User="$(id -un)" download linux-image-6.1.0-57-cloud-amd64=6.1.192-3 >/dev/null
dpkg-deb -x linux-image-*.deb root
cp root/boot/vmlinuz-* kernel
head -c 300000 root/boot/config-* >text
lz4 -l -q text legacy.lz4
lz4 -q text frame.lz4
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check pybinwalk==0.0.3 2>errors || { cat errors; exit 1; }
env/bin/python - <<'PY'
import struct
from importlib.metadata import version
from pathlib import Path

import pybinwalk

SMALL = {"sha256", "aes_sbox", "crc32", "copyright"}  # constants and texts, not formats
scanner = pybinwalk.Binwalk()


def found(data):
    """The formats that binwalk finds, and where."""
    return [(each.offset, each.name) for each in scanner.scan_bytes(data) if each.name not in SMALL]


kernel = Path("kernel").read_bytes()
offset, _ = struct.unpack_from("<II", kernel, 0x248)
payload = (kernel[0x1F1] + 1) * 512 + offset
print("pybinwalk", version("pybinwalk"), "signatures:", scanner.signature_count)
print(f"the kernel has {kernel[0x202:0x206]} and a payload at {payload:#x}: {kernel[payload:payload + 4].hex(' ')}")
assert kernel[0x202:0x206] == b"HdrS" and kernel[payload : payload + 4] == struct.pack("<I", 0x184C2102)
whole, inner = found(kernel), found(kernel[payload:])
legacy, frame = found(Path("legacy.lz4").read_bytes()), found(Path("frame.lz4").read_bytes())
print("the kernel:", whole, "its payload:", inner)
print("lz4 -l:", legacy, "lz4:", frame)
assert whole == [(0, "pe")]
assert not any("lz4" in name or "linux" in name for _, name in inner)
assert legacy == [] and frame == [(0, "lz4")]
print("as seen")
PY
