/*
 * The hypervisor's own code page of Xen's interface v2: from the hypervisor's text at V to the image.
 *
 * What is here: the same six steps with one tree of tables, which maps V to the control page and, each
 * page to itself, the control page, the list, the sources and the requested segments: nothing else.
 * What must not be here: any write outside the control page and the destinations.
 *
 *      P + 4096 +------------------+
 *               | stack, 8 words   |   grows down
 *               +------------------+
 *               | gdt              |
 *               | code             |
 *      P, V     +------------------+
 *
 * At the call, as Xen's machine_kexec() makes it (xen/arch/x86/machine_kexec.c):
 *      rdi  P, the machine address of the code page
 *      rsi  the tables
 *      rdx  the machine address of the first page of the list: a page, and no word with a flag
 *      rcx  the machine address to enter
 *      r8   flags: bit 0, enter with paging off
 * The list has a fifth flag, IND_ZERO: clear a page at the cursor.
 * At the entry, 64 bits: every general register 0 but rsp; the gdt of this page, 0x10 = flat 64-bit
 * code, 0x18 = flat data, both in use; idt limit 0; CR0 = PG NE ET MP PE, CR4 = PAE.
 * At the entry, 32 bits: the same with 0x20 = flat 32-bit code, paging and long mode off, CR4 = 0.
 */
	.set	CR4_KNOWN, 1 << 5		/* PAE */
	.set	CR0_KNOWN, 0x80000033		/* PG NE ET MP PE */
	.set	CR0_LEGACY, 0x00000033		/* NE ET MP PE */
	.set	MSR_EFER, 0xc0000080
	.set	EFER_KEPT_MASK, ~(1 << 8)	/* all but LME */
	.set	CS, 0x10
	.set	DS, 0x18
	.set	CS_LEGACY, 0x20
	.set	PAGE, 4096

	.text
	.code64
relocate:
	/* Step 1: called at V, in the hypervisor's text. */
	cli
	cld
	/* The tables are in a register that the copy leaves alone, and so are the rest. */
	mov	%rsi, %r9
	mov	%rcx, %r10
	mov	%rdi, %r11

	/* Step 2.  V leads to the code page from here on: the same bytes at the same address. */
	mov	%rsi, %cr3
after_table_a:
	/* Global translations of the hypervisor go before an identity address is trusted. */
	mov	$CR4_KNOWN, %eax
clear_pge:
	mov	%rax, %cr4

	/* Step 3.  The stack first: the hypervisor's is not mapped any more. */
set_stack:
	lea	PAGE(%rdi), %rsp
	pushq	$0
	popfq
	xor	%eax, %eax
	mov	%rax, %dr7
	sub	$16, %rsp
	movw	$0, 6(%rsp)
	movq	$0, 8(%rsp)
	lidt	6(%rsp)
	lea	gdt - relocate(%rdi), %rax
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

	/* Step 4.  CS too comes from our gdt. */
	pushq	$CS
	lea	identity - relocate(%rdi), %rax
	push	%rax
	lretq
identity:
	/* Step 5.  There is no second tree; the first one is loaded again, at P, as the new kernel finds it. */
	mov	$CR0_KNOWN, %eax
	mov	%rax, %cr0
	mov	%r9, %cr3
after_table_b:
	/* Step 6.  rbx = where the next word is, rdi = the next destination. */
	mov	%rdx, %rbx
	xor	%edi, %edi
next_word:
	mov	(%rbx), %rcx
	add	$8, %rbx
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
	jz	3f
	mov	%rcx, %rsi
	and	$-PAGE, %rsi
	mov	$PAGE / 8, %ecx
	rep movsq
	jmp	next_word
3:	test	$16, %cl		/* IND_ZERO */
	jz	next_word
	mov	$PAGE / 8, %ecx
	xor	%eax, %eax
	rep stosq
	jmp	next_word
done:
	/* Serialize: what was copied may be what is executed next. */
	mov	%r9, %cr3
	test	$1, %r8b
	jnz	leave_long_mode
	/* A purgatory of kexec-tools reads 0(%rsp) at its entry: it has to be there, and zero. */
	pushq	$0
	push	%r10
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
leave_long_mode:
	/* Compatibility mode first: CR0.PG cannot be cleared in 64-bit code (SDM 9.8.5.4). */
	mov	%r10, %rbp
	pushq	$CS_LEGACY
	lea	compatibility - relocate(%r11), %rax
	push	%rax
	lretq

	.code32
compatibility:
	mov	$CR0_LEGACY, %eax
	mov	%eax, %cr0
	jmp	1f
1:	mov	$MSR_EFER, %ecx
	rdmsr
	and	$EFER_KEPT_MASK, %eax
	wrmsr
	xor	%eax, %eax
	mov	%eax, %cr4
	mov	%eax, %cr3
	pushl	$0
	push	%ebp
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
	.quad	0x00af9b000000ffff	/* 0x10: code, 64-bit, flat, ring 0, accessed */
	.quad	0x00cf93000000ffff	/* 0x18: data, flat, ring 0, writable, accessed */
	.quad	0x00cf9b000000ffff	/* 0x20: code, 32-bit, flat, ring 0, accessed */
gdt_end:
