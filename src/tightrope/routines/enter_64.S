/*
 * The entry stub of a 64-bit entry: a page of its own, placed by the plan where a purgatory would be,
 * entered by the relocation code at its first byte.
 *
 * It makes the state that the 64-bit boot protocol asks for (Documentation/arch/x86/boot.rst,
 * "64-bit Boot Protocol"), of a bzImage and of a vmlinux alike: selectors 0x10 and 0x18 from a gdt that
 * stays valid, rsi = boot_params, interrupts off.  A flat binary is handed the same with rsi = 0.  It
 * trusts nothing but its own page and the identity mapping.  The plan fills in the two words at the
 * end; the rest of the page is the stack that the new kernel is entered with.
 */
	.set	CS, 0x10
	.set	DS, 0x18

	.text
	.code64
enter:
	lea	enter + 4096(%rip), %rsp
	pushq	$0
clear_flags:
	popfq
	lea	gdt(%rip), %rax
	sub	$16, %rsp
	movw	$gdt_end - gdt - 1, 6(%rsp)
	mov	%rax, 8(%rsp)
	lgdt	6(%rsp)
	add	$16, %rsp
	mov	$DS, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	%eax, %fs
	mov	%eax, %gs
	mov	word_rsi(%rip), %rsi
	/* A zero above the return address: the top of the stack is readable at the entry. */
	pushq	$0
	pushq	$CS
	pushq	kernel_entry(%rip)
	xor	%eax, %eax
	xor	%ebx, %ebx
	xor	%ecx, %ecx
	xor	%edx, %edx
	xor	%edi, %edi
	xor	%ebp, %ebp
	xor	%r8d, %r8d
	xor	%r9d, %r9d
	xor	%r10d, %r10d
	xor	%r11d, %r11d
	xor	%r12d, %r12d
	xor	%r13d, %r13d
	xor	%r14d, %r14d
	xor	%r15d, %r15d
	lretq

	.balign	8
gdt:
	.quad	0
	.quad	0
	.quad	0x00af9b000000ffff	/* __BOOT_CS 0x10 */
	.quad	0x00cf93000000ffff	/* __BOOT_DS 0x18 */
gdt_end:
kernel_entry:
	.quad	0
word_rsi:
	.quad	0
