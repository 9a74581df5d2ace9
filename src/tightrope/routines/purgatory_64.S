/*
 * Our purgatory: between the relocation code and the entry stub it looks whether each segment is still
 * what was loaded, and jumps to the stub only then.  64-bit code, entered at its first byte with paging
 * on and every segment mapped to itself; it needs nothing else of its caller.
 *
 *      +0x0000  code and constants
 *      rows     address, bytes, SHA-256, name: 64 bytes each, filled in by the plan; 0 bytes end them
 *      +0x1000  what is written: the words of `digest` and `blocks`, and the stack, downwards from +0x2000
 *
 * Everything that it writes lies in its own second page, or is a port:
 *      0x3f8    which segment is damaged, on a first serial port that the old kernel has set up
 *      0x70/71  the breadcrumb: bytes 1 and 3 of the RTC (MC146818 datasheet, "address map": seconds and
 *               minutes alarm).  They have battery power, no firmware's checksum covers them, and 0xa0 up
 *               is no time in BCD or binary, so that no alarm can be met.  Where an alarm is armed
 *               (register B, AIE) they are somebody's and stay what they are.
 *                   byte 1  0xa1 entered, 0xa2 a segment is being read, 0xa3 damaged, 0xa4 left for the stub
 *                   byte 3  0xa0 + the number of the segment, from 0
 */
	.set	SIZE, 0x2000
	.set	ROW, 64
	.set	COM1, 0x3f8
	.set	AIE, 1 << 5
	.set	OSFXSR, 1 << 9

	.text
	.code64
purgatory:
	cld
	lea	purgatory + SIZE(%rip), %rsp
	call	look_for_sha
	mov	$0xa1, %bl
	xor	%ebp, %ebp
	call	breadcrumb
	mov	%cr4, %r14
	cmpq	$0, has_sha(%rip)
	je	1f
	/* Without it every SSE instruction is #UD (SDM 13.1.3); it goes off again before the stub. */
	mov	%r14, %rax
	or	$OSFXSR, %rax
	mov	%rax, %cr4
1:	lea	rows(%rip), %r12
next_row:
	cmpq	$0, 8(%r12)
	je	all_right
	mov	$0xa2, %bl
	call	breadcrumb
	lea	found(%rip), %rdi
	mov	(%r12), %rsi
	mov	8(%r12), %rdx
	call	digest
	lea	found(%rip), %rsi
	lea	16(%r12), %rdi
	mov	$4, %ecx
	repe cmpsq
	jne	damaged
	add	$ROW, %r12
	inc	%ebp
	jmp	next_row

all_right:
	mov	$0xa4, %bl
	call	breadcrumb
	cmpq	$0, has_sha(%rip)
	je	1f
	mov	%r14, %cr4
1:	jmp	*stub_entry(%rip)

damaged:
	mov	$0xa3, %bl
	call	breadcrumb
	lea	begins(%rip), %rsi
	call	say
	lea	48(%r12), %rsi
	call	say
	lea	ends(%rip), %rsi
	call	say
	cmpq	$0, resets(%rip)
	je	halt
	/* The chipset's reset register, the keyboard controller's line, and at last three faults in one. */
	mov	$0xcf9, %edx
	mov	$0x06, %al
	out	%al, %dx
	mov	$0xfe, %al
	out	%al, $0x64
	mov	$0x100000, %ecx
1:	in	$0x80, %al
	loop	1b
	pushq	$0
	pushq	$0
	lidt	(%rsp)
	int3
halt:
	cli
	hlt
	jmp	halt

/* bl to the first byte of the breadcrumb, 0xa0 + ebp to the second; al and the flags change. */
breadcrumb:
	mov	$0x0b, %al
	out	%al, $0x70
	in	$0x71, %al
	test	$AIE, %al
	jnz	1f
	mov	$0x01, %al
	out	%al, $0x70
	mov	%bl, %al
	out	%al, $0x71
	mov	$0x03, %al
	out	%al, $0x70
	lea	0xa0(%rbp), %eax
	out	%al, $0x71
1:	ret

/* The text at rsi, up to its zero or 16 bytes; a port that never gets ready is not waited for. */
say:
	mov	$16, %ebx
2:	mov	(%rsi), %ah
	test	%ah, %ah
	jz	5f
	mov	$0x10000, %ecx
	mov	$COM1 + 5, %edx
3:	in	%dx, %al
	test	$0x20, %al
	jnz	4f
	loop	3b
4:	mov	%ah, %al
	mov	$COM1, %edx
	out	%al, %dx
	inc	%rsi
	dec	%ebx
	jnz	2b
5:	ret

/* Whether this CPU has SHA, SSSE3 and SSE4.1 (Intel SDM, CPUID leaves 7 and 1): into has_sha. */
look_for_sha:
	xor	%eax, %eax
	cpuid
	cmp	$7, %eax
	jb	6f
	mov	$7, %eax
	xor	%ecx, %ecx
	cpuid
	bt	$29, %ebx
	jnc	6f
	mov	$1, %eax
	cpuid
	and	$1 << 19 | 1 << 9, %ecx
	cmp	$1 << 19 | 1 << 9, %ecx
	jne	6f
	movq	$1, has_sha(%rip)
6:	ret

	.include "sha_256.inc"

begins:
	.asciz	"\r\ntightrope: "
ends:
	.asciz	" is damaged\r\n"

	.balign	8
stub_entry:
	.quad	0
resets:
	.quad	0
	.balign	64
rows:
	.skip	16 * ROW
	.quad	0, 0

	/* What is written lies in a page without code: a store beside code makes a CPU throw code away. */
	.org	0x1000
has_sha:
	.quad	0
found:
	.skip	32
last:
	.skip	128
schedule:
	.skip	256
stack:
