# The shipped kernel's 64-bit entry: what it looks at, in the order in which it says it.
#
#	rbx  load address		r12  how many wrong things were found
#	rbp  boot_params		r13  verdict of the line being said: 0 ok, 1 BAD
#	rdi  the value being said	r9, r10, r11, r14, r15  whatever must outlive a line
#
# What a line calls clobbers: rax, rcx, rdx, rsi, r8.

startup_64:
	# 0x40 is `inc %eax` to a CPU whose CS.L is clear, and an empty REX prefix to one in 64-bit mode.
	xor	%eax, %eax
	.byte	0x40, 0x90
	test	%eax, %eax
	jnz	compatibility_mode

	lea	startup_32(%rip), %rbx
	mov	%rsi, %rbp

	# The tail is looked at before anything is written there: so far there is no stack, and no string
	# instruction, for DF may be set.  r15: its first byte that is not zero, or its end.
	lea	image_end(%rip), %r15
	lea	INIT_SIZE(%rbx), %rcx
1:	mov	(%r15), %rax
	test	%rax, %rax
	jnz	2f
	add	$8, %r15
	cmp	%rcx, %r15
	jb	1b
	jmp	3f
2:	bsf	%rax, %rax
	shr	$3, %eax
	add	%rax, %r15
3:
	mov	%rcx, %rsp
	pushfq
	pop	%r14
	cli					# there is no IDT to trust
	cld
	xor	%r12d, %r12d

	SAY	"tightrope: new kernel entered at "
	lea	startup_64(%rip), %rdi
	call	say_hex
	call	newline

	# The CPU, as the 64-bit boot protocol and machine_kexec leave it.
	mov	%cr0, %rdi
	CHECK	"cr0", 0x8005000d, 0x80000001, ", wants PG and PE, and AM, WP, TS, EM clear"
	mov	%cr4, %rdi
	CHECK	"cr4", ~0x1000, 0x20, ", wants PAE, perhaps LA57, and nothing else"
	mov	$0xc0000080, %ecx
	rdmsr					# its high half is reserved, zero
	mov	%eax, %edi
	CHECK	"efer", 0x500, 0x500, ", wants LME and LMA"
	mov	%cs, %edi
	CHECK	"cs", 0xffff, BOOT_CS, ", wants 0x10"
	mov	%ds, %edi
	CHECK	"ds", 0xffff, BOOT_DS, ", wants 0x18"
	mov	%es, %edi
	CHECK	"es", 0xffff, BOOT_DS, ", wants 0x18"
	mov	%ss, %edi
	CHECK	"ss", 0xffff, BOOT_DS, ", wants 0x18"
	mov	%r14d, %edi
	shr	$9, %edi
	and	$1, %edi
	CHECK	"interrupt flag", 1, 0, ", wants interrupts off"
	mov	%r14d, %edi
	shr	$10, %edi
	and	$1, %edi
	CHECK	"direction flag", 1, 0, ", wants upwards"

	# Its own bytes.
	mov	%rbx, %rdi
	CHECK	"load address", 0xfff, 0, ", wants the start of a page"
	mov	%rbx, %rsi
	lea	sum(%rip), %rcx
	sub	%rbx, %rcx
	call	adler32
	mov	%eax, %edi
	cmp	sum(%rip), %eax
	JUDGE	"image adler32"
	call	say_hex8
	FINISH	", not the sum in its last four bytes"
	mov	%r15, %rdi
	lea	INIT_SIZE(%rbx), %rax
	cmp	%rax, %r15
	JUDGE	"zeros until"
	call	say_hex
	FINISH	", wants zeros to the end of init_size"

	# boot_params.
	mov	%rbp, %rdi
	cmpl	$HDRS, BP_HEADER(%rbp)
	JUDGE	"boot_params at"
	call	say_hex
	FINISH	", no HdrS at +0x202"
	movzwl	BP_BOOT_FLAG(%rbp), %edi
	CHECK	"boot flag", 0xffff, 0xaa55, ", wants 0xaa55"
	movzbl	BP_TYPE_OF_LOADER(%rbp), %edi
	cmp	$1, %edi
	sbb	%eax, %eax			# sets ZF unless the byte was 0
	JUDGE	"type of loader"
	call	say_hex
	FINISH	", wants a loader that names itself"
	movzwl	BP_VERSION(%rbp), %edi
	mov	%edi, %eax
	xor	$PROTOCOL, %eax
	mov	BP_INIT_SIZE(%rbp), %ecx
	xor	$INIT_SIZE, %ecx
	mov	BP_PREF_ADDRESS(%rbp), %rdx
	xor	$PREF_ADDRESS, %rdx
	or	%rdx, %rcx
	or	%rcx, %rax
	JUDGE	"setup header, protocol"
	call	say_hex
	FINISH	", not this kernel's own version, init_size and pref_address"

	# The command line.  r9: where it is, or 0 when there is none to search.
	mov	BP_CMD_LINE_PTR(%rbp), %eax
	mov	BP_EXT_CMD_LINE_PTR(%rbp), %r9d
	shl	$32, %r9
	or	%rax, %r9
	jz	2f				# a null pointer: no command line was handed over
	xor	%ecx, %ecx
1:	cmpb	$0, (%r9, %rcx)
	je	2f
	inc	%ecx
	cmp	$CMDLINE_SIZE, %ecx
	jbe	1b
	xor	%r9d, %r9d
	or	$1, %ecx			# clears ZF
2:	JUDGE	"command line"
	call	say_command_line
	FINISH	"no zero in its first 2048 bytes"

	# The memory map.  r15: its entries, 0 when there is nothing to look things up in.
	movzbl	BP_E820_ENTRIES(%rbp), %r15d
	mov	%r15d, %edi
	lea	-1(%r15), %eax
	cmp	$E820_MAX, %eax
	jae	2f
	lea	BP_E820_TABLE(%rbp), %rcx
	mov	%r15d, %eax
	xor	%edx, %edx			# the end of the entry before
1:	cmp	%rdx, (%rcx)
	jb	3f
	mov	(%rcx), %rdx
	add	8(%rcx), %rdx
	jc	3f
	add	$E820_ENTRY, %rcx
	dec	%eax
	jnz	1b
	jmp	3f				# with ZF set
2:	xor	%r15d, %r15d
	or	$1, %eax			# clears ZF
3:	JUDGE	"memory map entries"
	call	say_decimal
	FINISH	", wants 1 to 128, sorted, none over another"

	mov	%rbx, %r10
	lea	INIT_SIZE(%rbx), %r11
	test	%r15d, %r15d
	jz	1f
	call	in_ram
	JUDGE	"kernel place"
	call	say_extent
	FINISH	", wants usable RAM"
1:
	# The initrd.  [r10, r11): where it is.
	mov	BP_RAMDISK_IMAGE(%rbp), %eax
	mov	BP_EXT_RAMDISK_IMAGE(%rbp), %r10d
	shl	$32, %r10
	or	%rax, %r10
	mov	BP_RAMDISK_SIZE(%rbp), %eax
	mov	BP_EXT_RAMDISK_SIZE(%rbp), %r11d
	shl	$32, %r11
	or	%rax, %r11
	jz	1f				# nothing has no place
	add	%r10, %r11
	test	%r15d, %r15d
	jz	2f
	call	in_ram
	JUDGE	"initrd place"
	call	say_extent
	FINISH	", wants usable RAM"
	test	%r13d, %r13d
	jnz	verdict				# what lies there may not even be mapped
	jmp	2f
1:	mov	%r10, %r11
2:	mov	%r10, %rsi
	mov	%r11, %rcx
	sub	%r10, %rcx
	call	adler32
	mov	%eax, %r10d			# the sum it has
	call	asked_sum			# r11: the sum it should have; ecx: how that was asked
	mov	%ecx, %r15d
	cmp	$NOT_ASKED, %ecx
	je	3f
	cmp	$UNREADABLE, %ecx
	je	4f
	cmp	%r11d, %r10d
	jmp	3f
4:	or	$1, %ecx			# clears ZF
3:	JUDGE	"initrd adler32"
	mov	%r10d, %edi
	call	say_hex8
	cmp	$ASKED, %r15d
	jb	5f
	ja	6f
	SAY	", asked for "
	mov	%r11d, %edi
	call	say_hex8
	FINISH	""
	jmp	verdict
5:	SAY	", not asked"
	FINISH	""
	jmp	verdict
6:	FINISH	", wants eight hex digits after tightrope.initrd="

verdict:
	test	%r12d, %r12d
	jnz	1f
	SAY	"tightrope: the new kernel stands"
	jmp	2f
1:	SAY	"tightrope: the new kernel was handed "
	mov	%r12d, %edi
	call	say_decimal
	SAY	" wrong things"
2:	call	newline
halt_64:
	cli
	hlt
	jmp	halt_64
