#!/usr/bin/env bash
# ld.lld lays a note that the linker script does not name in front of the code: a flat image begins with it, and in an ELF
# kernel it is loaded at its linear address.
#
# Guess before it was tried: a section that a script of a kernel does not name (an orphan: .note.Xen of a PVH kernel, or the
# .note.gnu.property that compilers add) goes behind a section of its kind, as with GNU ld, where there is none behind the
# code; and its load address goes on from that of the section in front, which the script moves with AT().
# Seen with lld 14.0.6 and GNU ld 2.40: GNU ld has .text, .note, .data in one row, the physical address 1 MiB.  lld has a row
# of its own for the note, the first, at 0xffffffff80100000 both linear and physical, and .text begins 20 bytes later.  With
# `--oformat binary` the image begins with the note: the entry at its first byte is no code, a Multiboot header is moved.
# No word from either.  The same with lld 21.1.8 (forky, 2026-11-30).
#
# What it costs: a loader that goes by p_paddr (kexec of an ELF, QEMU's -kernel) is asked for memory at 16 EiB less 2 GiB; a
# purgatory or boot sector executes a note's sizes.  The script has to name the notes, behind .text or in /DISCARD/.
#
# Needs: Debian bookworm's package lists, python3; half a minute.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get -o APT::Sandbox::User="$(id -un)" download lld-14=1:14.0.6-12 libllvm14=1:14.0.6-12 libedit2 libbsd0 libmd0 libz3-4 \
    libxml2 libicu72 libtinfo6 libffi8 zlib1g liblzma5 binutils-x86-64-linux-gnu=2.40-2 libbinutils=2.40-2 >/dev/null
for each in *.deb; do dpkg-deb -x "$each" root; done
export LD_LIBRARY_PATH="root/usr/lib/x86_64-linux-gnu:root/lib/x86_64-linux-gnu"
lld=(root/usr/bin/ld.lld-14) gnu=(root/usr/bin/x86_64-linux-gnu-ld --no-warn-rwx-segments)
"${lld[@]}" --version
"${gnu[@]}" --version | head -1
cat >kernel.s <<'END'
    .globl _start
_start: hlt
    jmp _start
    .section .note.Xen, "a", @note      # PHYS32_ENTRY, which makes a kernel one that PVH can enter
    .long 4, 4, 18
    .asciz "Xen"
    .long 0x100000
    .data
    .quad 0x1122334455667788
END
cat >script <<'END'
ENTRY(_start)
SECTIONS {
    . = 0xffffffff80100000;
    .text : AT(ADDR(.text) - 0xffffffff80000000) { *(.text) }
    .data : AT(ADDR(.data) - 0xffffffff80000000) { *(.data) }
}
END
root/usr/bin/x86_64-linux-gnu-as --64 -o kernel.o kernel.s
for each in lld gnu; do
    declare -n link=$each
    "${link[@]}" -T script kernel.o -o "$each.elf" 2>said
    "${link[@]}" -T script --oformat binary kernel.o -o "$each.bin" 2>>said
    echo "$each says: $(cat said)"
    [[ ! -s said ]]
done
python3 - <<'PY'
import struct

CODE = b"\xf4\xeb\xfd"
seen = {}
for name in ("lld", "gnu"):
    data = open(f"{name}.elf", "rb").read()
    (entry, at), number = struct.unpack_from("<QQ", data, 24), struct.unpack_from("<H", data, 56)[0]
    heads = [struct.unpack_from("<IIQQQQ", data, at + 56 * each) for each in range(number)]
    rows = [(virt, phys, size) for kind, _, _, virt, phys, size in heads if kind == 1]
    flat = open(f"{name}.bin", "rb").read()
    seen[name] = entry, rows[0], flat[: len(CODE)] == CODE
    print(f"{name}: entry {entry:#x}; the first row: linear {rows[0][0]:#x}, physical {rows[0][1]:#x}, {rows[0][2]} bytes")
    print(f"  the flat image begins with {flat[:4].hex(' ')}")
LINEAR = 0xFFFFFFFF80100000
assert seen["lld"] == (LINEAR + 20, (LINEAR, LINEAR, 20), False), seen
assert seen["gnu"][0] == LINEAR and seen["gnu"][1][:2] == (LINEAR, 0x100000) and seen["gnu"][2], seen
print("as seen")
PY
