#!/usr/bin/env bash
# yasm takes RETFQ and SYSRETQ for labels, and gives far returns and jumps other sizes than NASM, whose syntax it reads.
#
# Guess before it was tried: yasm's default syntax is NASM's, so a file that both take is the same code: `retf` CB, `jmp far
# [rax]` FF 28 (a 32-bit offset, as GNU as has `ljmp *(%rax)`), `iret` CF; what yasm does not know is an error.
# Seen with yasm 1.3.0 and nasm 2.16.01, bits 64: `retf` is CB in nasm and 48 CB in yasm; `jmp far [rax]` and `call far [rax]`
# have REX.W in nasm and none in yasm, so that one reads ten bytes and the other six.  `retfq`, `sysretq` and `int1` are
# labels to yasm: no byte, no word, status 0 (nasm warns of such a label; it knows retfq and int1).  `and rax, 0xfffff000`
# is 48 25 00 F0 FF FF in both, a mask of -4096; nasm warns, yasm does not, and neither does it for `add rax, 0x80000000`,
# which subtracts.  NASM 3.01 (forky, 2026-11-30) has another size for `iret`: 48 CF.
#
# What it costs: a purgatory's last instruction is gone, and the CPU runs on into data; a far pointer of one assembler is read
# with the other's size; an address between 2 and 4 GiB loses or gets 32 bits.
#
# Needs: Debian bookworm's package lists; seconds.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get -o APT::Sandbox::User="$(id -un)" download yasm=1.3.0-4 nasm=2.16.01-1 >/dev/null
for each in *.deb; do dpkg-deb -x "$each" root; done
root/usr/bin/yasm --version | head -1
root/usr/bin/nasm --version
status=0
assemble() {  # ASSEMBLER INSTRUCTION: the bytes; whether it says something
    printf 'bits 64\n%s\n' "$2" >one.asm
    rm -f one.bin
    "root/usr/bin/$1" -f bin -o one.bin one.asm 2>said || echo -n "status $? "
    [[ ! -e one.bin ]] || od -An -v -tx1 one.bin | tr -d ' \n'
    [[ ! -s said ]] || echo -n " ($(grep -oE 'error|warning' said | head -n 1))"
}
expect() {  # INSTRUCTION YASM NASM: what each makes of it
    local yasm nasm
    yasm=$(assemble yasm "$1") nasm=$(assemble nasm "$1")
    echo "$1: yasm ${yasm:-nothing}, nasm ${nasm:-nothing}"
    [[ $yasm == "$2" && $nasm == "$3" ]] || { echo "  was: yasm ${2:-nothing}, nasm ${3:-nothing}"; status=1; }
}
expect "retf" 48cb cb
expect "retfq" "" 48cb
expect "sysretq" "" " (warning)"
expect "int1" "" f1
expect "jmp far [rax]" ff28 48ff28
expect "call far [rax]" ff18 48ff18
expect "iret" cf cf
expect "iretq" 48cf 48cf
expect "and rax, 0xfffff000" 482500f0ffff "482500f0ffff (warning)"
expect "add rax, 0x80000000" 480500000080 "480500000080 (warning)"
expect "mov rax, 0x80000000" 48b80000008000000000 b800000080
exit $status
