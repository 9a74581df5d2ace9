/*
 * What machine_kexec did on i386 without PAE before the thread (Linux 2.6.16, identity_map_page): an
 * entry for the control page is planted in the page directory that the CPU is running on, with a page
 * table of the kernel's own below it, and the control page is called at its physical address.
 *
 * There this is C; what is the same and what differs is said in in_place_x86_64.S.
 *
 * At the call, at V, in the old kernel's text:
 *      edi  head, esi  P, edx  start: handed on to the control page
 *      ecx  PAGE_OFFSET: where the old kernel's direct map begins
 *      ebx  pgtable_level1, a page table of zeros in the kernel's own data (physical)
 *      eax  V
 */
	.set	KERNEL_DS, 0x68
	.set	ATTRIBUTES, 0x63		/* present, writable, accessed, dirty; NX is not among them */
	.set	PAGE, 4096

	.text
	.code32
machine_kexec:
	cli
	cld
	/* pgtable_level1[P >> 12 & 1023] = P | ATTRIBUTES */
	add	%ecx, %ebx
	mov	%esi, %ebp
	shr	$12, %ebp
	and	$1023, %ebp
	lea	(%ebx, %ebp, 4), %ebx
	lea	ATTRIBUTES(%esi), %ebp
	mov	%ebp, (%ebx)
	and	$-PAGE, %ebx
	sub	%ecx, %ebx
	/* the current pgd[P >> 22] = pgtable_level1 | ATTRIBUTES */
	add	$ATTRIBUTES, %ebx
	mov	%esi, %ebp
	shr	$22, %ebp
	lea	(%ecx, %ebp, 4), %ebp
	mov	%cr3, %ecx
plant:
	mov	%ebx, (%ebp, %ecx)
	/* Flush: global translations stay, "but that is not an issue", says the kernel. */
	mov	%ecx, %cr3
flushed:
	mov	$KERNEL_DS, %ebx
	mov	%ebx, %ds
	mov	%ebx, %es
	mov	%ebx, %ss
	mov	%ebx, %fs
	mov	%ebx, %gs
	lgdt	nothing - machine_kexec(%eax)
	lidt	nothing - machine_kexec(%eax)
	jmp	*%esi

	.balign	8
nothing:
	.word	0
	.long	0
