# The shipped kernel: a genuine bzImage whose whole work is to say what it was handed.
#
# It ends a rehearsal where no other kernel is at hand: the verdict is spoken by the new kernel, on
# the first serial port.  Each line is "tightrope: ok   WHAT: VALUE" or "tightrope: BAD  WHAT: VALUE,
# REASON"; the last is "tightrope: the new kernel stands" or "... was handed N wrong things".
#
# Rules.  Position independent: it runs where it was loaded, on any page, with no relocations.  It
# reads its own [load, load + init_size), boot_params, the command line and the initrd, and nothing
# else; it writes its stack (its 32-bit entry: boot_params.scratch) and nothing else.  It needs no
# IDT, no GDT of its own, no BSS.  It has no EFI stub and no compressed payload (payload_offset and
# payload_length are 0).  scripts/build-shipped-kernel makes kernel.bzimage of these files and puts
# the Adler-32 of the loaded bytes into the last four of them.
#
#       file                          memory, once loaded
#     0x000  boot sector
#     0x1f1  setup header  ------------->  boot_params + 0x1f1
#     0x400  protected-mode kernel  ---->  load          startup_32
#     0x600                                load + 0x200  startup_64
#            texts, then the sum           image_end, a multiple of 16
#                                            zeros, until the stack grows down into them
#                                          load + INIT_SIZE
#
# Sources: Documentation/arch/x86/boot.rst (protocol 2.15), zero-page.rst; Intel SDM volume 3,
# sections 2.2.1 (EFER), 2.3 (flags), 2.5 (control registers); RFC 1950 (Adler-32); 8250 data sheet.

	.equ	INIT_SIZE, 0x10000
	.equ	PREF_ADDRESS, 0x1000000
	.equ	CMDLINE_SIZE, 2047		# without the terminating zero
	.equ	PROTOCOL, 0x020f
	.equ	HDRS, 0x53726448		# "HdrS", little endian
	.equ	BOOT_CS, 0x10			# boot.rst, 64-bit boot protocol
	.equ	BOOT_DS, 0x18

	# Offsets into boot_params (zero-page.rst).
	.equ	BP_EXT_RAMDISK_IMAGE, 0x0c0
	.equ	BP_EXT_RAMDISK_SIZE, 0x0c4
	.equ	BP_EXT_CMD_LINE_PTR, 0x0c8
	.equ	BP_SCRATCH, 0x1e4		# four bytes that a kernel's first code may use
	.equ	BP_E820_ENTRIES, 0x1e8
	.equ	BP_BOOT_FLAG, 0x1fe
	.equ	BP_HEADER, 0x202
	.equ	BP_VERSION, 0x206
	.equ	BP_TYPE_OF_LOADER, 0x210
	.equ	BP_RAMDISK_IMAGE, 0x218
	.equ	BP_RAMDISK_SIZE, 0x21c
	.equ	BP_CMD_LINE_PTR, 0x228
	.equ	BP_PREF_ADDRESS, 0x258
	.equ	BP_INIT_SIZE, 0x260
	.equ	BP_E820_TABLE, 0x2d0		# 20 bytes each: u64 address, u64 size, u32 type
	.equ	E820_ENTRY, 20
	.equ	E820_MAX, 128
	.equ	E820_RAM, 1

	.equ	UART_DATA, 0x3f8
	.equ	UART_STATUS, 0x3fd
	.equ	UART_READY, 0x20		# transmitter holding register empty
	.equ	UART_PATIENCE, 0x10000		# a machine without a UART must not hang here

	.text
	.include "entry.S"
	.include "lines.S"
	.org	0x600				# boot.rst: the 64-bit entry is 0x200 after the 32-bit one
	.code64
	.include "checks.S"
	.include "questions.S"
	.include "console.S"

	.text	1
initrd_word:
	.asciz	"tightrope.initrd="
	.text	2
	.balign	16, 0
	.skip	12
sum:	.long	0				# put in by scripts/build-shipped-kernel
image_end:
