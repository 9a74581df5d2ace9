#!/usr/bin/env bash
# radare2's assembler makes another instruction, or half of one, out of a boot path's, with status 0 and without a word.
#
# Guess before it was tried: rasm2 assembles what a boot path is made of (control and segment registers, far jumps,
# masks of a page-table entry) to the bytes that nasm makes; what it does not know is "Cannot assemble", as of iretq.
# Seen with radare2 6.1.8 (Debian sid), x86, 64 bits, beside nasm 2.16.01: `mov ss, ax` is `mov dx, ax`, `mov ds, ax` is
# `mov bx, ax`; `jmp far [rax]` is a jump to itself (eb fe), `call far [rax]` a near call; `iret` is iretw.  Of
# `[rdi+rcx*8]` the *8 is dropped, of `[rax+rcx*8]` behind lea the whole index.  Of the immediates 0xffffffff and
# 0xfffffffffffff000 one byte is written behind an opcode that takes four (and, cmp), or four behind one that takes one:
# the next instruction begins in the midst.  `mov cr3, rax` and iretq are errors.
#
# What it costs: a stub or a patch for a kexec routine that was written with it does something else, and a disassembly
# of the file is the only place to see it.
#
# Needs: Debian's archive in apt's sources, bookworm's package lists, python3; half a minute.  Exits 1 when this
# changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get -o APT::Sandbox::User="$(id -un)" download nasm=2.16.01-1 >/dev/null
dpkg-deb -x nasm_*.deb nasm
archive=$(grep -rhoE '[a-z+]+://[^][:space:]]+/debian/?([[:space:]]|$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null \
    | tr -d ' ' | head -n 1 || true)
mkdir -p lists/partial cache/archives/partial
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive sid main" >sources.list
apt=(apt-get -o "APT::Sandbox::User=$(id -un)" -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Architectures=amd64)
"${apt[@]}" update >/dev/null
version=6.1.8+ds-1
"${apt[@]}" download radare2=$version libradare2-6.0.0t64=$version libradare2-common=$version libc6 libcapstone5 liblz4-1 \
    libmagic1t64 libxxhash0 libzip5 zlib1g libssl3t64 libbz2-1.0 liblzma5 libzstd1 libuv1t64 >/dev/null 2>&1
for each in *.deb; do dpkg-deb -x "$each" root; done
libraries=root/usr/lib/x86_64-linux-gnu
for each in "$libraries"/libr_*.so.*.*.*; do ln -sf "$(basename "$each")" "${each%%.so.*}.so"; done
rasm2() {  # ARGUMENT...: sid's program with sid's libraries
    root/usr/lib64/ld-linux-x86-64.so.2 --library-path "$libraries" root/usr/bin/rasm2 "$@"
}
nasm() {  # INSTRUCTION: its bytes by nasm
    printf 'bits 64\n%s\n' "$1" >code.asm
    nasm/usr/bin/nasm -f bin -o code code.asm
    python3 -c 'print(open("code", "rb").read().hex())'
}
rasm2 -v | head -1 | cut -d' ' -f1,2
nasm/usr/bin/nasm -v
status=0
expect() {  # INSTRUCTION WANTED: by rasm2, with the bytes of nasm beside it
    local got code=0
    got=$(rasm2 -a x86 -b 64 "$1" 2>said) || code=$?
    printf '%-32s rasm2 %-20s nasm %s\n' "$1" "$got" "$(nasm "$1")"
    [[ $got == "$2" && $code == 0 && ! -s said ]] || { echo "  was: $2; status $code, said: $(cat said)"; status=1; }
}
for same in "lgdt [rax]" "push 0x10" "retf" "wrmsr" "mov rsp, rax" "mov rax, 0x123456789abcdef0"; do
    expect "$same" "$(nasm "$same")"
done
expect "mov ss, ax" 6689c2
expect "mov ds, ax" 6689c3
expect "jmp far [rax]" ebfe
expect "call far [rax]" e8fbffffff
expect "iret" 66cf
expect "mov rax, [rdi+rcx*8]" 488b040f
expect "lea rdi, [rax+rcx*8]" 488d38
expect "and rax, 0xfffffffffffff000" 48832500f0ffff
expect "and rcx, 0xfffffffffffff000" 4883e100f0ffff
expect "and eax, 0xffffffff" 25ff
expect "cmp ecx, 0xffffffff" 81f9ff
for unknown in iretq "mov cr3, rax"; do
    if rasm2 -a x86 -b 64 "$unknown" >said 2>&1; then status=1; fi
    cat said
done
exit $status
