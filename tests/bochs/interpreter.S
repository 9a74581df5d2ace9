/*
 * A guest that makes accesses under page tables that change, and says on port 0xe9 what came of each.
 *
 * Linked at 0x2000, entered in flat protected mode.  Its orders lie at ORDERS, 13 bytes each: a byte of
 * what, `a` (4 bytes), `b` (8 bytes).
 *	0 end
 *	1 entry at a = b	(a page table entry, through the identity map)
 *	2 cr3 = a	3 cr4 = a	4 cr0 = a	5 efer = a
 *	6 flags of the next accesses = a
 *	7 access b	(a: 0 read, 1 write, 2 fetch), which answers
 *	8 answer with the entry at a
 *	9 answer with the 8 bytes at the physical address a, and put b there
 *	10 invlpg b
 * Each order that raises an exception answers, too.  An answer is 21 bytes: vector, error code (4), CR2
 * (8), value (8); vector 0x30 is none.  An access ends by `int $0x30`, a fetched marker by `int3`.
 *
 * --defsym: LONG (64-bit code), WIDE (8-byte entries), USER (accesses at CPL 3), PG_CR0, CR3, CR4, EFER,
 * ORDERS, WINDOW (a linear page for order 9) and WINDOW_ENTRY (its entry).
 */
	.set	STORED, 0x5a5a5a5a
	.set	STACK, 0x3f00
	.set	RECORD, 0x5000
	.set	ERROR, RECORD + 1
	.set	FAULT_ADDRESS, RECORD + 5
	.set	VALUE, RECORD + 13
	.set	PUSHED, 0x5040
	.set	FLAGS, 0x5048

	.text
	.code32
start:
	mov	$CR4, %eax
	mov	%eax, %cr4
	mov	$CR3, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx
	xor	%edx, %edx
	mov	$EFER, %eax
	test	%eax, %eax
	jz	1f
	wrmsr
1:	mov	$PG_CR0, %eax
	mov	%eax, %cr0
	lgdt	gdt_pointer
	lidt	idt_pointer
	ljmp	$8, $on
	.if	LONG
	.code64
	.endif
on:
	mov	$0x28, %eax
	ltr	%ax
	mov	$0x10, %eax
	mov	%eax, %ss
	mov	$0x23, %eax
	mov	%eax, %ds
	mov	%eax, %es
	movl	$2, FLAGS
	mov	$first, %esi
	mov	$mark - first, %ecx
	mov	$0xe9, %edx
	rep outsb
	mov	$ORDERS - 13, %esi
next:
	mov	$STACK, %esp
	add	$13, %esi
	movzbl	(%esi), %eax
	mov	1(%esi), %edi
	.if	LONG
	mov	5(%esi), %rbx
	.else
	mov	5(%esi), %ebx
	.endif
	cmp	$1, %al
	jb	finish
	je	set_entry
	cmp	$3, %al
	jb	set_cr3
	je	set_cr4
	cmp	$5, %al
	jb	set_cr0
	je	set_efer
	cmp	$7, %al
	jb	set_flags
	je	access
	cmp	$9, %al
	jb	get_entry
	je	get_physical
	.if	LONG
	invlpg	(%rbx)
	.else
	invlpg	(%ebx)
	.endif
	jmp	next

set_entry:
	.if	WIDE
	mov	9(%esi), %eax
	mov	%eax, 4(%edi)
	.endif
	mov	5(%esi), %eax
	mov	%eax, (%edi)
	jmp	next
set_flags:
	mov	%edi, FLAGS
	jmp	next
set_efer:
	mov	$0xc0000080, %ecx
	xor	%edx, %edx
	mov	%edi, %eax
	wrmsr
	jmp	next
	.if	LONG
set_cr3:
	mov	%rdi, %cr3
	jmp	next
set_cr4:
	mov	%rdi, %cr4
	jmp	next
set_cr0:
	mov	%rdi, %cr0
	jmp	next
	.else
set_cr3:
	mov	%edi, %cr3
	jmp	next
set_cr4:
	mov	%edi, %cr4
	jmp	next
set_cr0:
	mov	%edi, %cr0
	jmp	next
	.endif

get_entry:
	movl	$0, VALUE + 4
	mov	(%edi), %eax
	mov	%eax, VALUE
	.if	WIDE
	mov	4(%edi), %eax
	mov	%eax, VALUE + 4
	.endif
	jmp	said_nothing

get_physical:
	mov	%edi, %eax
	and	$~0xfff, %eax
	or	$0x63, %eax
	mov	%eax, WINDOW_ENTRY
	invlpg	WINDOW
	and	$0xfff, %edi
	add	$WINDOW, %edi
	mov	(%edi), %eax
	mov	%eax, VALUE
	mov	4(%edi), %eax
	mov	%eax, VALUE + 4
	mov	5(%esi), %eax
	mov	%eax, (%edi)
	mov	9(%esi), %eax
	mov	%eax, 4(%edi)
said_nothing:
	movb	$0x30, RECORD
	movl	$0, ERROR
	jmp	say

access:
	/* Through an iret, which sets flags and CPL at once; where the CPL stays, 32-bit code pops three. */
	.if	USER
	.set	CS, 0x1b
	.set	SS, 0x23
	.set	CODE, 0x4000
	.else
	.set	CS, 8
	.set	SS, 0x10
	.set	CODE, at_the_address
	.endif
	mov	$CODE, %ecx
	cmp	$1, %edi
	jb	1f
	mov	$CODE + (store - at_the_address), %ecx
	je	1f
	.if	LONG
	mov	%rbx, %rcx
	.else
	mov	%ebx, %ecx
	.endif
1:	mov	FLAGS, %edx
	.if	LONG
	pushq	$SS
	pushq	$STACK
	push	%rdx
	pushq	$CS
	push	%rcx
	movabs	$STORED << 32 | STORED, %rax
	iretq
	.else
	push	$SS
	push	$STACK
	push	%edx
	push	$CS
	push	%ecx
	mov	$STORED, %eax
	iret
	.endif

at_the_address:
	.if	LONG
	mov	(%rbx), %rax
	int	$0x30
store:
	mov	%rax, (%rbx)
	int	$0x30
	.else
	mov	(%ebx), %eax
	int	$0x30
store:
	mov	%eax, (%ebx)
	int	$0x30
	.endif
accesses_end:

	.macro	vector number
	.balign	16
	.if	LONG
	mov	%rax, VALUE
	.else
	mov	%eax, VALUE
	movl	$0, VALUE + 4
	.endif
	movb	$\number, RECORD
	movl	$0, ERROR
	.if	\number == 8 || \number == 10 || \number == 11 || \number == 12 || \number == 13 || \number == 14
	.if	LONG
	popq	PUSHED
	.else
	popl	PUSHED
	.endif
	mov	PUSHED, %eax
	mov	%eax, ERROR
	.endif
	jmp	say
	.endm
	.balign	64
vectors:
	.set	number, 0
	.rept	0x31
	.balign	64
	vector	number
	.set	number, number + 1
	.endr

say:
	.if	LONG
	mov	%cr2, %rax
	mov	%rax, FAULT_ADDRESS
	.else
	mov	%cr2, %eax
	mov	%eax, FAULT_ADDRESS
	movl	$0, FAULT_ADDRESS + 4
	.endif
	mov	%esi, %ebp
	mov	$RECORD, %esi
	mov	$21, %ecx
	mov	$0xe9, %edx
	cld
	rep outsb
	mov	%ebp, %esi
	jmp	next

finish:
	mov	$mark, %esi
	mov	$word - mark, %ecx
	mov	$0xe9, %edx
	rep outsb
	/* Bochs ends when "Shutdown" is written to its port 0x8900. */
	mov	$word, %esi
	mov	$8, %ecx
	mov	$0x8900, %edx
	rep outsb
	hlt

first:
	.ascii	"<answers>"
mark:
	.ascii	"</answers>"
word:
	.ascii	"Shutdown"
gdt_pointer:
	.word	0x37
	.long	0x1000
idt_pointer:
	.word	0x31 * (8 + 8 * LONG) - 1
	.long	0x1200
