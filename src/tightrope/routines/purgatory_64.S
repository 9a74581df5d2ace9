/*
 * Our purgatory: between the relocation code and the entry stub it looks whether each segment is still
 * what was loaded, and jumps to the stub only then.  64-bit code, entered at its first byte with paging
 * on and every segment mapped to itself; it needs nothing else of its caller.
 *
 *      +0x0000  code and constants
 *      rows     address, bytes, digest, name: 64 bytes each, filled in by the plan; 0 bytes end them
 *      +0x2000  what is written: the words of the digests, and the stack, downwards from +0x3000
 *
 * A segment's digest is the SHA-256 of nine: of its eight stripes, whole blocks of 64 bytes each, and of
 * what is left behind them, fewer than 512.  So a CPU with AVX2 makes eight at once.
 *
 * Everything that it writes lies in its own third page, or is a port:
 *      0x3f8    which segment is damaged, on a first serial port that the old kernel has set up
 *      0x70/71  the breadcrumb: bytes 1 and 3 of the RTC (MC146818 datasheet, "address map": seconds and
 *               minutes alarm).  They have battery power, no firmware's checksum covers them, and 0xa0 up
 *               is no time in BCD or binary, so that no alarm can be met.  Where an alarm is armed
 *               (register B, AIE) they are somebody's and stay what they are.
 *                   byte 1  0xa1 entered, 0xa2 a segment is being read, 0xa3 damaged, 0xa4 left for the stub
 *                   byte 3  0xa0 + the number of the segment, from 0
 */
	.set	SIZE, 0x3000
	.set	ROW, 64
	.set	COM1, 0x3f8
	.set	AIE, 1 << 5
	.set	OSFXSR, 1 << 9
	.set	OSXSAVE, 1 << 18
	.set	SSE_AND_AVX, 1 << 2 | 1 << 1 | 1 << 0

	.text
	.code64
purgatory:
	cld
	lea	purgatory + SIZE(%rip), %rsp
	call	look_at_cpu
	mov	$0xa1, %bl
	xor	%ebp, %ebp
	call	breadcrumb
	mov	%cr4, %r14
	call	vectors_on
	lea	rows(%rip), %r12
next_row:
	cmpq	$0, 8(%r12)
	je	all_right
	mov	$0xa2, %bl
	call	breadcrumb
	call	digest_segment
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
	call	vectors_off
	jmp	*stub_entry(%rip)

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

	/* The digest of the segment in row r12 into `found`, as the plan has made it. */
	.include "digest_nine.inc"

/*
 * What this CPU has (Intel SDM, CPUID leaves 7 and 1): SHA with SSSE3 and SSE4.1 into has_sha; without
 * it, AVX2 with AVX and XSAVE into has_avx2.
 */
look_at_cpu:
	xor	%eax, %eax
	cpuid
	cmp	$7, %eax
	jb	6f
	mov	$7, %eax
	xor	%ecx, %ecx
	cpuid
	mov	%ebx, %r8d
	mov	$1, %eax
	cpuid
	mov	%ecx, %eax
	and	$1 << 19 | 1 << 9, %eax
	cmp	$1 << 19 | 1 << 9, %eax
	jne	6f
	bt	$29, %r8d
	jnc	5f
	movq	$1, has_sha(%rip)
	ret
5:	and	$1 << 28 | 1 << 26, %ecx
	cmp	$1 << 28 | 1 << 26, %ecx
	jne	6f
	bt	$5, %r8d
	jnc	6f
	movq	$1, has_avx2(%rip)
6:	ret

/*
 * Without OSFXSR every SSE instruction is #UD (SDM 13.1.3), without OSXSAVE and its bits in XCR0 every AVX
 * one (14.1); all of them are what they were before the stub is entered.  r14 is the CR4 of the call.
 */
vectors_on:
	mov	%r14, %rax
	cmpq	$0, has_avx2(%rip)
	jne	7f
	cmpq	$0, has_sha(%rip)
	je	8f
	or	$OSFXSR, %rax
	mov	%rax, %cr4
	ret
7:	or	$OSFXSR | OSXSAVE, %rax
	mov	%rax, %cr4
	xor	%ecx, %ecx
	xgetbv
	mov	%eax, xcr0(%rip)
	mov	%edx, xcr0 + 4(%rip)
	or	$SSE_AND_AVX, %eax
	xsetbv
8:	ret

vectors_off:
	cmpq	$0, has_avx2(%rip)
	je	9f
	xor	%ecx, %ecx
	mov	xcr0(%rip), %eax
	mov	xcr0 + 4(%rip), %edx
	xsetbv
	jmp	10f
9:	cmpq	$0, has_sha(%rip)
	je	11f
10:	mov	%r14, %cr4
11:	ret

	.include "sha_256.inc"
	.include "sha_256_eight.inc"

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
	.org	0x2000
has_sha:
	.quad	0
has_avx2:
	.quad	0
xcr0:
	.quad	0
	.include "digest_words.inc"
stack:
