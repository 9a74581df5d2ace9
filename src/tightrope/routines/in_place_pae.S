/*
 * What machine_kexec did on i386 with PAE before the thread (Linux 2.6.16, identity_map_page): an
 * entry for the control page is planted in the page directory pointer table that the CPU is running
 * on, with two tables of the kernel's own below it, and the control page is called at its physical
 * address.
 *
 * There this is C; what is the same and what differs is said in in_place_x86_64.S.  The entry of eight
 * bytes is written in two halves here, in one there: the CPU reads it when CR3 is loaded and not
 * before.
 *
 * At the call, at V, in the old kernel's text:
 *      edi  head, esi  P, edx  start: handed on to the control page
 *      ecx  PAGE_OFFSET: where the old kernel's direct map begins
 *      ebx  pgtable_level1 and, in the page behind it, pgtable_level2: tables of zeros in the
 *           kernel's own data (physical)
 *      eax  V
 */
	.set	KERNEL_DS, 0x68
	.set	ATTRIBUTES, 0x63		/* present, writable, accessed, dirty; NX is not among them */
	.set	PRESENT, 0x01			/* all that a PDPTE may have */
	.set	PAGE, 4096

	.text
	.code32
machine_kexec:
	cli
	cld
	/* pgtable_level1[P >> 12 & 511] = P | ATTRIBUTES */
	add	%ecx, %ebx
	mov	%esi, %ebp
	shr	$12, %ebp
	and	$511, %ebp
	lea	(%ebx, %ebp, 8), %ebx
	lea	ATTRIBUTES(%esi), %ebp
	mov	%ebp, (%ebx)
	movl	$0, 4(%ebx)
	and	$-PAGE, %ebx
	/* pgtable_level2[P >> 21 & 511] = pgtable_level1 | ATTRIBUTES */
	mov	%esi, %ebp
	shr	$21, %ebp
	and	$511, %ebp
	lea	PAGE(%ebx, %ebp, 8), %ebp
	sub	%ecx, %ebx
	add	$ATTRIBUTES, %ebx
	mov	%ebx, (%ebp)
	movl	$0, 4(%ebp)
	/* the current pgd[P >> 30] = pgtable_level2 | PRESENT */
	and	$-PAGE, %ebx
	add	$PAGE + PRESENT, %ebx
	mov	%esi, %ebp
	shr	$30, %ebp
	lea	(%ecx, %ebp, 8), %ebp
	mov	%cr3, %ecx
plant:
	mov	%ebx, (%ebp, %ecx)
	movl	$0, 4(%ebp, %ecx)
	/* Flush; with PAE this is also what makes the CPU read the entry. */
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
