/*
 * A Multiboot kernel that does nothing, and what a PC then needs to be put into an old kernel's state.
 *
 * Firmware boots it, so that the machine is one: chipset set up, ACPI tables made, memory map known.
 * A debugger stops it at `loaded`, lays another kernel's memory, copies this page somewhere out of its
 * way, and starts it again at `stage_32` or `stage_64`: descriptor tables and segments are what a gdb
 * stub cannot set.  It stops again at `ready`; paging, flags and the rest are set from outside.
 *
 * What must not be here: anything that depends on where this page lies, or on any kernel.
 *
 *      base + 0x4000 +------------------+
 *                    | page directory   |   stage_64: the first 2 MiB, each address to itself
 *      base + 0x3000 | PDPT             |
 *      base + 0x2000 | PML4             |
 *      base + 0x1000 +------------------+
 *                    | stack            |   grows down
 *                    | gdt, operands    |
 *                    | code             |
 *      base          +------------------+   below 2 MiB
 *
 * At stage_32 and stage_64: flat 32-bit protected mode, paging off, esi = base, `old_gdt`, `old_idt` and
 * `old_cr3` filled in, the three table pages zero.
 * At ready: gdt and idt loaded; CS 0x60, the others 0x68 and CR3 loaded (stage_32), or long mode with
 * CS 0x10, SS 0x18 and the others null (stage_64); the two PICs masked, as machine_shutdown leaves them.
 * From ready it may be started again at tables_32 or tables_64, with other tables filled in.
 */
	.set	MAGIC, 0x1badb002	/* Multiboot 0.6.96, 3.1.2 */
	.set	FLAGS, 1 << 16		/* the address fields below are valid */
	.set	HOME, 0x100000
	.set	PAGE, 4096
	.set	CS64, 0x10
	.set	DS64, 0x18
	.set	CS32, 0x60
	.set	DS32, 0x68
	.set	MSR_EFER, 0xc0000080
	.set	EFER_LME, 1 << 8
	.set	CR4_PAE, 1 << 5
	.set	CR0_PG_PE, 0x80000001

	.text
	.code32
header:
	.long	MAGIC
	.long	FLAGS
	.long	-(MAGIC + FLAGS)
	.long	HOME			/* header_addr */
	.long	HOME			/* load_addr */
	.long	HOME + PAGE		/* load_end_addr */
	.long	HOME + PAGE		/* bss_end_addr */
	.long	HOME + loaded - header	/* entry_addr */
loaded:
	hlt
	jmp	loaded

stage_32:
	lea	PAGE(%esi), %esp
	/* The timer has been ticking since the firmware set it up. */
	mov	$0xff, %al
	out	%al, $0x21
	out	%al, $0xa1
	lgdt	own_gdt_end - header(%esi)
	pushl	$CS32
	lea	1f - header(%esi), %eax
	push	%eax
	lretl
1:	mov	$DS32, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	%eax, %fs
	mov	%eax, %gs
tables_32:
	lgdt	old_gdt - header(%esi)
	lidt	old_idt - header(%esi)
	/* Outside long mode the stub extends the sign of what it writes: an address above 2 GiB is lost. */
	mov	old_cr3 - header(%esi), %eax
	mov	%eax, %cr3
	jmp	ready

stage_64:
	lea	PAGE(%esi), %esp
	mov	$0xff, %al
	out	%al, $0x21
	out	%al, $0xa1
	lgdt	own_gdt_end - header(%esi)
	lea	2 * PAGE + 3(%esi), %eax	/* present, writable */
	mov	%eax, PAGE(%esi)
	add	$PAGE, %eax
	mov	%eax, 2 * PAGE(%esi)
	movl	$0x83, 3 * PAGE(%esi)		/* present, writable, 2 MiB */
	mov	$CR4_PAE, %eax
	mov	%eax, %cr4
	lea	PAGE(%esi), %eax
	mov	%eax, %cr3
	mov	$MSR_EFER, %ecx
	rdmsr
	or	$EFER_LME, %eax
	wrmsr
	mov	%cr0, %eax
	or	$CR0_PG_PE, %eax
	mov	%eax, %cr0
	pushl	$CS64
	lea	1f - header(%esi), %eax
	push	%eax
	lretl
	.code64
1:	mov	$DS64, %eax
	mov	%eax, %ss
	xor	%eax, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %fs
	mov	%eax, %gs
	mov	%esi, %esi
	/* In long mode the bases are 64 bits, which is why long mode is entered at all. */
tables_64:
	lgdt	old_gdt - header(%rsi)
	lidt	old_idt - header(%rsi)
ready:
	hlt
	jmp	ready

	.balign	8
own_gdt:
	.quad	0, 0
	.quad	0x00af9b000000ffff	/* 0x10: code, 64-bit, flat, ring 0 */
	.quad	0x00cf93000000ffff	/* 0x18: data, flat, ring 0, writable */
	.quad	0, 0, 0, 0, 0, 0, 0, 0
	.quad	0x00cf9b000000ffff	/* 0x60: code, 32-bit, flat, ring 0 */
	.quad	0x00cf93000000ffff	/* 0x68: data, flat, ring 0, writable */
own_gdt_end:
	.word	own_gdt_end - own_gdt - 1
own_base:
	.long	0			/* base + own_gdt, filled in */
	.word	0
old_gdt:
	.word	0
	.quad	0
	.balign	8
old_idt:
	.word	0
	.quad	0
	.balign	8
old_cr3:
	.quad	0
