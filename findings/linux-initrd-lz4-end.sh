#!/usr/bin/env bash
# In an initrd an archive may follow one that gzip compressed directly, and one that lz4 compressed only
# behind a word of zeros.
#
# Guess before it was tried: archives may be joined in any order (Documentation/driver-api/early-userspace/
# buffer-format.rst); "arbitrary amounts of zero bytes can be added between members", none is needed.
# Seen: a bare archive directly behind an lz4 one is "Initramfs unpacking failed: Decoding failed"; with
# eight zeros between them nothing is said.  The same with Debian's 6.1.192 (here) and 7.3.4 (2026-11-29).
# LZ4's legacy frame has no end mark: Linux takes the next four bytes for the size of a block until they
# are zero or the data ends (lib/decompress_unlz4.c), and "0707" is a size.
#
# Needs: Debian bookworm's package lists, qemu-system-x86_64, lz4, python3; a minute.  Exits 1 when this changes.
set -euo pipefail
package=linux-image-6.1.0-57-cloud-amd64 version=6.1.192-3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get -o APT::Sandbox::User="$(id -un)" download "$package=$version" >/dev/null
dpkg-deb -x "$package"_*.deb root
lz4 --version
qemu-system-x86_64 --version | head -1

python3 - <<'END'
import gzip, subprocess
def entry(name, data=b"", mode=0o100644):
    raw = name.encode() + b"\0"
    numbers = (1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(raw), 0)
    head = b"070701" + b"".join(b"%08x" % n for n in numbers) + raw
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
def pad(data):
    return data + bytes(-len(data) % 4)
trailer = entry("TRAILER!!!", mode=0)
second = entry("second", b"2" * 64) + trailer
# The first archives are grown until their stream is a multiple of 4, as a bare archive's place has to be.
def grown(pack):
    for size in range(4000, 8000, 4):
        packed = pack(entry("first", bytes(n * n % 251 for n in range(size))) + trailer)
        if len(packed) % 4 == 0:
            return packed
lz4 = grown(lambda data: subprocess.run(["lz4", "-l", "-q", "-c"], input=data, capture_output=True, check=True).stdout)
gz = grown(lambda data: gzip.compress(data, mtime=0))
for name, made in {"gzip": gz + second, "lz4": lz4 + second, "lz4-zeros": lz4 + bytes(8) + second}.items():
    open(name, "wb").write(made)
END

said() {  # FILE: what the kernel says of it
    timeout 600 qemu-system-x86_64 -accel tcg -m 256 -display none -nodefaults -serial stdio -no-reboot \
        -kernel root/boot/vmlinuz-* -initrd "$1" -append "console=ttyS0 panic=-1" </dev/null >"$1.log"
    grep -q "Trying to unpack rootfs image as initramfs" "$1.log"
    { grep -o "Initramfs unpacking failed: [^"$'\r'"]*" "$1.log" || echo nothing; } | head -1
}

status=0
expect() {  # WHAT WANTED GOT
    echo "$1: $3"
    [[ $3 == "$2" ]] || { echo "  was: $2"; status=1; }
}
expect "gzip, then a bare archive" nothing "$(said gzip)"
expect "lz4, then a bare archive" "Initramfs unpacking failed: Decoding failed" "$(said lz4)"
expect "lz4, eight zeros, then a bare archive" nothing "$(said lz4-zeros)"
exit $status
