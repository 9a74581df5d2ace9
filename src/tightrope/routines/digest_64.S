/*
 * The digest that our purgatory makes of a segment, for a process that fills in a plan's rows: the same code,
 * eight stripes at once, where the CPU has AVX2 and no SHA instructions.  System V's calling convention:
 *
 *      digest_64(rdi: bytes, rsi: how many, rdx: 32 bytes that get the digest)
 *
 *      +0x0000  code and constants
 *      +0x2000  what is written, beside the caller's 32 bytes: one call at a time
 */
	.text
	.code64
digest_64:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	push	%rdx
	push	%rsi
	push	%rdi
	mov	%rsp, %r12
	cld
	call	digest_segment
	/* The caller's SSE code would be slow with the upper halves in use (Intel's optimization manual, 15.3). */
	vzeroupper
	pop	%rdi
	pop	%rsi
	pop	%rdi
	lea	found(%rip), %rsi
	mov	$4, %ecx
	rep movsq
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret

	.include "digest_nine.inc"
	.include "sha_256.inc"
	.include "sha_256_eight.inc"

	.balign	8
has_sha:
	.quad	0
has_avx2:
	.quad	1

	.org	0x2000
	.include "digest_words.inc"
