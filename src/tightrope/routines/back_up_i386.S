/*
 * The backup of a crash kexec, for new kernels that are entered in 32-bit code with paging off; see
 * back_up_x86_64.S, whose rows these are.  Only their low halves are read: everything is below 4 GiB.
 */
	.text
	.code32
back_up:
	/* Room for the new kernel's address, which `ret` takes. */
	pushl	$0
	push	%ebx
	push	%ecx
	push	%esi
	push	%edi
	/* Where am I?  There is no rip-relative addressing. */
	call	1f
1:	pop	%ebx
	mov	kernel_entry - 1b(%ebx), %ecx
	mov	%ecx, 16(%esp)
	lea	rows - 1b(%ebx), %ebx
2:	mov	16(%ebx), %ecx
	jecxz	3f
	mov	(%ebx), %esi
	mov	8(%ebx), %edi
	lea	24(%ebx), %ebx
	rep movsl
	jmp	2b
3:	pop	%edi
	pop	%esi
	pop	%ecx
	pop	%ebx
	ret

	.balign	8
kernel_entry:
	.quad	0
rows:
