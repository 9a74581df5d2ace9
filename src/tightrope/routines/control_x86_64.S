/*
 * The control page of x86_64 as it was before the thread (Linux 2.6.16): entered at its physical
 * address, it knows nothing of V and switches no table that leads away from it.
 *
 * Two designs call it: `in-place`, whose caller has overwritten the current pgd, and `split-function`,
 * whose switching function stays in the old kernel's text.  Three things differ from 2.6.16: LA57
 * stays as it was, a page that is in place is not copied onto itself, and r9 and r10 are zero at the
 * entry (there one instruction named the wrong register).
 *
 * At the call, at P, which leads to itself:
 *      rdi  head: the first word of the page list
 *      rsi  P, the physical address of this page
 *      rdx  start, the physical address to enter
 *      r8   page_table_b       maps what the copy and the entry touch, each address to itself
 * At the entry: as relocate_x86_64 leaves it, but for the gdt, cs and the data segments, which are the
 * caller's: what is entered loads its own.
 */
	.set	CR4_KEPT, 1 << 5 | 1 << 12	/* PAE, LA57 */
	.set	CR0_OFF, 1 << 18 | 1 << 16 | 1 << 3 | 1 << 2	/* AM WP TS EM */
	.set	CR0_ON, 1 << 31 | 1		/* PG PE */
	.set	PAGE, 4096

	.text
	.code64
control:
	/* The stack first: 2.6.16 leaves the old kernel's here, by its identity address. */
	lea	PAGE(%rsi), %rsp
	pushq	$0
	popfq
	mov	%cr0, %rax
	and	$~CR0_OFF, %rax
	mov	$CR0_ON, %ecx
	or	%rcx, %rax
	mov	%rax, %cr0
	mov	%cr4, %rax
	and	$CR4_KEPT, %eax
	mov	%rax, %cr4
	mov	%r8, %cr3
after_table_b:
	/* rcx = the word, rbx = where the next word is, rdi = the next destination. */
	mov	%rdi, %rcx
	xor	%edi, %edi
	xor	%ebx, %ebx
	jmp	classify
next_word:
	mov	(%rbx), %rcx
	add	$8, %rbx
classify:
	test	$1, %cl			/* IND_DESTINATION */
	jz	1f
	mov	%rcx, %rdi
	and	$-PAGE, %rdi
	jmp	next_word
1:	test	$2, %cl			/* IND_INDIRECTION */
	jz	2f
	mov	%rcx, %rbx
	and	$-PAGE, %rbx
	jmp	next_word
2:	test	$4, %cl			/* IND_DONE */
	jnz	done
	test	$8, %cl			/* IND_SOURCE */
	jz	next_word
	mov	%rcx, %rsi
	and	$-PAGE, %rsi
	cmp	%rsi, %rdi
	jne	copy_page
	add	$PAGE, %rdi
	jmp	next_word
copy_page:
	mov	$PAGE / 8, %ecx
	rep movsq
	jmp	next_word
done:
	mov	%cr3, %rax
	mov	%rax, %cr3
	pushq	$0
	push	%rdx
	xor	%eax, %eax
	xor	%ebx, %ebx
	xor	%ecx, %ecx
	xor	%edx, %edx
	xor	%esi, %esi
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
	ret
