/*
 * What machine_kexec did on x86_64 before the thread (Linux 2.6.16): the low half of the top-level
 * table that the CPU is running on is overwritten with that of an identity map, and the control page
 * is called at its physical address.
 *
 * There this is C; here the same memory is written by the same number of bytes in the same order, so
 * that whoever watches the walk sees the current pgd go.  Two things differ: arguments come in
 * registers, because the old kernel's stack is nobody's to read, and the call is a jump, because
 * nothing comes back.
 *
 * At the call, at V, in the old kernel's text:
 *      rdi  head, rsi  P, rdx  start: handed on to the control page
 *      rcx  PAGE_OFFSET: where the old kernel's direct map begins
 *      r8   page_table_b, the identity map, built when the image was loaded
 */
	.set	KERNEL_DS, 0x18
	.set	PAGE, 4096

	.text
	.code64
machine_kexec:
	cli
	cld
	mov	%rdi, %r10
	mov	%rsi, %r11
	/* The table in use, by its address in the direct map.  CR3's low bits may hold a PCID. */
	mov	%cr3, %rdi
	and	$-PAGE, %rdi
	add	%rcx, %rdi
	lea	(%r8, %rcx), %rsi
	mov	$PAGE / 2 / 8, %ecx
overwrite:
	rep movsq
	/* Flush: global translations stay, and 2.6.16 trusts that there are none in the low half. */
	mov	%cr3, %rax
	mov	%rax, %cr3
flushed:
	mov	$KERNEL_DS, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	%eax, %fs
	mov	%eax, %gs
	lgdt	nothing(%rip)
	lidt	nothing(%rip)
	mov	%r10, %rdi
	mov	%r11, %rsi
	jmp	*%rsi

	.balign	8
nothing:
	.word	0
	.quad	0
