/*
 * Biederman's last proposal in the thread, on i386 and PAE; see switch_x86_64.S.  There is no
 * page_table_b: paging is off when the control page (control_i386.S) is entered.
 *
 * At the call, at V, in the old kernel's text:
 *      edi  head, esi  P, edx  start: handed on to the control page
 *      ecx  page_table_a       maps V and ebx to this page
 *      ebx  the physical address of this page
 *      eax  V
 */
	.set	CR4_KEPT, 1 << 5		/* PAE: cannot go while paging is on */
	.set	CR0_KNOWN, 0x00000033		/* NE ET MP PE */

	.text
	.code32
switch:
	cli
	cld
	mov	%ecx, %cr3
after_table_a:
	mov	%cr4, %ebp
	and	$CR4_KEPT, %ebp
	mov	%ebp, %cr4
	lidt	nothing - switch(%eax)
	lea	identity - switch(%ebx), %ebp
	jmp	*%ebp
identity:
	mov	$CR0_KNOWN, %ebp
	mov	%ebp, %cr0
	jmp	1f
1:	jmp	*%esi

	.balign	8
nothing:
	.word	0
	.long	0
