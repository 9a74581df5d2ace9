/*
 * The entry stub of a 32-bit entry, from an old kernel whose walk ends with paging off: a page of its
 * own, placed by the plan where a purgatory would be.
 *
 * Every 32-bit entry wants the same of the CPU: protected mode, paging off, flat segments, interrupts
 * off (Documentation/arch/x86/boot.rst, "32-bit Boot Protocol"; Multiboot 0.6.96, 3.2; Multiboot2 2.0,
 * 3.3; Xen docs/misc/pvh.pandoc).  They differ in CR0 and in what eax, ebx and esi hold.  So these are
 * words at the end, which the plan fills in; all else is zero.  Selectors are Linux's, 0x10 and 0x18,
 * from a gdt that stays valid; the others do not mind.  There is no rip-relative addressing here, so
 * the stub asks where it lies.
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
	mov	known_cr0 - enter(%ebp), %eax
	mov	%eax, %cr0
	/* A zero above the return address: the top of the stack is readable at the entry. */
	pushl	$0
	pushl	$CS
	pushl	kernel_entry - enter(%ebp)
	mov	word_eax - enter(%ebp), %eax
	mov	word_ebx - enter(%ebp), %ebx
	mov	word_esi - enter(%ebp), %esi
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
known_cr0:
	.quad	0
kernel_entry:
	.quad	0
word_eax:
	.quad	0
word_ebx:
	.quad	0
word_esi:
	.quad	0
