#!/usr/bin/env bash
# cbfstool puts a payload's initrd at 64 MiB, in the room that today's kernels take to unpack.
#
# Guess before it was tried: `cbfstool add-payload -f bzImage -C LINE -I INITRD` goes by the boot header
# (Documentation/arch/x86/boot.rst): the initrd lies outside the init_size bytes from where the kernel runs, the header
# is copied into the zero page, and a command line longer than cmdline_size is refused.
# Seen with coreboot-utils 24.12 (Debian trixie; 25.09 of forky places them so too, 2026-12-01) and Debian's 6.1.192:
# the kernel is loaded at 0x1000000 with an init_size of 0x3378000, which ends at 0x4378000; the initrd is loaded at
# 0x4000000.  The zero page has version and init_size, but no "HdrS", and 0 for setup_sects, loadflags, initrd_addr_max,
# cmdline_size and pref_address.  A line of 3000 bytes (cmdline_size is 2047) is all there.  Nothing is said, the status
# is 0.  (init_size of Debian's 6.12.117 is 0x37de000, of 7.2.12 0x3c3a000.)
#
# What it costs: the initrd lies where the decompressor, its heap and the kernel may write; a board starts and has
# none.  An initrd inside the kernel goes round it.
#
# Needs: Debian's archive in apt's sources, bookworm's package lists, python3; half a minute.  Exits 1 when this
# changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get -o APT::Sandbox::User="$(id -un)" download linux-image-6.1.0-57-cloud-amd64=6.1.192-3 >/dev/null
archive=$(grep -rhoE '[a-z+]+://[^][:space:]]+/debian/?([[:space:]]|$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null \
    | tr -d ' ' | head -n 1 || true)
mkdir -p lists/partial cache/archives/partial
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive trixie main" >sources.list
apt=(apt-get -o "APT::Sandbox::User=$(id -un)" -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Architectures=amd64)
"${apt[@]}" update >/dev/null
"${apt[@]}" download coreboot-utils=24.12+dfsg-2 libc6 >/dev/null
for each in *.deb; do dpkg-deb -x "$each" root; done
cbfstool() {  # ARGUMENT...: trixie's program with trixie's C library
    root/usr/lib64/ld-linux-x86-64.so.2 --library-path root/usr/lib/x86_64-linux-gnu root/usr/sbin/cbfstool "$@"
}
dpkg-deb -f coreboot-utils_*.deb Package Version
cp root/boot/vmlinuz-* kernel
head -c 5000 /dev/zero | tr '\0' i >initrd
printf 'a%.0s' {1..3000} >line
cbfstool rom create -m x86 -s 0x2000000 >/dev/null 2>&1
code=0
cbfstool rom add-payload -f kernel -n fallback/payload -C "$(cat line)" -I initrd >said 2>&1 || code=$?
echo "add-payload: status $code, says: $(cat said)"
[[ $code == 0 && ! -s said ]]
cbfstool rom extract -n fallback/payload -m x86 -f payload >/dev/null 2>&1
python3 - <<'END'
import struct
from pathlib import Path

kernel, payload = Path("kernel").read_bytes(), Path("payload").read_bytes()


def header(data):
    """What of a boot header counts here."""
    fields = {"setup_sects": ("<B", 0x1F1), "magic": ("<4s", 0x202), "version": ("<H", 0x206), "loadflags": ("<B", 0x211)}
    fields |= {"ramdisk_image": ("<I", 0x218), "initrd_addr_max": ("<I", 0x22C), "cmdline_size": ("<I", 0x238)}
    fields |= {"pref_address": ("<Q", 0x258), "init_size": ("<I", 0x260)}
    return {name: struct.unpack_from(how, data, at)[0] for name, (how, at) in fields.items()}


(table,), (number,) = struct.unpack_from("<I", payload, 28), struct.unpack_from("<H", payload, 44)
rows = [struct.unpack_from("<8I", payload, table + 32 * each) for each in range(number)]
loaded = {paddr: payload[at : at + size] for _, at, _, paddr, size, _, _, _ in rows}
print("loaded at:", {hex(paddr): hex(len(data)) for paddr, data in loaded.items()})
wanted, got = header(kernel), header(loaded[0x90000])
print("the kernel's header:", wanted)
print("the zero page:      ", got)
assert wanted["magic"] == b"HdrS" and wanted["cmdline_size"] == 2047 and wanted["init_size"] == 0x3378000
assert got["magic"] == bytes(4) and (got["init_size"], got["version"]) == (wanted["init_size"], wanted["version"])
assert not any(got[name] for name in ("setup_sects", "loadflags", "initrd_addr_max", "cmdline_size", "pref_address"))
start = wanted["pref_address"]
assert start == 0x1000000 and kernel[0x5000:0x6000] == loaded[start][:0x1000]
initrd = got["ramdisk_image"]
assert loaded[initrd] == b"i" * 5000
print(f"the kernel's room is {start:#x} to {start + wanted['init_size']:#x}, the initrd is at {initrd:#x}")
assert start < initrd == 0x4000000 < start + wanted["init_size"]
assert loaded[0x91000] == b"a" * 3000 + b"\0"
print("as seen")
END
