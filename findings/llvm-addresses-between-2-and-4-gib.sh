#!/usr/bin/env bash
# LLVM's assembler reads the local APIC somewhere else: an address of 0xfee00020 is sign-extended, one of 4 GiB is 0, and
# `push $0x80000000` is a push of two bytes.
#
# Guess before it was tried: what LLVM (clang -c) takes in 64-bit AT&T syntax is what GNU as makes of it, or an error: an
# address or an immediate of 32 bits is sign-extended (SDM volume 1, 3.7.5.1), so one between 2 and 4 GiB does not fit.
# Seen with LLVM 14.0.6 (and 21.1.8 of forky, 2026-11-30), no warning: `mov 0xfee00020, %eax`, which GNU as 2.40 writes with
# an address of 64 bits (A1), has the 32 bits FEE00020, which is 0xfffffffffee00020.  `movl $1, 0xfee00300`, `lgdt
# 0x90000000` and `jmp *0x80000000`, which GNU as refuses, are the same; `mov 0x100000000, %eax` reads address 0.
# `push $0x80000000` is 66 68 00 00, which takes two bytes of the stack, for a 0.  `movabs 0xfee00020, %eax` is right with
# both; beside a register (`mov 0x90000000(%rax), %rbx`) 21 has an error, 14 has not.
#
# What it costs: code that runs on identity tables (a purgatory, a boot loader, a test's guest) and was written for GNU as
# talks to no APIC, loads no GDT and has its stack off by six, if clang assembles it.
#
# Needs: Debian bookworm's package lists; half a minute.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get -o APT::Sandbox::User="$(id -un)" download llvm-14=1:14.0.6-12 libllvm14=1:14.0.6-12 libedit2 libbsd0 libmd0 libz3-4 \
    libxml2 libicu72 libtinfo6 libffi8 zlib1g liblzma5 binutils-x86-64-linux-gnu=2.40-2 libbinutils=2.40-2 >/dev/null
for each in *.deb; do dpkg-deb -x "$each" root; done
lib=root/usr/lib/x86_64-linux-gnu
export LD_LIBRARY_PATH="$lib:root/lib/x86_64-linux-gnu"
root/usr/lib/llvm-14/bin/llvm-mc --version | grep -o 'LLVM version.*'
root/usr/bin/x86_64-linux-gnu-as --version | head -1
status=0
code() {  # ASSEMBLER...: the bytes of what is on standard input, or that it is an error
    if "$@" -o one.o 2>said; then
        [[ ! -s said ]] || echo -n "(a warning) "
        root/usr/bin/x86_64-linux-gnu-objcopy -O binary -j .text one.o one.bin
        od -An -v -tx1 one.bin | tr -d ' \n'
    else
        echo -n error
    fi
}
expect() {  # INSTRUCTION LLVM GNU: the bytes of each
    local llvm gnu
    llvm=$(echo "$1" | code root/usr/lib/llvm-14/bin/llvm-mc -triple=x86_64-linux-gnu -filetype=obj)
    gnu=$(echo "$1" | code root/usr/bin/x86_64-linux-gnu-as --64)
    echo "$1: LLVM $llvm, GNU as $gnu"
    [[ $llvm == "$2" && $gnu == "$3" ]] || { echo "  was: LLVM $2, GNU as $3"; status=1; }
}
expect 'mov 0xfee00020, %eax' 8b04252000e0fe a12000e0fe00000000
expect 'movabs 0xfee00020, %eax' a12000e0fe00000000 a12000e0fe00000000
expect 'movl $1, 0xfee00300' c704250003e0fe01000000 error
expect 'lgdt 0x90000000' 0f01142500000090 error
expect 'jmp *0x80000000' ff242500000080 error
expect 'mov 0x100000000, %eax' 8b042500000000 a10000000001000000
expect 'push $0x80000000' 66680000 error
expect 'push $0xffffffff' 6668ffff error
expect 'push $0x7fffffff' 68ffffff7f 68ffffff7f
expect 'mov 0xffffffff81000000, %rax' 488b042500000081 488b042500000081
exit $status
