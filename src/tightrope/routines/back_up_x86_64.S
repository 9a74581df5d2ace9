/*
 * The backup of a crash kexec, for new kernels that are entered in 64-bit code: what the old kernel had
 * in low memory is copied into the crash region before the new kernel writes there, as a purgatory does
 * it (kexec-tools purgatory/arch/i386/crashdump_backup.c).
 *
 * It lies in the entry stub's page and is jumped to by the stub in place of the new kernel, with all
 * state made: every register that it uses goes back to what it was.  The plan fills in kernel_entry and
 * the rows behind it: from, to, and how many 4-byte words, 8 bytes each; a row of no words ends them.
 */
	.text
	.code64
back_up:
	push	%rbx
	push	%rcx
	push	%rsi
	push	%rdi
	lea	rows(%rip), %rbx
1:	mov	16(%rbx), %rcx
	jrcxz	2f
	mov	(%rbx), %rsi
	mov	8(%rbx), %rdi
	lea	24(%rbx), %rbx
	rep movsl
	jmp	1b
2:	pop	%rdi
	pop	%rsi
	pop	%rcx
	pop	%rbx
	jmp	*kernel_entry(%rip)

	.balign	8
kernel_entry:
	.quad	0
rows:
