/*
 * Biederman's last proposal in the thread, on x86_64: "move the code that uses page_table_a to a
 * separate function, that when it is done jumps to the control_code page.  Then you can map this page
 * both virtually and physically with a statically allocated page table".
 *
 * This page stays where the old kernel has it: page_table_a leads V and the page's own physical
 * address to the same frame as the current pgd leads V, and nothing is copied.  The control page
 * (control_x86_64.S) is reached when page_table_b is in use.  It has no stack and writes nothing: the
 * page may be read-only, as kernel text is.
 *
 * At the call, at V, in the old kernel's text:
 *      rdi  head, rsi  P, rdx  start, r8  page_table_b: handed on to the control page
 *      rcx  page_table_a       maps V and r9 to this page
 *      r9   the physical address of this page
 */
	.set	CR4_KEPT, 1 << 5 | 1 << 12	/* PAE, LA57 */

	.text
	.code64
switch:
	cli
	cld
	mov	%rcx, %cr3
after_table_a:
	/* As in relocate_x86_64.S: no global translation may be left when an identity address is used. */
	mov	%cr4, %rax
	and	$CR4_KEPT, %eax
	mov	%rax, %cr4
	lidt	nothing(%rip)
	lea	identity - switch(%r9), %rax
	jmp	*%rax
identity:
	/* page_table_b leads this page to itself as well, so that the next instruction is still here. */
	mov	%r8, %cr3
	jmp	*%rsi

	.balign	8
nothing:
	.word	0
	.quad	0
