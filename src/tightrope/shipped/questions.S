# What the shipped kernel computes: ranges of RAM, a checksum, the word on the command line.
# Rules: registers are those of checks.S; nothing here speaks, and nothing writes but its stack.

# ZF is set when every byte of [r10, r11) is in a usable entry of the memory map, touching ones taken
# together.  In: rbp, r15 entries.  Clobbers rax, rcx, rdx, rsi.
in_ram:
	mov	%r10, %rsi			# the first byte not yet found
	cmp	%r10, %r11
	jb	4f				# the end wrapped around
1:	cmp	%r11, %rsi
	jae	3f
	lea	BP_E820_TABLE(%rbp), %rdx
	mov	%r15d, %ecx
2:	cmpl	$E820_RAM, 16(%rdx)
	jne	5f
	mov	(%rdx), %rax
	cmp	%rsi, %rax
	ja	5f
	add	8(%rdx), %rax
	cmp	%rsi, %rax
	jbe	5f
	mov	%rax, %rsi
	jmp	1b
5:	add	$E820_ENTRY, %rdx
	dec	%ecx
	jnz	2b
4:	test	%rsp, %rsp			# clears ZF: the stack is not at 0
	ret
3:	xor	%eax, %eax
	ret

# eax: the Adler-32 of the rcx bytes at rsi (RFC 1950, section 8.2: two sums modulo 65521).  5552 is
# the largest number of bytes after which 32 bits still hold both sums; it is 347 times 16.
	.equ	ADLER_BASE, 65521
	.equ	ADLER_BLOCK, 5552
adler32:
	push	%rbx
	push	%rdi
	mov	%rcx, %r8			# bytes left
	mov	$1, %edi			# the sum of the bytes
	xor	%ebx, %ebx			# the sum of those sums
1:	mov	$ADLER_BLOCK, %ecx
	cmp	%rcx, %r8
	cmovb	%r8, %rcx
	test	%ecx, %ecx
	jz	5f
	sub	%rcx, %r8
	sub	$16, %ecx
	jb	3f
2:	.set	i, 0
	.rept	16
	movzbl	i(%rsi), %eax
	add	%eax, %edi
	add	%edi, %ebx
	.set	i, i + 1
	.endr
	add	$16, %rsi
	sub	$16, %ecx
	jae	2b
3:	add	$16, %ecx
	jz	4f
6:	movzbl	(%rsi), %eax
	add	%eax, %edi
	add	%edi, %ebx
	inc	%rsi
	dec	%ecx
	jnz	6b
4:	mov	$ADLER_BASE, %ecx
	mov	%edi, %eax
	xor	%edx, %edx
	div	%ecx
	mov	%edx, %edi
	mov	%ebx, %eax
	xor	%edx, %edx
	div	%ecx
	mov	%edx, %ebx
	jmp	1b
5:	mov	%ebx, %eax
	shl	$16, %eax
	or	%edi, %eax
	pop	%rdi
	pop	%rbx
	ret

# The first word "tightrope.initrd=<8 hex digits>" of the command line at r9 (0: there is none).
# Out: ecx how it was asked, r11d the number.  Clobbers rax, rdx, rsi.
	.equ	NOT_ASKED, 0
	.equ	ASKED, 1
	.equ	UNREADABLE, 2
asked_sum:
	mov	%r9, %rdx
	test	%rdx, %rdx
	jz	8f
1:	cmpb	$' ', (%rdx)			# rdx: the start of a word, or blanks before it
	jne	2f
	inc	%rdx
	jmp	1b
2:	lea	initrd_word(%rip), %rsi
3:	lodsb
	test	%al, %al
	jz	5f
	cmp	%al, (%rdx)
	jne	4f
	inc	%rdx
	jmp	3b
4:	cmpb	$0, (%rdx)			# another word: skip the rest of it
	je	8f
	cmpb	$' ', (%rdx)
	je	1b
	inc	%rdx
	jmp	4b
5:	xor	%r11d, %r11d
	mov	$8, %ecx
6:	movzbl	(%rdx), %eax
	sub	$'0', %eax
	cmp	$9, %eax
	jbe	7f
	or	$0x20, %eax			# upper case to lower: the same bit, though counted from '0'
	sub	$'a' - '0' - 10, %eax
	cmp	$10, %eax
	jb	9f
	cmp	$15, %eax
	ja	9f
7:	shl	$4, %r11d
	or	%eax, %r11d
	inc	%rdx
	dec	%ecx
	jnz	6b
	testb	$~' ' & 0xff, (%rdx)		# the word has to end here: a zero or a blank
	jnz	9f
	mov	$ASKED, %ecx
	ret
8:	xor	%ecx, %ecx
	ret
9:	mov	$UNREADABLE, %ecx
	ret
