#!/usr/bin/env bash
# An initrd as `xz` compresses it is refused by Linux; it wants `xz --check=crc32`.
#
# Guess before it was tried: xz is one of the compressions of an initrd, so what `xz FILE` makes is taken.
# Seen: with xz's default check (CRC64) Linux says "Initramfs unpacking failed: Input was encoded with
# settings that are not supported by this XZ decoder" and goes on without any file; with CRC32 it says
# nothing.  The same with Debian's 6.1.192 (here) and 7.3.4 (2026-11-29).  Linux's decoder knows no check
# but none and CRC32 (lib/xz/xz_dec_stream.c).
#
# Needs: Debian bookworm's package lists, qemu-system-x86_64, xz, python3; a minute.  Exits 1 when this changes.
set -euo pipefail
package=linux-image-6.1.0-57-cloud-amd64 version=6.1.192-3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get -o APT::Sandbox::User="$(id -un)" download "$package=$version" >/dev/null
dpkg-deb -x "$package"_*.deb root
xz --version | head -1
qemu-system-x86_64 --version | head -1

python3 - <<'END'
def entry(name, data=b"", mode=0o100644):
    raw = name.encode() + b"\0"
    numbers = (1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(raw), 0)
    head = b"070701" + b"".join(b"%08x" % n for n in numbers) + raw
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
open("initrd", "wb").write(entry("hello", b"x" * 5000) + entry("TRAILER!!!", mode=0))
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
xz --keep --stdout initrd >default
xz --keep --check=crc32 --stdout initrd >crc32
expect "xz" "Initramfs unpacking failed: Input was encoded with settings that are not supported by this XZ decoder" \
    "$(said default)"
expect "xz --check=crc32" nothing "$(said crc32)"
exit $status
