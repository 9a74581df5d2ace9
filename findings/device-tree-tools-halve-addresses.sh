#!/usr/bin/env bash
# fdtput and mkimage put the low half of an address above 4 GiB into a device tree and a FIT image, and exit 0.
#
# Guess before it was tried: a number that does not fit a cell of 32 bits is an error, as it is for dtc ("Value out of
# range"), or becomes two cells, as the bindings have it for 64-bit addresses.
# Seen with device-tree-compiler 1.6.1 and u-boot-tools 2023.01: `fdtput -t x` of 0x123456789 stores 0x23456789, `-t u`
# of 4294967296 stores 0.  `mkimage -f auto -A x86_64 -a 0x100000000` makes a FIT image with load = <0x00>; the legacy
# header, which has but 32 bits, the same.  No word from any.  Nor with 1.8.1 and 2025.01 (forky, 2026-11-30).
#
# What it costs: linux,initrd-start or linux,elfcorehdr patched for a machine with its memory high up points into other
# memory; a kernel is loaded at 0.  A mend is to write the two halves: `fdtput -t x DTB /chosen NAME 1 23456789`.
#
# Needs: Debian bookworm's package lists, python3; seconds.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get -o APT::Sandbox::User="$(id -un)" download device-tree-compiler=1.6.1-4+b1 libfdt1=1.6.1-4+b1 \
    u-boot-tools=2023.01+dfsg-2+deb12u3 >/dev/null
for each in *.deb; do dpkg-deb -x "$each" root; done
tool() {  # NAME ARGUMENT...
    LD_LIBRARY_PATH=root/usr/lib/x86_64-linux-gnu "root/usr/bin/$1" "${@:2}"
}
status=0
expect() {  # WHAT WANTED GOT
    echo "$1: $3"
    [[ $3 == "$2" ]] || { echo "  was: $2"; status=1; }
}
tool fdtput -V
tool mkimage -V
tree() {  # CELLS: a device tree with these cells in /chosen
    echo "/dts-v1/; / { chosen { linux,initrd-start = <$1>; }; };"
}
expect "dtc" "Value out of range for 32-bit array element" "$(tree 0x123456789 | tool dtc -O dtb -o none 2>&1 | grep -o 'Value.*' || true)"
tree "1 2" | tool dtc -O dtb -o dtb
put() {  # TYPE VALUE...: what the property has after fdtput, in hexadecimal, and the status of fdtput
    local code=0
    tool fdtput -t "$1" dtb /chosen linux,initrd-start "${@:2}" || code=$?
    echo "$(tool fdtget -t x dtb /chosen linux,initrd-start), status $code"
}
expect "fdtput -t x 0x123456789" "23456789, status 0" "$(put x 0x123456789 2>&1)"
expect "fdtput -t u 4294967296" "0, status 0" "$(put u 4294967296 2>&1)"
expect "fdtput -t x 1 23456789" "1 23456789, status 0" "$(put x 1 23456789 2>&1)"

head -c 4096 /dev/zero >kernel
make=(tool mkimage -A x86_64 -O linux -T kernel -C none -a 0x100000000 -e 0x123456789 -d kernel)
code=0
"${make[@]}" -f auto fit >/dev/null 2>said || code=$?
expect "mkimage, FIT" "status 0, 0 23456789, says: " \
    "status $code, $(tool fdtget -t x fit /images/kernel-1 load) $(tool fdtget -t x fit /images/kernel-1 entry), says: $(cat said)"
code=0
"${make[@]}" legacy >/dev/null 2>said || code=$?
expect "mkimage, legacy" "status 0, 00000000 23456789, says: " \
    "status $code, $(python3 -c 'print(*(d := open("legacy", "rb").read()[16:24]).hex(" ", 4).split())'), says: $(cat said)"
exit $status
