/*
 * The control page of i386 and PAE as it was before the thread (Linux 2.6.16): entered at its physical
 * address, it turns paging off, copies, and enters the new kernel.
 *
 * What is here, and what differs from 2.6.16: as in control_x86_64.S.  There CR4 was left alone on a
 * CPU without PAE; here it is written always.
 *
 * At the call, at P, which leads to itself; paging may be off already:
 *      edi  head: the first word of the page list
 *      esi  P, the physical address of this page
 *      edx  start, the physical address to enter
 */
	.set	CR0_OFF, 1 << 31 | 1 << 18 | 1 << 16 | 1 << 3 | 1 << 2	/* PG AM WP TS EM */
	.set	CR0_ON, 1			/* PE */
	.set	PAGE, 4096

	.text
	.code32
control:
	lea	PAGE(%esi), %esp
	pushl	$0
	popfl
	mov	%cr0, %eax
	and	$~CR0_OFF, %eax
	or	$CR0_ON, %eax
	mov	%eax, %cr0
	jmp	1f
1:	xor	%eax, %eax
	mov	%eax, %cr4
	mov	%eax, %cr3
paging_off:
	/* ecx = the word, ebx = where the next word is, edi = the next destination. */
	mov	%edi, %ecx
	xor	%edi, %edi
	xor	%ebx, %ebx
	jmp	classify
next_word:
	mov	(%ebx), %ecx
	add	$4, %ebx
classify:
	test	$1, %cl			/* IND_DESTINATION */
	jz	1f
	mov	%ecx, %edi
	and	$-PAGE, %edi
	jmp	next_word
1:	test	$2, %cl			/* IND_INDIRECTION */
	jz	2f
	mov	%ecx, %ebx
	and	$-PAGE, %ebx
	jmp	next_word
2:	test	$4, %cl			/* IND_DONE */
	jnz	done
	test	$8, %cl			/* IND_SOURCE */
	jz	next_word
	mov	%ecx, %esi
	and	$-PAGE, %esi
	cmp	%esi, %edi
	jne	copy_page
	add	$PAGE, %edi
	jmp	next_word
copy_page:
	mov	$PAGE / 4, %ecx
	rep movsl
	jmp	next_word
done:
	xor	%eax, %eax
	mov	%eax, %cr3
	pushl	$0
	push	%edx
	xor	%ebx, %ebx
	xor	%ecx, %ecx
	xor	%edx, %edx
	xor	%esi, %esi
	xor	%edi, %edi
	xor	%ebp, %ebp
	ret
