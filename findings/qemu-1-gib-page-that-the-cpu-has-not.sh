#!/usr/bin/env bash
# QEMU's emulator (TCG) walks a page of 1 GiB though the CPU that it shows has none, and drops EFER's reserved bits.
#
# Guess before it was tried: what CPUID does not offer faults as on a processor.  A page-directory-pointer entry with PS
# set, where CPUID 80000001H:EDX[26] is 0, has a reserved bit set: #PF (SDM volume 3, "Reserved bits" of 4-level paging).
# WRMSR of EFER with a reserved bit, or with NXE where EDX[20] is 0, is #GP.
# Seen with QEMU 7.2.22 (Debian), `-cpu qemu64,-nx`: EDX[26] is 0, and the page is read, as with `+pdpe1gb`.  EFER takes
# all that is written, without a fault, and what it has not got reads as 0.  PS one level higher does fault, with the
# error code 8 (RSVD alone), where a processor's is 9 (RSVD, and P for an entry that is present).  The same with QEMU
# 11.1.2 (forky, 2026-11-30).
#
# What it costs: identity tables of 1 GiB pages, by someone who did not ask CPUID, pass each rehearsal in QEMU and end in
# a triple fault on the machine without them; so does setting EFER.NXE on one without NX.
#
# Needs: qemu-system-x86_64 of Debian bookworm, GNU as, ld and objcopy; seconds.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
# A multiboot image: it goes to 64-bit code over one 2 MiB page, tries, and says on port 0xe9 what came of each.
cat >guest.s <<'END'
    .code32
    .long 0x1badb002, 0x10000, -0x1badb002 - 0x10000, 0x100000, 0x100000, 0, 0, start
    .globl start
start:
    mov $stack, %esp
    movl $low + 3, top                          # linear 0: pages of 2 MiB
    movl $directory + 3, low
    movl $0x83, directory
    movl $huge + 3, top + 8                     # linear 512 GiB: one page of 1 GiB
    movl $0x83, huge
    movl $0x83, top + 16                        # linear 1 TiB: PS in the page map, reserved on each CPU
    mov $0x20, %eax
    mov %eax, %cr4
    mov $top, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx
    mov $0x100, %eax
    xor %edx, %edx
    wrmsr
    mov $0x80000001, %eax
    mov %eax, %cr0
    lgdt descriptors_register
    ljmp $8, $long
    .code64
long:
    mov $0x80000001, %eax
    cpuid
    lea is_cpuid(%rip), %rsi
    mov %rdx, %rdi
    call tell
    mov $page_fault, %eax                       # gate 14, and 13 the same
    mov %ax, gates + 14 * 16
    movl $0x8e000008, gates + 14 * 16 + 2
    movw $0x10, gates + 14 * 16 + 6
    mov $protection, %eax
    mov %ax, gates + 13 * 16
    movl $0x8e000008, gates + 13 * 16 + 2
    movw $0x10, gates + 13 * 16 + 6
    lidt gates_register

    lea is_huge(%rip), %rsi
    lea 1f(%rip), %r15
    mov $0x8000000000 + 0x100000, %rbx
    mov (%rbx), %edi
    call tell
1:  lea is_map(%rip), %rsi
    lea 1f(%rip), %r15
    mov $0x10000000000, %rbx
    mov (%rbx), %edi
    call tell
1:  lea is_nxe(%rip), %rsi
    lea 1f(%rip), %r15
    mov $0x900, %eax
    call efer
1:  lea is_reserved(%rip), %rsi
    lea 1f(%rip), %r15
    mov $0x102, %eax
    call efer
1:  out %al, $0xf4                              # isa-debug-exit

efer:                                           # EAX is written, and what it then holds is told
    mov $0xc0000080, %ecx
    xor %edx, %edx
    wrmsr
    rdmsr
    mov %eax, %edi
tell:                                           # the text at RSI, then EDI in hexadecimal
    mov (%rsi), %al
    inc %rsi
    out %al, $0xe9
    cmp $32, %al
    jne tell
    mov $8, %ecx
2:  rol $4, %edi
    mov %edi, %eax
    and $15, %eax
    mov digits(%rax), %al
    out %al, $0xe9
    loop 2b
    mov $10, %al
    out %al, $0xe9
    ret
page_fault:
    lea is_fault(%rip), %rsi
    jmp 3f
protection:
    lea is_protection(%rip), %rsi
3:  pop %rdi                                    # the error code
    call tell
    mov $stack, %esp
    jmp *%r15
is_cpuid: .ascii "cpuid "
is_huge: .ascii "1GiB "
is_map: .ascii "512GiB "
is_nxe: .ascii "NXE "
is_reserved: .ascii "bit1 "
is_fault: .ascii "#PF "
is_protection: .ascii "#GP "
digits: .ascii "0123456789abcdef"
    .align 8
descriptors: .quad 0, 0x00af9a000000ffff
descriptors_register: .word 15
    .quad descriptors
gates_register: .word 511
    .quad gates
    .align 4096
top: .fill 4096
low: .fill 4096
directory: .fill 4096
huge: .fill 4096
gates: .fill 4096
stack:
END
as --64 guest.s -o guest.o
ld -m elf_x86_64 -Ttext=0x100000 -e start guest.o -o guest.elf 2>/dev/null
objcopy -O binary guest.elf guest
said() {  # CPU: the lines that the guest says
    timeout 60 qemu-system-x86_64 -accel tcg -cpu "$1" -m 64 -display none -nodefaults -debugcon file:said \
        -device isa-debug-exit,iobase=0xf4,iosize=1 -no-reboot -kernel guest || true
    tr -d "\0" <said | tr "\n" ";"
}
qemu-system-x86_64 --version | head -1
status=0
expect() {  # CPU WANTED
    local got
    got=$(said "$1")
    echo "$1: $got"
    [[ $got == "$2" ]] || { echo "  was: $2"; status=1; }
}
expect qemu64,-nx "cpuid 2183fbfd;1GiB 1badb002;#PF 00000008;NXE 00000500;bit1 00000500;"
expect qemu64,-nx,+pdpe1gb "cpuid 2583fbfd;1GiB 1badb002;#PF 00000008;NXE 00000500;bit1 00000500;"
expect qemu64 "cpuid 2193fbfd;1GiB 1badb002;#PF 00000008;NXE 00000d00;bit1 00000500;"
exit $status
