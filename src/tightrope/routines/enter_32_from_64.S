/*
 * The entry stub of a 32-bit entry, from a walk that ends in long mode: 64-bit code, compatibility mode,
 * paging off, long mode off, then the state that enter_32.S makes too.
 *
 * The order is the manual's (SDM 9.8.5.4): CS.L = 0 first, because CR0.PG cannot be cleared in 64-bit
 * code; then PG; then EFER.LME, which cannot change while paging is on; then CR4.PAE.  The stub must lie
 * below 4 GiB, as must everything that it points to.  The words at the end are the plan's.
 */
	.set	CS, 0x10
	.set	DS, 0x18
	.set	MSR_EFER, 0xc0000080
	.set	EFER_KEPT_MASK, ~(1 << 8)	/* all but LME */

	.text
	.code64
enter:
	lea	enter + 4096(%rip), %rsp
	pushq	$0
clear_flags:
	popfq
	lea	gdt(%rip), %rax
	sub	$16, %rsp
	movw	$gdt_end - gdt - 1, 6(%rsp)
	mov	%rax, 8(%rsp)
	lgdt	6(%rsp)
	add	$16, %rsp
	lea	enter(%rip), %rbp
	lea	compatibility(%rip), %rax
	pushq	$CS
	push	%rax
	lretq

	.code32
compatibility:
	mov	$DS, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	%eax, %fs
	mov	%eax, %gs
	/* The stub is mapped to itself: turning paging off changes no address. */
	mov	known_cr0 - enter(%ebp), %eax
paging_off:
	mov	%eax, %cr0
	jmp	1f
1:	mov	$MSR_EFER, %ecx
	rdmsr
	and	$EFER_KEPT_MASK, %eax
	wrmsr
	xor	%eax, %eax
	mov	%eax, %cr4
	mov	%eax, %cr3
hand_over:
	pushl	$0
	pushl	kernel_entry - enter(%ebp)
	mov	word_eax - enter(%ebp), %eax
	mov	word_ebx - enter(%ebp), %ebx
	mov	word_esi - enter(%ebp), %esi
	xor	%ecx, %ecx
	xor	%edx, %edx
	xor	%edi, %edi
	xor	%ebp, %ebp
	ret

	.balign	8
gdt:
	.quad	0
	.quad	0
	.quad	0x00cf9b000000ffff	/* __BOOT_CS 0x10: 32-bit code */
	.quad	0x00cf93000000ffff	/* __BOOT_DS 0x18 */
gdt_end:
known_cr0:
	.quad	0
kernel_entry:
	.quad	0
word_eax:
	.quad	0
word_ebx:
	.quad	0
word_esi:
	.quad	0
