/*
 * The relocation code for i386, with and without PAE: the six steps of the thread.
 *
 * What is here and what must not be: as in relocate_x86_64.S.  Two things differ.  There is no
 * page_table_b: step 5 turns paging off, which is allowed because the code runs at its identity
 * address by then.  And the order of step 5 is the manual's: PG before PAE (clearing PAE under paging
 * would make the CPU read the PDPTEs as page directory entries), CR3 last.
 *
 *      P + 4096 +------------------+
 *               | stack, 8 words   |   grows down; the new kernel finds a zero at its top
 *               +------------------+
 *               | gdt              |
 *               | code             |
 *      P, V     +------------------+
 *
 * At the call:
 *      edi  head: the first word of the page list
 *      esi  P, the physical address of the control page
 *      edx  start, the physical address to enter
 *      ecx  page_table_a       maps V -> P and P -> P
 * At the entry: paging off; every general register 0 but esp; esp = P + 4092 and 0(%esp) = 0;
 * interrupts off, idt with limit 0, gdt in the control page with 0x10 = flat 32-bit code and 0x18 =
 * flat data, both in use; CR0 = NE ET MP PE, CR4 = 0, CR3 = 0.
 */
	.set	CR4_KEPT, 1 << 5		/* PAE: cannot go while paging is on */
	.set	CR0_KNOWN, 0x00000033		/* NE ET MP PE */
	.set	CS, 0x10
	.set	DS, 0x18
	.set	PAGE, 4096

	.text
	.code32
relocate:
	/* Step 1: called at V.  No interrupt may find the old kernel's handlers from here on. */
	cli
	cld
	.ifdef	PAGE_LIST
	/* Called by Xen as a C function: the head, page_list, start and has_pae are on its stack. */
	mov	4(%esp), %edi
	mov	12(%esp), %edx
	mov	8(%esp), %esi
	mov	2 * 4(%esi), %ecx	/* PA_PGD */
	mov	(%esi), %esi		/* PA_CONTROL_PAGE */
	.endif

	/* Step 2.  V leads to the control page from here on: the same bytes at the same address. */
	mov	%ecx, %cr3
after_table_a:
	/* At V: drop global translations too, before any identity address is trusted. */
	mov	%cr4, %eax
	and	$CR4_KEPT, %eax
clear_pge:
	mov	%eax, %cr4

	/* Step 3.  The stack first: everything after it needs one, and the old one is not mapped. */
set_stack:
	lea	PAGE(%esi), %esp
	pushl	$0
	popfl
	xor	%eax, %eax
	mov	%eax, %dr7
	/* idt: base 0, limit 0.  An exception from here on is a triple fault, not a stale handler. */
	sub	$8, %esp
	movw	$0, 2(%esp)
	movl	$0, 4(%esp)
	lidt	2(%esp)
	lea	gdt - relocate(%esi), %eax
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

	/* Step 4.  A far return, so that CS too comes from our gdt and not from the old kernel's. */
	pushl	$CS
	lea	identity - relocate(%esi), %eax
	push	%eax
	lretl
identity:
	/* Step 5.  Paging off first; the jump makes the CPU forget what it fetched ahead. */
	mov	$CR0_KNOWN, %eax
	mov	%eax, %cr0
	jmp	1f
1:	xor	%eax, %eax
	mov	%eax, %cr4
	mov	%eax, %cr3
paging_off:
	/* Step 6.  ecx = the word, ebx = where the next word is, edi = the next destination. */
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
	test	$8, %cl			/* IND_SOURCE; a word without a flag is skipped, as Linux does */
	jz	next_word
	mov	%ecx, %esi
	and	$-PAGE, %esi
	cmp	%esi, %edi		/* in place already: nothing to copy */
	jne	copy_page
	add	$PAGE, %edi
	jmp	next_word
copy_page:
	mov	$PAGE / 4, %ecx
	rep movsl
	jmp	next_word
done:
	/* Serialize: what was copied may be what is executed next. */
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

	.balign	8
gdt:
	.quad	0
	.quad	0
	.quad	0x00cf9b000000ffff	/* 0x10: code, 32-bit, flat, ring 0, accessed */
	.quad	0x00cf93000000ffff	/* 0x18: data, flat, ring 0, writable, accessed */
gdt_end:
