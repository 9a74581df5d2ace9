/*
 * The last 64 KiB of a ROM that ends at 4 GiB: from the reset vector to flat protected mode, the rest of
 * the ROM copied to RAM from 0 up, the marked RAM filled, and a jump into the interpreter.
 *
 * Linked at 0xffff0000.  ROM, BYTES, MARKED, RAM_END, START come from the caller (--defsym).
 */
	.text
	.code16
boot:
	cli
	/* A20 by port 0x92. */
	mov	$2, %al
	out	%al, $0x92
	lgdtl	%cs:gdt_pointer - boot
	mov	%cr0, %eax
	or	$1, %al
	mov	%eax, %cr0
	ljmpl	$8, $flat

	.code32
flat:
	mov	$16, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	$ROM, %esi
	xor	%edi, %edi
	mov	$BYTES / 4, %ecx
	cld
	rep movsl
	/* Each 8 bytes are `mov $address / 8, %eax; int3`. */
	mov	$MARKED, %edi
1:	mov	%edi, %eax
	shr	$3, %eax
	mov	%eax, %edx
	shl	$8, %eax
	mov	$0xb8, %al
	mov	%eax, (%edi)
	shr	$24, %edx
	mov	$0xcc, %dh
	mov	%edx, 4(%edi)
	add	$8, %edi
	cmp	$RAM_END, %edi
	jne	1b
	mov	$START, %eax
	jmp	*%eax

	.balign	8
gdt:
	.quad	0
	.quad	0x00cf9b000000ffff
	.quad	0x00cf93000000ffff
gdt_pointer:
	.word	23
	.long	gdt

	.org	0xfff0
	.code16
	.byte	0xe9			/* jmp boot */
	.word	0x10000 - 0xfff3
	.org	0x10000
