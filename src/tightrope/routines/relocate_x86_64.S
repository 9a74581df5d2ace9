/*
 * The relocation code for x86_64 with two tables: the six steps of the thread.
 *
 * What is here: everything between the call at V and the first instruction of whatever `start` is.
 * What must not be here: any knowledge of image formats, and any write outside the control page and
 * the destinations.  It is position independent, keeps no data but its gdt, and saves nothing: there
 * is no way back.
 *
 *      P + 4096 +------------------+
 *               | stack, 16 words  |   grows down; the new kernel finds a zero at its top
 *               +------------------+
 *               | gdt              |
 *               | code             |
 *      P, V     +------------------+
 *
 * At the call (registers as machine_kexec loads them):
 *      rdi  head: the first word of the page list
 *      rsi  P, the physical address of the control page
 *      rdx  start, the physical address to enter
 *      rcx  page_table_a       maps V -> P and P -> P
 *      r8   page_table_b       maps what the copy and the entry touch, each address to itself
 * At the entry: every general register 0 but rsp; rsp = P + 4088 and 0(%rsp) = 0; interrupts off,
 * idt with limit 0, gdt in the control page with 0x10 = flat 64-bit code, 0x18 = flat data, both in
 * use; CR0 = PG NE ET MP PE, CR4 = PAE and LA57 as it was; CR3 = page_table_b.
 */
	.set	CR4_KEPT, 1 << 5 | 1 << 12	/* PAE, LA57 */
	.set	CR0_KNOWN, 0x80000033		/* PG NE ET MP PE */
	.set	CS, 0x10
	.set	DS, 0x18
	.set	PAGE, 4096

	.text
	.code64
relocate:
	/* Step 1: called at V.  No interrupt may find the old kernel's handlers from here on. */
	cli
	cld
	.ifdef	PAGE_LIST
	/* Called with Xen's page_list in rsi: PA_TABLE_PAGE, PA_PGD, PA_CONTROL_PAGE. */
	mov	16 * 8(%rsi), %r8
	mov	2 * 8(%rsi), %rcx
	mov	(%rsi), %rsi
	.endif

	/* Step 2.  V leads to the control page from here on: the same bytes at the same address. */
	mov	%rcx, %cr3
after_table_a:
	/*
	 * Clearing PGE drops every translation, also global ones, which a CR3 write keeps.  It has to
	 * happen at V, before any identity address is trusted: the old kernel may have had a global
	 * mapping at the linear address P.  The same write clears CET, without which CR0.WP could not
	 * be cleared below, and PCIDE.  PAE and LA57 cannot change in long mode.
	 */
	mov	%cr4, %rax
cr4_kept:
	and	$CR4_KEPT, %eax
clear_pge:
	mov	%rax, %cr4

	/* Step 3.  The stack first: everything after it needs one, and the old one is not mapped. */
set_stack:
	lea	PAGE(%rsi), %rsp
	pushq	$0
	popfq
	/* A hardware breakpoint of the old kernel's debugger would raise #DB with no handler. */
	xor	%eax, %eax
debug_off:
	mov	%rax, %dr7
	/* idt: base 0, limit 0.  An exception from here on is a triple fault, not a stale handler. */
	sub	$16, %rsp
	movw	$0, 6(%rsp)
	movq	$0, 8(%rsp)
	lidt	6(%rsp)
	lea	gdt - relocate(%rsi), %rax
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

	/* Step 4.  A far return, so that CS too comes from our gdt and not from the old kernel's. */
	pushq	$CS
	lea	identity - relocate(%rsi), %rax
	push	%rax
	lretq
identity:
	/*
	 * Step 5.  CR0 as a constant: a 32-bit `and` or `or` on what was there would leave the old
	 * kernel's WP, AM or TS to chance.
	 */
	mov	$CR0_KNOWN, %eax
	mov	%rax, %cr0
	mov	%r8, %cr3
after_table_b:
	/* Step 6.  rcx = the word, rbx = where the next word is, rdi = the next destination. */
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
	test	$8, %cl			/* IND_SOURCE; a word without a flag is skipped, as Linux does */
	jz	next_word
	mov	%rcx, %rsi
	and	$-PAGE, %rsi
	cmp	%rsi, %rdi		/* in place already: nothing to copy */
	jne	copy_page
	add	$PAGE, %rdi
	jmp	next_word
copy_page:
	mov	$PAGE / 8, %ecx
	rep movsq
	jmp	next_word
done:
	/* Serialize: what was copied may be what is executed next. */
	mov	%cr3, %rax
	mov	%rax, %cr3
	/* A purgatory of kexec-tools reads 0(%rsp) at its entry: it has to be there, and zero. */
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

	.balign	8
gdt:
	.quad	0
	.quad	0
	.quad	0x00af9b000000ffff	/* 0x10: code, 64-bit, flat, ring 0, accessed */
	.quad	0x00cf93000000ffff	/* 0x18: data, flat, ring 0, writable, accessed */
gdt_end:
