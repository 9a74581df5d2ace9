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

/*
 * SHA-256 (FIPS 180-4) of rdx bytes at rsi into the 32 bytes at rdi; a function of the psABI.
 * blocks: rcx blocks at rsi into the eight words at rdi; rsi ends behind them.
 */
digest:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	push	%rdx
	lea	initial(%rip), %r8
	.irp	at, 0, 8, 16, 24
	mov	\at(%r8), %rax
	mov	%rax, \at(%rdi)
	.endr
	mov	%rdx, %rcx
	shr	$6, %rcx
	call	blocks
	/* What is left, a one, zeros, and the length in bits: one more block, or two. */
	mov	(%rsp), %rdx
	mov	%edx, %ecx
	and	$63, %ecx
	mov	%ecx, %ebx
	mov	%rdi, %rbp
	lea	last(%rip), %rdi
	rep movsb
	movb	$0x80, (%rdi)
	inc	%rdi
	mov	$127, %ecx
	sub	%ebx, %ecx
	xor	%eax, %eax
	rep stosb
	mov	$1, %ecx
	cmp	$56, %ebx
	jb	7f
	inc	%ecx
7:	lea	last(%rip), %rsi
	mov	%ecx, %eax
	shl	$6, %eax
	shl	$3, %rdx
	bswap	%rdx
	mov	%rdx, -8(%rsi, %rax)
	mov	%rbp, %rdi
	call	blocks
	mov	$8, %ecx
8:	mov	-4(%rdi, %rcx, 4), %eax
	bswap	%eax
	mov	%eax, -4(%rdi, %rcx, 4)
	loop	8b
	pop	%rdx
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret

blocks:
	test	%rcx, %rcx
	jz	9f
	cmpq	$0, has_sha(%rip)
	jne	blocks_sha
	jmp	blocks_portable
9:	ret

/* FIPS 180-4, 6.2.2, in general registers: eight rounds a turn, so that no value has to move. */
	.macro	ROUND a, b, c, d, e, f, g, h, at
	mov	\e, %r12d
	ror	$14, %r12d
	mov	\f, %r13d
	xor	\e, %r12d
	xor	\g, %r13d
	ror	$5, %r12d
	and	\e, %r13d
	xor	\e, %r12d
	xor	\g, %r13d
	ror	$6, %r12d
	add	\at(%rbp), \h
	add	\at(%r14), \h
	add	%r13d, \h
	add	%r12d, \h
	add	\h, \d
	/* Maj is (a and b) or (c and (a xor b)), which have no bit in common. */
	mov	\a, %r12d
	mov	\a, %r13d
	ror	$9, %r12d
	xor	\b, %r13d
	xor	\a, %r12d
	and	\c, %r13d
	ror	$11, %r12d
	add	%r13d, \h
	xor	\a, %r12d
	mov	\a, %r13d
	ror	$2, %r12d
	and	\b, %r13d
	add	%r12d, \h
	add	%r13d, \h
	.endm

blocks_portable:
	push	%rdi
	push	%rcx
block:
	lea	schedule(%rip), %rbp
	.irp	at, 0, 8, 16, 24, 32, 40, 48, 56
	mov	\at(%rsi), %rax
	bswap	%rax
	rol	$32, %rax
	mov	%rax, \at(%rbp)
	.endr
	add	$64, %rsi
	mov	$48, %ecx
	lea	64(%rbp), %r14
10:	mov	-60(%r14), %eax
	mov	%eax, %ebx
	mov	%eax, %edx
	ror	$7, %eax
	ror	$18, %ebx
	shr	$3, %edx
	xor	%ebx, %eax
	xor	%edx, %eax
	mov	-8(%r14), %ebx
	add	-64(%r14), %eax
	mov	%ebx, %edx
	mov	%ebx, %r8d
	ror	$17, %ebx
	ror	$19, %edx
	shr	$10, %r8d
	add	-28(%r14), %eax
	xor	%edx, %ebx
	xor	%r8d, %ebx
	add	%ebx, %eax
	mov	%eax, (%r14)
	add	$4, %r14
	dec	%ecx
	jnz	10b
	mov	8(%rsp), %rdi
	mov	(%rdi), %eax
	mov	4(%rdi), %ebx
	mov	8(%rdi), %ecx
	mov	12(%rdi), %edx
	mov	16(%rdi), %r8d
	mov	20(%rdi), %r9d
	mov	24(%rdi), %r10d
	mov	28(%rdi), %r11d
	lea	constants(%rip), %r14
	mov	$8, %r15d
11:	ROUND	%eax, %ebx, %ecx, %edx, %r8d, %r9d, %r10d, %r11d, 0
	ROUND	%r11d, %eax, %ebx, %ecx, %edx, %r8d, %r9d, %r10d, 4
	ROUND	%r10d, %r11d, %eax, %ebx, %ecx, %edx, %r8d, %r9d, 8
	ROUND	%r9d, %r10d, %r11d, %eax, %ebx, %ecx, %edx, %r8d, 12
	ROUND	%r8d, %r9d, %r10d, %r11d, %eax, %ebx, %ecx, %edx, 16
	ROUND	%edx, %r8d, %r9d, %r10d, %r11d, %eax, %ebx, %ecx, 20
	ROUND	%ecx, %edx, %r8d, %r9d, %r10d, %r11d, %eax, %ebx, 24
	ROUND	%ebx, %ecx, %edx, %r8d, %r9d, %r10d, %r11d, %eax, 28
	add	$32, %rbp
	add	$32, %r14
	dec	%r15d
	jnz	11b
	add	%eax, (%rdi)
	add	%ebx, 4(%rdi)
	add	%ecx, 8(%rdi)
	add	%edx, 12(%rdi)
	add	%r8d, 16(%rdi)
	add	%r9d, 20(%rdi)
	add	%r10d, 24(%rdi)
	add	%r11d, 28(%rdi)
	decq	(%rsp)
	jnz	block
	pop	%rcx
	pop	%rdi
	ret

/* The same with the CPU's own instructions: four rounds a turn.  xmm1 is ABEF, xmm2 CDGH. */
blocks_sha:
	movdqu	(%rdi), %xmm1
	movdqu	16(%rdi), %xmm2
	/* a b c d, e f g h, lowest first -> F E B A, H G D C */
	pshufd	$0xb1, %xmm1, %xmm1
	pshufd	$0x1b, %xmm2, %xmm2
	movdqa	%xmm1, %xmm7
	palignr	$8, %xmm2, %xmm1
	pblendw	$0xf0, %xmm7, %xmm2
	movdqa	big_endian(%rip), %xmm8
block_sha:
	movdqa	%xmm1, %xmm9
	movdqa	%xmm2, %xmm10
	movdqu	(%rsi), %xmm3
	movdqu	16(%rsi), %xmm4
	movdqu	32(%rsi), %xmm5
	movdqu	48(%rsi), %xmm6
	add	$64, %rsi
	pshufb	%xmm8, %xmm3
	pshufb	%xmm8, %xmm4
	pshufb	%xmm8, %xmm5
	pshufb	%xmm8, %xmm6
	lea	constants(%rip), %rdx
	mov	$16, %eax
12:	movdqa	%xmm3, %xmm0
	paddd	(%rdx), %xmm0
	add	$16, %rdx
	sha256rnds2	%xmm0, %xmm1, %xmm2
	pshufd	$0x0e, %xmm0, %xmm0
	sha256rnds2	%xmm0, %xmm2, %xmm1
	/* The next four words of the schedule take the place of these four; the last ones are not used. */
	sha256msg1	%xmm4, %xmm3
	movdqa	%xmm6, %xmm7
	palignr	$4, %xmm5, %xmm7
	paddd	%xmm7, %xmm3
	sha256msg2	%xmm6, %xmm3
	movdqa	%xmm3, %xmm7
	movdqa	%xmm4, %xmm3
	movdqa	%xmm5, %xmm4
	movdqa	%xmm6, %xmm5
	movdqa	%xmm7, %xmm6
	dec	%eax
	jnz	12b
	paddd	%xmm9, %xmm1
	paddd	%xmm10, %xmm2
	dec	%rcx
	jnz	block_sha
	pshufd	$0x1b, %xmm1, %xmm1
	pshufd	$0xb1, %xmm2, %xmm2
	movdqa	%xmm1, %xmm7
	pblendw	$0xf0, %xmm2, %xmm1
	palignr	$8, %xmm7, %xmm2
	movdqu	%xmm1, (%rdi)
	movdqu	%xmm2, 16(%rdi)
	ret

	.balign	16
constants:	/* the first 32 bits of the fractions of the primes' cube roots */
	.long	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5
	.long	0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5
	.long	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3
	.long	0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174
	.long	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc
	.long	0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da
	.long	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7
	.long	0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967
	.long	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13
	.long	0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85
	.long	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3
	.long	0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070
	.long	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5
	.long	0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3
	.long	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208
	.long	0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2
initial:	/* and of their square roots */
	.long	0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a
	.long	0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19
big_endian:
	.byte	3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12
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
