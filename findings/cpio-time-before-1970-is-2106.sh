#!/usr/bin/env bash
# A file from before 1970 is one from 2106 in an initramfs; one from after 2106 depends on who wrote the archive.
#
# Guess before it was tried: the newc form has 32 bits for a time
# (Documentation/driver-api/early-userspace/buffer-format.rst); who writes one for which that is too few says so, and
# the status tells a script.
# Seen with GNU cpio 2.13 and libarchive's bsdtar 3.6.2: of five seconds before 1970 cpio makes 0xfffffffb, bsdtar
# 0xffffffff, in 2106 both; of 0x100000005 cpio makes 5, in 1970, and bsdtar 0xffffffff.  Neither says a word, each
# status is 0.  So do cpio 2.15 and bsdtar 3.8.9, and BusyBox 1.38.0 does as cpio; 3cpio 0.14.0 alone refuses (forky,
# 2026-12-01).
#
# What it costs: a time that a build sets to "long ago" with -1 is newer than all there is, for what compares times in
# the initramfs (CONFIG_INITRAMFS_PRESERVE_MTIME); one tree gives two archives, and their hashes say that one was
# changed.
#
# Needs: Debian bookworm's package lists, python3, a file system whose times go beyond 32 bits; seconds.  Exits 1 when
# this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get -o APT::Sandbox::User="$(id -un)" download cpio=2.13+dfsg-7.1 libarchive-tools=3.6.2-1+deb12u5 \
    libarchive13=3.6.2-1+deb12u5 >/dev/null
for each in *.deb; do dpkg-deb -x "$each" root; done
export LD_LIBRARY_PATH=$work/root/usr/lib/x86_64-linux-gnu
mkdir tree
touch -d @-5 tree/before
touch -d @1700000000 tree/now
touch -d @4294967301 tree/after
[[ $(stat -c %Y tree/before tree/after | paste -sd' ') == "-5 4294967301" ]]

times() {  # FILE: each name and the time that the archive has for it
    python3 - "$1" <<'END'
import sys
data, at = open(sys.argv[1], "rb").read(), 0
while True:
    assert data[at : at + 6] == b"070701"
    numbers = [int(data[at + 6 + 8 * each : at + 14 + 8 * each], 16) for each in range(13)]
    name = data[at + 110 : at + 109 + numbers[11]].decode()
    if name == "TRAILER!!!":
        break
    print(f"{name} {numbers[5]:#x}", end="; ")
    at += 110 + numbers[11]
    at += -at % 4 + numbers[6]
    at += -at % 4
END
}
status=0
expect() {  # WHAT WANTED GOT
    echo "$1: $3"
    [[ $3 == "$2" ]] || { echo "  was: $2"; status=1; }
}
root/bin/cpio --version | head -1
root/usr/bin/bsdtar --version
code=0
(cd tree && printf '%s\n' before now after | ../root/bin/cpio --quiet -o -H newc >../gnu 2>../said) || code=$?
expect "GNU cpio" "status 0, says ; before 0xfffffffb; now 0x6553f100; after 0x5; " "status $code, says $(cat said); $(times gnu)"
code=0
root/usr/bin/bsdtar -C tree --format newc -cf bsd before now after 2>said || code=$?
expect "bsdtar" "status 0, says ; before 0xffffffff; now 0x6553f100; after 0xffffffff; " "status $code, says $(cat said); $(times bsd)"
exit $status
