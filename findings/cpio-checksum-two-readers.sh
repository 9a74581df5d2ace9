#!/usr/bin/env bash
# A wrong checksum in a 070702 archive: GNU cpio says so, unpacks the file and exits 0; libarchive says nothing.
#
# Guess before it was tried: "newc with checksums" (cpio -H crc), one of the two forms of an initramfs, is checked by who
# reads it; a wrong sum is an error for each reader, with a status that a script sees.
# Seen: GNU cpio 2.13 prints "a: checksum error (0x16b, should be 0x5)", unpacks both files and exits 0, and so it does
# with --only-verify-crc; libarchive's bsdtar 3.6.2 unpacks both without a word, status 0.
#
# What it costs: "the archive lists and unpacks" is no proof that it is whole, and `cpio && kexec` goes on.  Who wants
# to know before a kexec has to read what cpio prints, or add up the bytes.
#
# Needs: Debian bookworm's package lists, python3; seconds.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get -o APT::Sandbox::User="$(id -un)" download cpio=2.13+dfsg-7.1 libarchive-tools=3.6.2-1+deb12u5 \
    libarchive13=3.6.2-1+deb12u5 >/dev/null
for each in *.deb; do dpkg-deb -x "$each" root; done
export LD_LIBRARY_PATH=$work/root/usr/lib/x86_64-linux-gnu

python3 - <<'END'
def entry(name, data, checksum, inode, mode=0o100644):
    raw = name.encode() + b"\0"
    numbers = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(raw), checksum)
    head = b"070702" + b"".join(b"%08x" % n for n in numbers) + raw
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
for name, first in (("right", sum(b"xyz")), ("wrong", 5)):
    with open(name, "wb") as out:
        out.write(entry("a", b"xyz", first, 1) + entry("b", b"q", 0x71, 2) + entry("TRAILER!!!", b"", 0, 0, 0))
END

gnu() {  # FILE [OPTION]: what GNU cpio says of it, its status, and what it leaves
    local status=0 said
    rm -rf out && mkdir out
    said=$(cd out && ../root/bin/cpio --quiet ${2:-} -i <"../$1" 2>&1) || status=$?
    echo "${said#*cpio: }" "[$status]" $(ls out)
}
bsd() {  # FILE: the same of libarchive
    local status=0 said
    rm -rf out && mkdir out
    said=$(root/usr/bin/bsdtar -C out -xf "$1" 2>&1) || status=$?
    echo "$said" "[$status]" $(ls out)
}
status=0
expect() {  # WHAT WANTED GOT
    echo "$1:$3"
    [[ $3 == "$2" ]] || { echo "  was:$2"; status=1; }
}
root/bin/cpio --version | head -1
root/usr/bin/bsdtar --version
error="a: checksum error (0x16b, should be 0x5)"
expect "GNU cpio, right" " [0] a b" "$(gnu right)"
expect "GNU cpio, wrong" "$error [0] a b" "$(gnu wrong)"
expect "GNU cpio --only-verify-crc, wrong" "$error [0]" "$(gnu wrong --only-verify-crc)"
expect "bsdtar, right" " [0] a b" "$(bsd right)"
expect "bsdtar, wrong" " [0] a b" "$(bsd wrong)"
exit $status
