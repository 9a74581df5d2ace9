/*
 * The init of a guest that does nothing but leave: a process, whose initramfs holds /new and the console.
 *
 * It loads /new by kexec_file_load(2), says so, waits for a byte on the console, and calls reboot(2) with
 * LINUX_REBOOT_CMD_KEXEC, which is what `systemctl kexec` ends in.  What fails ends the process with the
 * error's number, and Linux panics: "Attempted to kill init! exitcode=0x...00".  The command line follows
 * the code; whoever lays it there fills in how long it is, its NUL with it.
 * Source: kexec_file_load(2), reboot(2); arch/x86/entry/syscalls/syscall_64.tbl.
 */
	.set	READ, 0
	.set	WRITE, 1
	.set	OPEN, 2
	.set	REBOOT, 169
	.set	EXIT_GROUP, 231
	.set	KEXEC_FILE_LOAD, 320
	.set	KEXEC_FILE_NO_INITRAMFS, 4
	.set	MAGIC_1, 0xfee1dead
	.set	MAGIC_2, 672274793
	.set	CMD_KEXEC, 0x45584543

	.text
	.code64
init:
	mov	$OPEN, %eax
	lea	path(%rip), %rdi
	xor	%esi, %esi
	syscall
	test	%rax, %rax
	js	failed
	mov	%eax, %edi
	mov	$-1, %esi
	mov	size(%rip), %rdx
	lea	command_line(%rip), %r10
	mov	$KEXEC_FILE_NO_INITRAMFS, %r8d
	mov	$KEXEC_FILE_LOAD, %eax
	syscall
	test	%rax, %rax
	js	failed
	mov	$WRITE, %eax
	mov	$1, %edi
	lea	word(%rip), %rsi
	mov	$word_end - word, %edx
	syscall
	xor	%eax, %eax		/* READ */
	xor	%edi, %edi
	lea	-8(%rsp), %rsi
	mov	$1, %edx
	syscall
	mov	$REBOOT, %eax
	mov	$MAGIC_1, %edi
	mov	$MAGIC_2, %esi
	mov	$CMD_KEXEC, %edx
	xor	%r10d, %r10d
	syscall
failed:
	neg	%eax
	mov	%eax, %edi
	mov	$EXIT_GROUP, %eax
	syscall
path:
	.asciz	"/new"
word:
	.ascii	"tightrope: loaded\n"
word_end:
	.balign	8
size:
	.quad	0
command_line:
