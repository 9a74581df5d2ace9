#!/usr/bin/env bash
# makedumpfile refuses a core whose VMCOREINFO does not describe struct page, also where nothing is to be left out.
#
# Seen with makedumpfile 1.7.2 (Debian).
# Guess beforehand: with -d 0 every page is copied, so what is asked of VMCOREINFO is where utsname lies; struct
# page and mem_map are read to find free and cached pages, which -d 0 keeps.
#
# What it costs: a small kernel's core, or one made for a test, is compressed only when it describes a mem_map that
# nobody will look at; any address that is mapped does, and then every page is copied.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get download -qq -o APT::Sandbox::User=root makedumpfile liblzo2-2 libdw1 libelf1 >/dev/null
for each in ./*.deb; do dpkg-deb -x "$each" root; done
export LD_LIBRARY_PATH="$work/root/usr/lib/x86_64-linux-gnu:$work/root/lib/x86_64-linux-gnu"

python3 - <<'PYTHON'
import struct

TEXT, BASE, SIZE = 0xFFFFFFFF81000000, 0x1000000, 4 << 20
PGD, UTS, POINTER = 0x10000, 0x2000, 0x3000
SAID = {
    "OSRELEASE": "6.1.0",
    "PAGESIZE": "4096",
    "SYMBOL(swapper_pg_dir)": f"{TEXT + PGD:x}",
    "SYMBOL(init_top_pgt)": f"{TEXT + PGD:x}",
    "SYMBOL(_stext)": f"{TEXT:x}",
    "SYMBOL(init_uts_ns)": f"{TEXT + UTS:x}",
    "OFFSET(uts_namespace.name)": "4",
    "NUMBER(phys_base)": "0",
    "NUMBER(pgtable_l5_enabled)": "0",
    "SYMBOL(mem_map)": f"{TEXT + POINTER:x}",
}
PAGE = {"SIZE(page)": "64", "OFFSET(page.flags)": "0", "OFFSET(page._refcount)": "52", "OFFSET(page.mapping)": "24"}
PAGE["OFFSET(page.lru)"] = "8"


def core(name, said):
    memory = bytearray(SIZE)
    for at, index, entry in (  # PML4, PDPT, PD: two pages of 2 MiB
        (PGD, 511, BASE + 0x11000 | 0x63),
        (0x11000, 510, BASE + 0x12000 | 0x63),
        (0x12000, 8, BASE | 0xE3),
        (0x12000, 9, BASE + (2 << 20) | 0xE3),
    ):
        struct.pack_into("<Q", memory, at + 8 * index, entry)
    struct.pack_into("<Q", memory, POINTER, TEXT + 0x200000)
    names = ("Linux", "made", "6.1.0", "#1", "x86_64", "")
    memory[UTS + 4 : UTS + 4 + 390] = b"".join(each.encode().ljust(65, b"\0") for each in names)
    text = "".join(f"{key}={value}\n" for key, value in said.items()).encode()
    status = struct.pack("<III", 5, 336, 1) + b"CORE\0\0\0\0" + bytes(336)
    note = status + struct.pack("<III", 11, len(text), 0) + b"VMCOREINFO\0\0" + text + bytes(-len(text) % 4)
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1" + bytes(9), 4, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    place = -(-(64 + 112 + len(note)) // 4096) * 4096
    head += struct.pack("<IIQQQQQQ", 4, 0, 176, 0, 0, len(note), len(note), 4)
    head += struct.pack("<IIQQQQQQ", 1, 7, place, TEXT, BASE, SIZE, SIZE, 0)
    with open(name, "wb") as out:
        out.write((head + note).ljust(place, b"\0") + memory)


core("without", SAID)
core("with", SAID | PAGE)
PYTHON

root/usr/bin/makedumpfile -v 2>&1 | sed -n 1p
for each in without with; do
    status=0
    root/usr/bin/makedumpfile -c -d 0 "$each" "$each.dump" >said 2>&1 </dev/null || status=$?
    echo "$each struct page: status $status: $(grep -aoE 'get_mem_map: .*|The dumpfile is saved' said | head -n 1)"
    eval "status_$each=$status"
done
test "$status_without" -ne 0
test "$status_with" -eq 0
test "$(head -c 5 with.dump)" = KDUMP
echo "as seen"
