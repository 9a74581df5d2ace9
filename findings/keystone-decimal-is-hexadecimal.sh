#!/usr/bin/env bash
# keystone reads 63 as 0x63 once its syntax has been set, to whichever, and its `iret` is the one of 16 bits.
#
# Guess before it was tried: a number without 0x is decimal, as in GNU as and in LLVM, of which keystone is made;
# KS_OPT_SYNTAX_RADIX16 is there to ask for the other reading.  `iret` is CF, as GNU as has it in either syntax.
# Seen with keystone-engine 0.9.2, the newest there is: after `ks.syntax = ...` (AT&T, or NASM, or Intel, which is what it
# has anyway) `bts $63, %rax` is 48 0F BA E8 63, `.quad 4096` is 0x4096, `16(%rsp)` is 0x16(%rsp), and "63d" is an error.
# In a new process that does not set it 63 is 63; in one that had another engine with it, 63 was 0x63 there too.
# In Intel's syntax `iret` is 66 CF and `push 0xffffffff` is 66 68 FF FF, two bytes on the stack.
#
# What it costs: whoever turns to AT&T for a kernel's code gets other shifts, offsets and masks ($-4096 is $-0x4096), in
# code that assembles without a word; `iret` takes words of two bytes off the stack.
#
# Needs: python3 with venv and pip, GNU as and objcopy; seconds.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check keystone-engine==0.9.2
status=0
expect() {  # WHAT WANTED GOT
    echo "$1: $3"
    [[ $3 == "$2" ]] || { echo "  was: $2"; status=1; }
}
keystone() {  # SYNTAX TEXT: what it assembles, in 64-bit code; each time in a new process
    env/bin/python - "$@" <<'PY'
import sys

import keystone

assembler = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64)
if sys.argv[1] != "unset":
    assembler.syntax = getattr(keystone, "KS_OPT_SYNTAX_" + sys.argv[1])
try:
    print(bytes(assembler.asm(sys.argv[2])[0]).hex())
except keystone.KsError as error:
    print(error)
PY
}
gnu() {  # TEXT: what GNU as makes of it
    echo "$1" | as --64 -o object - 2>/dev/null
    objcopy -O binary -j .text object bytes
    python3 -c 'print(open("bytes", "rb").read().hex())'
}
env/bin/pip list --disable-pip-version-check 2>/dev/null | grep keystone
as --version | head -1
echo "syntax not set, mov rax, 63: $(keystone unset 'mov rax, 63') (not asked for: it may be any)"
for each in INTEL NASM; do
    expect "$each, mov rax, 63" 48c7c063000000 "$(keystone $each 'mov rax, 63')"
done
for each in 'bts $63, %rax=480fbae863=480fbae83f' 'mov 16(%rsp), %rax=488b442416=488b442410' \
    '.quad 4096=9640000000000000=0010000000000000' 'and $-4096, %rax=48256abfffff=482500f0ffff'; do
    IFS== read -r text by_keystone by_gnu <<<"$each"
    expect "ATT, $text" "$by_keystone" "$(keystone ATT "$text")"
    expect "GNU as, $text" "$by_gnu" "$(gnu "$text")"
done
expect "INTEL, mov rax, 63d" "Invalid operand (KS_ERR_ASM_INVALIDOPERAND)" "$(keystone INTEL 'mov rax, 63d')"
expect "syntax not set, iret" 66cf "$(keystone unset iret)"
expect "syntax not set, push 0xffffffff" 6668ffff "$(keystone unset 'push 0xffffffff')"
expect "GNU as, iret" cf "$(gnu '.intel_syntax noprefix; iret')"
exit $status
