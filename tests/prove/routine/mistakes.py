"""A dozen realistic mistakes in relocation code, each a .S of its own.

    the shipped .S --one edit--> the same code with a mistake that people make

Rules: each mistake is an edit of the shipped source, so that nothing else is different; `reason` is
what the refusal has to say, `where` how the mistaken instruction begins ("" where it is about a
state).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tightrope.model import Paging

ROUTINES = Path(__file__).resolve().parents[3] / "src" / "tightrope" / "routines"


@dataclass(frozen=True, slots=True)
class Mistake:
    """`edits` are (what stands there, what stands there instead);
    `seen` if an emulator shows it.
    """

    name: str
    mode: Paging
    edits: tuple[tuple[str, str], ...]
    reason: str
    where: str
    seen: bool = True

    def source(self) -> str:
        """The whole mistaken .S."""
        name = "relocate_x86_64.S" if self.mode.long_mode else "relocate_i386.S"
        text = (ROUTINES / name).read_text()
        for old, new in self.edits:
            assert text.count(old) == 1, (self.name, old, text.count(old))
            text = text.replace(old, new)
        return text


_LONG, _SHORT, _PAE = Paging.X86_64, Paging.I386, Paging.PAE
_TURN_OFF_CET = (
    "\tmov\t%cr4, %rax\ncr4_kept:\n\tand\t$CR4_KEPT, %eax\nclear_pge:\n\tmov\t%rax, %cr4\n"
)
_CR0 = "\tmov\t$CR0_KNOWN, %eax\n\tmov\t%rax, %cr0\n"
STACK, READ = "\tlea\tPAGE(%rsi), %rsp\n", "\tmov\t(%rdx), %al\n"
_FIRST, _SECOND = "\ttest\t$1, %cl", "\ttest\t$2, %cl"

MISTAKES = (
    Mistake(
        "WP is cleared while CET is on",
        _LONG,
        ((_TURN_OFF_CET, _CR0 + _TURN_OFF_CET),),
        "CR0.WP cannot be cleared while CR4.CET is set",
        "mov %rax,%cr0",
    ),
    Mistake(
        "PAE is cleared while paging is on",
        _PAE,
        (("\tand\t$CR4_KEPT, %eax\n", "\txor\t%eax, %eax\n"),),
        "CR4.PAE changes while paging is on",
        "mov %eax,%cr4",
    ),
    Mistake(
        "PAE is cleared in long mode",
        _LONG,
        (("\tand\t$CR4_KEPT, %eax\n", "\txor\t%eax, %eax\n"),),
        "CR4.PAE cannot be cleared in long mode",
        "mov %rax,%cr4",
    ),
    Mistake(
        "the flags are tested in another order",
        _LONG,
        (
            (
                "\ttest\t$1, %cl\t\t\t/* IND_DESTINATION */\n\tjz\t1f",
                "\ttest\t$4, %cl\n\tjnz\tdone\n\ttest\t$1, %cl\n\tjz\t1f",
            ),
        ),
        "the list has not ended",
        "",
    ),
    Mistake(
        "a 32-bit or truncates CR0 and CR0 keeps what was there",
        _LONG,
        ((_CR0, "\tmov\t%cr0, %rax\n\tor\t$CR0_KNOWN, %eax\n\tmov\t%rax, %cr0\n"),),
        "cr0 is not what the contract says",
        "",
    ),
    Mistake(
        "PG is lost to a 32-bit and",
        _LONG,
        ((_CR0, "\tmov\t%cr0, %rax\n\tand\t$0x33, %eax\n\tmov\t%rax, %cr0\n"),),
        "CR0.PG cannot be cleared in 64-bit code",
        "mov %rax,%cr0",
    ),
    Mistake(
        "the direction flag is set",
        _LONG,
        (("copy_page:\n", "copy_page:\n\tstd\n"),),
        "the direction flag may be set",
        "rep movsq",
    ),
    Mistake(
        "PGE is cleared only after the jump to P",
        _LONG,
        ((_TURN_OFF_CET, ""), ("identity:\n", "identity:\n" + _TURN_OFF_CET)),
        "through what may be an old global translation",
        "push $0",
    ),
    Mistake(
        "the stack is one slot too high",
        _LONG,
        (("\tlea\tPAGE(%rsi), %rsp", "\tlea\tPAGE + 8(%rsi), %rsp"),),
        "an address that page_table_a does not map",
        "push $0",
    ),
    Mistake(
        "page_table_b is loaded at V, before the jump to P",
        _LONG,
        (
            ("\tmov\t%r8, %cr3\n", ""),
            ("\tpushq\t$CS\n\tlea\tidentity", "\tmov\t%r8, %cr3\n\tpushq\t$CS\n\tlea\tidentity"),
        ),
        "still runs at V",
        "push $0x10",
    ),
    Mistake(
        "half a page is copied",
        _LONG,
        (("$PAGE / 8, %ecx", "$PAGE / 16, %ecx"),),
        "it copies 2048 bytes, not one page",
        "rep movsq",
    ),
    Mistake(
        "words of eight bytes, counted as if they were four",
        _LONG,
        (("$PAGE / 8, %ecx", "$PAGE / 4, %ecx"),),
        "it copies 8192 bytes, not one page",
        "rep movsq",
    ),
    Mistake(
        "a register keeps the old kernel's value",
        _LONG,
        (("\txor\t%r12d, %r12d\n", ""),),
        "r12 is not 0",
        "",
    ),
    Mistake(
        "nothing serializes after the last copy",
        _LONG,
        (("\tmov\t%cr3, %rax\n\tmov\t%rax, %cr3\n", ""),),
        "nothing has serialized since the last copy",
        "",
        seen=False,
    ),
    Mistake(
        "xor %r10,%r9 for xor %r9,%r9",
        _LONG,
        (("\txor\t%r9d, %r9d\n", "\txor\t%r10, %r9\n"),),
        "r9 is not 0",
        "",
    ),
    Mistake(
        "LASS is still on at P",
        _LONG,
        (("1 << 5 | 1 << 12", "1 << 5 | 1 << 12 | 1 << 27"),),
        "#GP: CR4.LASS may be set: this fetch is in the lower half",
        "mov $0x80000033,%eax",
    ),
    Mistake(
        "the base of the empty idt is no address",
        _LONG,
        (("\tmovq\t$0, 8(%rsp)\n", "\tbts\t$62, %rax\n\tmov\t%rax, 8(%rsp)\n"),),
        "#GP: the base of the idt may be no canonical address",
        "lidt",
    ),
    Mistake(
        "memory is read where the old handlers have no stack",
        _LONG,
        ((STACK, STACK + READ),),
        "page_table_a does not map; a handler of the old kernel's would run",
        "mov (%rdx),%al",
    ),
    Mistake(
        "paging is turned off at V",
        _SHORT,
        (
            ("\tmov\t$CR0_KNOWN, %eax\n\tmov\t%eax, %cr0\n\tjmp\t1f\n1:", ""),
            ("\tpushl\t$CS\n", "\tmov\t$CR0_KNOWN, %eax\n\tmov\t%eax, %cr0\n\tpushl\t$CS\n"),
        ),
        "still runs at V",
        "push $0x10",
    ),
    Mistake(
        "interrupts stay on",
        _SHORT,
        (("\tcli\n", ""),),
        "RFLAGS.IF may be set",
        "mov %cr4,%eax",
    ),
    Mistake(
        "the cursor moves by eight on a 32-bit list",
        _SHORT,
        (("\tadd\t$4, %ebx", "\tadd\t$8, %ebx"),),
        "ebx is not behind the next word",
        "",
    ),
    Mistake(
        "a source that is in place is not counted",
        _SHORT,
        (("\tadd\t$PAGE, %edi\n", ""),),
        "edi is not the next destination",
        "",
    ),
    Mistake(
        "a far jump through m16:32, and P may lie above 4 GiB",
        _LONG,
        (
            (
                "\tpushq\t$CS\n\tlea\tidentity - relocate(%rsi), %rax\n\tpush\t%rax\n\tlretq\n",
                "\tlea\tidentity - relocate(%rsi), %rax\n\tmov\t%eax, -16(%rsp)\n"
                "\tmovw\t$CS, -12(%rsp)\n\tljmpl\t*-16(%rsp)\n",
            ),
        ),
        "the offset of a far jump has 32 bits",
        "ljmpl",
    ),
)

_OWN_IDT = (
    ("\tlidt\t6(%rsp)\n", ""),
    ("\tcli\n\tcld\n", "\tcli\n\tcld\n\tlidt\tno_idt(%rip)\n"),
    ("gdt_end:\n", "gdt_end:\nno_idt:\t.word 0\n\t.quad 0\n"),
)
RIGHT = (
    Mistake("the idt is emptied first, from the routine's own page", _LONG, _OWN_IDT, "", ""),
    Mistake("CR4.MCE is kept", _LONG, (("1 << 5 | 1 << 12", "1 << 5 | 1 << 6 | 1 << 12"),), "", ""),
    Mistake(
        "a far jump through memory",
        _PAE,
        (
            (
                "\tpushl\t$CS\n\tlea\tidentity - relocate(%esi), %eax\n\tpush\t%eax\n\tlretl\n",
                "\tlea\tidentity - relocate(%esi), %eax\n\tmov\t%eax, -16(%esp)\n"
                "\tmovw\t$CS, -12(%esp)\n\tljmpl\t*-16(%esp)\n",
            ),
        ),
        "",
        "",
    ),
)
"""No mistakes: code that does it another way, which must hold."""
