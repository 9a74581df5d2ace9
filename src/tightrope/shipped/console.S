# The console: routines behind lines.S, down to one character on the first serial port.
# Rules: polled, never waited for without end; the port stays as firmware or the old kernel left it.

# Open a line.  In: ZF the verdict, rsi what it is about.  Out: r13, r12.
judge:
	setnz	%r13b
	movzbl	%r13b, %r13d
	add	%r13d, %r12d
	push	%rsi
	SAY	"tightrope: "
	test	%r13d, %r13d
	jnz	1f
	SAY	"ok   "
	jmp	2f
1:	SAY	"BAD  "
2:	pop	%rsi
	call	say
	SAY	": "
	ret

# Close a line.  In: r13, rsi the reason for a BAD one.
finish:
	test	%r13d, %r13d
	jz	newline
	call	say
newline:
	TEXT	"\r\n", say
	ret

# The text at rsi, up to its zero.
say:	lodsb
	test	%al, %al
	jz	1f
	call	put
	jmp	say
1:	ret

# The command line at r9, if any; what would break the line shows as a question mark.
say_command_line:
	mov	%r9, %rsi
	test	%rsi, %rsi
	jz	3f
1:	lodsb
	test	%al, %al
	jz	3f
	cmp	$' ', %al			# signed: bytes of 0x80 and above are below it as well
	jge	2f
	mov	$'?', %al
2:	call	put
	jmp	1b
3:	ret

# rdi in decimal.
say_decimal:
	mov	%rdi, %rax
1:	mov	$10, %ecx
	xor	%edx, %edx
	div	%rcx
	push	%rdx
	test	%rax, %rax
	jz	2f
	call	1b
2:	pop	%rax
	add	$'0', %eax
	jmp	put

# [r10, r11), in hex.
say_extent:
	SAY	"["
	mov	%r10, %rdi
	call	say_hex
	SAY	", "
	mov	%r11, %rdi
	call	say_hex
	SAY	")"
	ret

# rdi in hex, with 0x and no leading zeros; or its low half as eight digits, the way of a checksum.
say_hex:
	SAY	"0x"
	mov	%rdi, %rcx
	or	$1, %rcx
	bsr	%rcx, %rcx
	and	$~3, %ecx			# the highest digit's shift
	jmp	1f
say_hex8:
	mov	$28, %ecx
1:	mov	%rdi, %rax
	shr	%cl, %rax
	and	$15, %eax
	add	$'0', %eax
	cmp	$'9', %eax
	jbe	2f
	add	$'a' - '9' - 1, %eax
2:	push	%rcx
	call	put
	pop	%rcx
	sub	$4, %ecx
	jae	1b
	ret

# One character, al.
put:	mov	%al, %r8b
	mov	$UART_STATUS, %edx
	mov	$UART_PATIENCE, %ecx
1:	in	(%dx), %al
	test	$UART_READY, %al
	loopz	1b
	mov	%r8b, %al
	mov	$UART_DATA, %edx
	out	%al, (%dx)
	ret
