#!/usr/bin/env bash
# A device tree overlay's /delete-property/, /delete-node/ and /memreserve/ are dropped without a word.
#
# Guess before it was tried: an overlay that says /delete-property/ takes the property out of the tree that it is laid
# on, or dtc says that it cannot; a /memreserve/ of it is added to the tree's.
# Seen with device-tree-compiler 1.6.1 (1.8.1 of forky too, 2026-12-01): dtc compiles it, nothing printed, status 0. 
# The two deletions are done while the source is read, so that the blob has nothing of them; fdtoverlay merges what is
# left, status 0: the new bootargs are there, linux,initrd-start and the node are too.  The overlay's blob has its
# /memreserve/, the merged tree has the base's alone.  fdtput -d and -r do delete.
#
# What it costs: a crash kernel's tree made of a board's by an overlay keeps an initrd that is not there, or the main
# kernel's reserved memory, and lacks the reservation that was asked for.
#
# Needs: Debian bookworm's package lists, python3; seconds.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get -o APT::Sandbox::User="$(id -un)" download device-tree-compiler=1.6.1-4+b1 libfdt1=1.6.1-4+b1 >/dev/null
for each in *.deb; do dpkg-deb -x "$each" root; done
tool() {  # NAME ARGUMENT...
    LD_LIBRARY_PATH=root/usr/lib/x86_64-linux-gnu "root/usr/bin/$1" "${@:2}"
}
status=0
expect() {  # WHAT WANTED GOT
    echo "$1: $3"
    [[ $3 == "$2" ]] || { echo "  was: $2"; status=1; }
}
reserved() {  # BLOB: its memory reservations
    python3 - "$1" <<'END'
import struct, sys
data = open(sys.argv[1], "rb").read()
(at,) = struct.unpack_from(">I", data, 16)
while any(row := struct.unpack_from(">QQ", data, at)):
    print("%#x %#x" % row, end="; ")
    at += 16
END
}
cat >base.dts <<'END'
/dts-v1/;
/memreserve/ 0x80000000 0x1000;
/ {
    chosen { bootargs = "old"; linux,initrd-start = <0x84000000>; linux,initrd-end = <0x84100000>; old-node { }; };
};
END
cat >overlay.dts <<'END'
/dts-v1/;
/plugin/;
/memreserve/ 0x90000000 0x2000;
&{/chosen} { bootargs = "new"; /delete-property/ linux,initrd-start; /delete-node/ old-node; };
END
tool dtc --version
tool dtc -q -O dtb -o base.dtb base.dts
code=0
tool dtc -O dtb -o overlay.dtb overlay.dts >said 2>&1 || code=$?
expect "dtc of the overlay" "status 0, says " "status $code, says $(cat said)"
expect "reservations, overlay" "0x90000000 0x2000; " "$(reserved overlay.dtb)"
code=0
tool fdtoverlay -i base.dtb -o merged.dtb overlay.dtb >said 2>&1 || code=$?
expect "fdtoverlay" "status 0, says " "status $code, says $(cat said)"
expect "bootargs" "new" "$(tool fdtget merged.dtb /chosen bootargs)"
expect "linux,initrd-start" "84000000" "$(tool fdtget -t x merged.dtb /chosen linux,initrd-start)"
expect "nodes of /chosen" "old-node" "$(tool fdtget -l merged.dtb /chosen)"
expect "reservations, merged" "0x80000000 0x1000; " "$(reserved merged.dtb)"
tool fdtput -d merged.dtb /chosen linux,initrd-start
tool fdtput -r merged.dtb /chosen/old-node
expect "after fdtput -d and -r" "bootargs linux,initrd-end" "$(tool fdtget -p merged.dtb /chosen | sort | paste -sd' ')"
expect "nodes after it" "" "$(tool fdtget -l merged.dtb /chosen)"
exit $status
