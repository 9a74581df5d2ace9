/*
 * The way out of a 64-bit hypervisor to a 32-bit dom0's relocation code (Xen 3.1 to 4.3, interface v1).
 *
 * What is here: long mode left and PAE paging entered, by the manual's order (SDM 9.8.5.4 and 9.8.5.3):
 * compatibility mode, PG off, LME off, PG on again with PAE's own tables.  What must not be here: a store.
 * Everything that is read lies ready since the image was loaded: who has crashed loses no byte to this.
 *
 *      hypervisor's text, T + 4096 +-----------+       W + 4096 +------------------------------+
 *                                  | gdt       |                | has_pae, start, list, head   |  <- esp
 *                                  | code      |                | 0                            |
 *      T; virtually V too          +-----------+                | far address and selector     |
 *                                                               | gdtr, idtr                   |
 *                                                             W | page_list, 32 bits a word    |
 *
 * At the call, under the tables that the hypercall found, at the routine's address in the hypervisor:
 *      rdi  what is called at the end: VA_CONTROL_PAGE of dom0's page_list
 *      rsi  4-level tables        map this page here and to itself, and W to itself
 *      rdx  PAE tables            map this page and W to themselves, and the pages of page_list
 *      rcx  W                     a page of words, all below 4 GiB
 * When dom0's code is called: 32 bits, PAE paging, every segment flat, idt with limit 0, and on the stack
 * what a 32-bit hypervisor would have pushed: 0, head, page_list, start, has_pae.
 */
	.set	CR4_KNOWN, 1 << 5		/* PAE */
	.set	CR0_PG_OFF, 0x7fffffff
	.set	CR0_PG, 0x80000000
	.set	MSR_EFER, 0xc0000080
	.set	EFER_KEPT_MASK, ~(1 << 8)	/* all but LME */
	.set	DS, 0x18
	.set	WORDS_GDTR, 0x100
	.set	WORDS_IDTR, 0x110
	.set	WORDS_FAR, 0x120
	.set	WORDS_STACK, 0xfe0

	.text
	.code64
leave:
	cli
	cld
	mov	%rsi, %cr3
wide_tables:
	/* Still at the hypervisor's address: global translations go before an identity address is used. */
	mov	$CR4_KNOWN, %eax
	mov	%rax, %cr4
	lgdt	WORDS_GDTR(%rcx)
	lidt	WORDS_IDTR(%rcx)
	lea	WORDS_FAR(%rcx), %rsp
	lretq

	.code32
compatibility:
	mov	$DS, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	%eax, %fs
	mov	%eax, %gs
	/* RDMSR and WRMSR take these. */
	mov	%ecx, %ebx
	mov	%edx, %esi
	mov	%cr0, %eax
	and	$CR0_PG_OFF, %eax
	mov	%eax, %cr0
	jmp	1f
1:	mov	%esi, %cr3
	mov	$MSR_EFER, %ecx
	rdmsr
clear_lme:
	and	$EFER_KEPT_MASK, %eax
	wrmsr
	mov	%cr0, %eax
	or	$CR0_PG, %eax
paging_again:
	mov	%eax, %cr0
	jmp	1f
1:	lea	WORDS_STACK(%ebx), %esp
	jmp	*%edi

	.balign	8
gdt:
	.quad	0
	.quad	0
	.quad	0x00cf9b000000ffff	/* 0x10: code, 32-bit, flat, ring 0, accessed */
	.quad	0x00cf93000000ffff	/* 0x18: data, flat, ring 0, writable, accessed */
gdt_end:
