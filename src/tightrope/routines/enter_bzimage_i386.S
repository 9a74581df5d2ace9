/*
 * The entry stub of a bzImage through its 32-bit entry, from an old kernel whose walk ends with paging
 * off: a page of its own, placed by the plan where a purgatory would be.
 *
 * It makes the state that the 32-bit boot protocol asks for (Documentation/arch/x86/boot.rst, "32-bit
 * Boot Protocol"): protected mode, paging off, cs = 0x10, ds = es = ss = 0x18 from a gdt that stays
 * valid, esi = boot_params, ebp = edi = ebx = 0, interrupts off.  The plan fills in the two words at
 * the end: there is no rip-relative addressing here, so the stub is told where it lies.
 */
	.set	CS, 0x10
	.set	DS, 0x18

	.text
	.code32
enter:
	/* Where am I?  A call and a pop on the relocation code's stack. */
	call	1f
1:	pop	%ebp
	sub	$1b - enter, %ebp
	lea	4096(%ebp), %esp
	pushl	$0
clear_flags:
	popfl
	lea	gdt - enter(%ebp), %eax
	sub	$8, %esp
	movw	$gdt_end - gdt - 1, 2(%esp)
	mov	%eax, 4(%esp)
	lgdt	2(%esp)
	add	$8, %esp
	mov	$DS, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	%eax, %fs
	mov	%eax, %gs
	mov	boot_params - enter(%ebp), %esi
	/* A zero above the return address: the top of the stack is readable at the entry. */
	pushl	$0
	pushl	$CS
	pushl	kernel_entry - enter(%ebp)
	xor	%eax, %eax
	xor	%ebx, %ebx
	xor	%ecx, %ecx
	xor	%edx, %edx
	xor	%edi, %edi
	xor	%ebp, %ebp
	lretl

	.balign	8
gdt:
	.quad	0
	.quad	0
	.quad	0x00cf9b000000ffff	/* __BOOT_CS 0x10 */
	.quad	0x00cf93000000ffff	/* __BOOT_DS 0x18 */
gdt_end:
kernel_entry:
	.quad	0
boot_params:
	.quad	0
