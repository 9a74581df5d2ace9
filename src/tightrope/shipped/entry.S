# The shipped kernel's ways in: boot sector, setup header, 16-bit and 32-bit entry, kernel_info.
# Rules: fields stand in the header's own order, one a line; nothing here leads into the 64-bit code.

	.macro	REAL_MODE_SAY text
	call	1f				# no segment is known: the return address finds the text
1:	pop	%si
	add	$(3f - 1b), %si
	push	%cs
	pop	%ds
	cld
2:	lodsb
	mov	$0x0e, %ah			# BIOS teletype
	mov	$0x0007, %bx
	int	$0x10
	cmpb	$0, (%si)
	jne	2b
	cli
	hlt
	jmp	. - 1
3:	.asciz	"\text"
	.endm

	.code16
file:
	REAL_MODE_SAY "This is a kernel, not a boot disk: it needs a boot loader."

	.org	0x1f1
	.byte	1				# setup_sects: one sector after the boot sector
	.word	0				# root_flags
	.long	(image_end - startup_32) / 16	# syssize
	.word	0				# ram_size
	.word	0xffff				# vid_mode: normal
	.word	0				# root_dev
	.word	0xaa55				# boot_flag
	.byte	0xeb, header_end - 1f		# jump; its displacement is also the header's length
1:	.long	HDRS				# header
	.word	PROTOCOL			# version
	.long	0				# realmode_swtch
	.word	0				# start_sys_seg
	.word	version - file - 0x200		# kernel_version, less 0x200
	.byte	0				# type_of_loader: for the loader to fill in
	.byte	0x01				# loadflags: LOADED_HIGH
	.word	0				# setup_move_size
	.long	0x100000			# code32_start
	.long	0				# ramdisk_image
	.long	0				# ramdisk_size
	.long	0				# bootsect_kludge
	.word	0				# heap_end_ptr
	.byte	0				# ext_loader_ver
	.byte	0				# ext_loader_type
	.long	0				# cmd_line_ptr
	.long	0x7fffffff			# initrd_addr_max
	.long	0x200000			# kernel_alignment, preferred
	.byte	1				# relocatable_kernel
	.byte	12				# min_alignment, required: one page
	.word	0x0003				# xloadflags: KERNEL_64, CAN_BE_LOADED_ABOVE_4G
	.long	CMDLINE_SIZE			# cmdline_size
	.long	0				# hardware_subarch: PC
	.quad	0				# hardware_subarch_data
	.long	0				# payload_offset: nothing is compressed
	.long	0				# payload_length
	.quad	0				# setup_data
	.quad	PREF_ADDRESS			# pref_address
	.long	INIT_SIZE			# init_size
	.long	0				# handover_offset: no EFI
	.long	kernel_info - startup_32	# kernel_info_offset
header_end:
	REAL_MODE_SAY "This kernel has no 16-bit entry: boot it by its 64-bit one."
version:
	.asciz	"tightrope-shipped 1"

	.org	0x400
	.code32
startup_32:
	# The load address is found by a call, a call needs a stack, and boot_params lends four bytes.
	lea	BP_SCRATCH + 4(%esi), %esp
	call	1f
1:	pop	%esi
	add	$(only_64 - 1b), %esi
	jmp	say_32

	# The 64-bit entry found itself decoding 32-bit code: CS has no L bit.
compatibility_mode:
	lea	BP_SCRATCH + 4(%esi), %esp
	call	1f
1:	pop	%esi
	add	$(no_l_bit - 1b), %esi

say_32:	cld
next_32:
	lodsb
	test	%al, %al
	jz	halt_32
	mov	%al, %bl
	mov	$UART_STATUS, %edx
	mov	$UART_PATIENCE, %ecx
1:	in	(%dx), %al
	test	$UART_READY, %al
	loopz	1b
	mov	%bl, %al
	mov	$UART_DATA, %edx
	out	%al, (%dx)
	jmp	next_32
halt_32:
	cli
	hlt
	jmp	halt_32

only_64:
	.asciz	"tightrope: BAD  entry: 32-bit, but this kernel has only a 64-bit one, 0x200 further\r\n"
no_l_bit:
	.asciz	"tightrope: BAD  entry: the 64-bit one was entered with CS.L clear\r\n"

	# kernel_info (protocol 2.15): magic, size, size_total, setup_type_max
	.balign	4, 0
kernel_info:
	.ascii	"LToP"
	.long	kernel_info_end - kernel_info
	.long	kernel_info_end - kernel_info
	.long	0				# setup_data is not read
kernel_info_end:
