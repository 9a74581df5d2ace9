# The macros of the shipped kernel's lines; console.S has the routines behind them.
# Rules: registers are those of checks.S; a line may clobber rax, rcx, rdx, rsi and r8, nothing else.

	# Hand a text to one of the console's routines.  Texts live in subsection 1, behind the code.
	.macro	TEXT text, then
	.pushsection .text, 1
.Ltext\@: .asciz "\text"
	.popsection
	lea	.Ltext\@(%rip), %rsi		# lea leaves the flags alone
	call	\then
	.endm
	.macro	SAY text
	TEXT	"\text", say
	.endm
	# Open a line: "tightrope: ok   WHAT: " when ZF is set, else "tightrope: BAD  WHAT: ".
	.macro	JUDGE what
	TEXT	"\what", judge
	.endm
	# Close the line; the reason is said when it was BAD.
	.macro	FINISH reason
	TEXT	"\reason", finish
	.endm
	# One line about the number in rdi: under `mask` it has to be `wanted`.
	.macro	CHECK what, mask, wanted, reason
	mov	$\mask, %rax
	and	%rdi, %rax
	mov	$\wanted, %ecx
	cmp	%rcx, %rax
	JUDGE	"\what"
	call	say_hex
	FINISH	"\reason"
	.endm
