#!/usr/bin/env bash
# What lists an initrd stops behind the first compressed archive; Linux unpacks the second one too.
#
# Guess before it was tried: the tools that distributions ship to look into an initrd go on as Linux does
# (Documentation/driver-api/early-userspace/buffer-format.rst: any number of archives, each compressed or not); they
# do take uncompressed ones in front of a compressed one, as the CPU's microcode is.
# Seen with Debian trixie's lsinitramfs 0.148.4 and dracut's lsinitrd 106: of two archives that gzip (or zstd) compressed
# the first is listed, the second is not; nothing is said and the status is 0.  (Two decompress into one stream, and cpio
# stops at the first TRAILER!!!.)  Two that are not compressed are both listed, by lsinitramfs.  Linux 6.1.192 runs an
# /init that is in the second alone.  The same with lsinitramfs 0.151, lsinitrd 112 and 3cpio 0.14.0 (forky, 2026-11-30).
#
# What it costs: `cat initrd extra.gz`, which is how files are added for a kexec, and ukify's two --initrd, look as if they
# had not worked; and an initrd that was looked at may hold files (a second /init, which wins) that nobody saw.
#
# Needs: Debian's archive in apt's sources, bookworm's package lists, qemu-system-x86_64, python3, gzip, zstd; a minute.
# Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
kernel=linux-image-6.1.0-57-cloud-amd64=6.1.192-3
apt-get -o APT::Sandbox::User="$(id -un)" download "$kernel" >/dev/null
archive=$(grep -rhoE '[a-z+]+://[^][:space:]]+/debian/?([[:space:]]|$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null \
    | tr -d ' ' | head -n 1 || true)
mkdir -p lists/partial cache/archives/partial
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive trixie main" >sources.list
apt=(apt-get -o "APT::Sandbox::User=$(id -un)" -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Architectures=amd64)
"${apt[@]}" update >/dev/null
"${apt[@]}" download initramfs-tools-core=0.148.4 initramfs-tools-bin=0.148.4 dracut-core=106-6 cpio libc6 >/dev/null
for each in *.deb; do dpkg-deb -x "$each" root; done
mkdir bin
for each in cpio unmkinitramfs; do  # trixie's programs with trixie's C library
    printf '#!/bin/sh\nexec %s --library-path %s %s "$@"\n' "$work/root/usr/lib64/ld-linux-x86-64.so.2" \
        "$work/root/usr/lib/x86_64-linux-gnu" "$work/root/usr/bin/$each" >"bin/$each"
    chmod +x "bin/$each"
done
dpkg-deb -f initramfs-tools-core_*.deb Package Version
dpkg-deb -f dracut-core_*.deb Package Version
qemu-system-x86_64 --version | head -1

python3 - <<'END'
import gzip, struct, subprocess
def entry(name, data=b"", mode=0o100755):
    raw = name.encode() + b"\0"
    numbers = (1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(raw), 0)
    head = b"070701" + b"".join(b"%08x" % n for n in numbers) + raw
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
said = b"the second archive is here\n"
# write(1, said, its length); exit(0)
code = bytes.fromhex("b801000000 bf01000000 488d3510000000 ba%02x000000 0f05 b83c000000 31ff 0f05" % len(said)) + said
size = 120 + len(code)
init = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1" + bytes(9), 2, 62, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)
init += struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, size, size, 4096) + code
trailer = entry("TRAILER!!!", mode=0)
first, second = entry("first", b"1" * 64) + trailer, entry("init", init) + trailer
zstd = lambda data: subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True).stdout
open("plain", "wb").write(first + second)
open("gzip", "wb").write(gzip.compress(first) + gzip.compress(second))
open("zstd", "wb").write(zstd(first) + zstd(second))
END

status=0
expect() {  # WHAT WANTED GOT
    echo "$1: $3"
    [[ $3 == "$2" ]] || { echo "  was: $2"; status=1; }
}
debian() {  # FILE: the names that lsinitramfs lists, what it says, its status
    local code=0 said
    said=$(PATH=$work/bin:$PATH sh root/usr/bin/lsinitramfs "$1" 2>&1) || code=$?
    echo $said "[$code]"
}
dracut() {  # FILE: the same of lsinitrd
    local code=0
    PATH=$work/bin:$PATH bash root/usr/bin/lsinitrd "$1" >said 2>/dev/null || code=$?
    echo $(awk '$1 == "-rwxr-xr-x" { print $NF }' said) "[$code]"
}
linux() {  # FILE: what /init says
    timeout 300 qemu-system-x86_64 -accel tcg -m 256 -display none -nodefaults -serial stdio -no-reboot \
        -kernel root/boot/vmlinuz-* -initrd "$1" -append "console=ttyS0 panic=-1" </dev/null >log
    grep -ao "the second archive is here" log || grep -ao "Unable to mount root fs" log
}
expect "lsinitramfs, not compressed" "first init [0]" "$(debian plain)"
expect "lsinitramfs, gzip twice" "first [0]" "$(debian gzip)"
expect "lsinitramfs, zstd twice" "first [0]" "$(debian zstd)"
expect "lsinitrd, gzip twice" "first [0]" "$(dracut gzip)"
expect "lsinitrd, zstd twice" "first [0]" "$(dracut zstd)"
expect "Linux, gzip twice" "the second archive is here" "$(linux gzip)"
expect "Linux without the second archive" "Unable to mount root fs" \
    "$(python3 -c 'data = open("gzip", "rb").read(); open("half", "wb").write(data[: data.index(b"\x1f\x8b\x08", 3)])'; linux half | head -1)"
exit $status
