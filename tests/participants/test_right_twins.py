"""Right code of kinds that ours is not: it holds, and the wrong twin beside it falls.

    CR4.MCE kept, TSD too           boot.rst asks nothing of CR4 but PAE; a machine check may stay as fatal as it is
    lidt from the routine's page    rip-relative at V, where V lies in the old kernel's text
    a gdt in the routine's page     loaded at P, whose base is the identity address

Rules: our own source with a few lines changed, assembled by GNU as, under our own contract.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.modes.runs import shared as machine
from tests.participants.test_from_file import needs_as, plan_on, source
from tightrope.check import check
from tightrope.deeds.rehearse import build
from tightrope.model import Paging
from tightrope.participants import from_file

KEPT = "CR4_KEPT, 1 << 5 | 1 << 12"
EMPTY_IDT = (
    "sub	$16, %rsp\n	movw	$0, 6(%rsp)\n	movq	$0, 8(%rsp)\n	lidt	6(%rsp)\n"
)
OWN_IDT = "sub	$16, %rsp\n	lidt	no_idt(%rip)\n"
GDT = "	.balign	8\ngdt:\n"


def broken(paging: Paging, changes: dict[str, str], folder: Path) -> list[str]:
    """The rules that our source falls by, with these lines changed."""
    needs_as()
    text = source(paging).read_text()
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path = folder / "code.S"
    path.write_text(text)
    code = from_file.relocation(from_file.read(path, paging), "two-tables", paging)
    built = build(plan_on(paging), design=code)
    return [each.rule for each in check(built, machine().run(built)) if not each.advice]


LONG = [Paging.X86_64, Paging.LA57]


@pytest.mark.parametrize("paging", LONG)
@pytest.mark.parametrize(
    ("bits", "falls"),
    [
        pytest.param("1 << 5 | 1 << 12 | 1 << 6", False, id="MCE kept"),
        pytest.param("1 << 5 | 1 << 12 | 1 << 2 | 1 << 3", False, id="TSD and DE kept"),
        pytest.param("1 << 5 | 1 << 12 | 1 << 7", True, id="PGE kept"),
    ],
)
def test_a_bit_of_cr4_may_be_kept_that_no_entry_asks_about(
    paging: Paging, bits: str, falls: bool, tmp_path: Path
) -> None:
    assert bool(broken(paging, {KEPT: f"CR4_KEPT, {bits}"}, tmp_path)) == falls


@pytest.mark.parametrize("paging", LONG)
@pytest.mark.parametrize(
    ("words", "falls"),
    [
        pytest.param(".word 0\n	.quad 0\n", False, id="an empty idt"),
        pytest.param(".word 0xfff\n	.quad 0\n", True, id="an idt of zeros at 0"),
        pytest.param(
            ".word 0\n	.quad 0x800000000000000\n", True, id="a base that is not canonical"
        ),
    ],
)
def test_lidt_may_read_the_routines_own_page(
    paging: Paging, words: str, falls: bool, tmp_path: Path
) -> None:
    changes = {EMPTY_IDT: OWN_IDT, GDT: f"no_idt:\n	{words}{GDT}"}
    assert bool(broken(paging, changes, tmp_path)) == falls


REP_MOVS = "	mov	$PAGE / 8, %ecx\n	rep movsq\n"
HALF = "	mov	$PAGE / 16, %ecx\n	rep movsq\n"
CLEAR = "	mov	$8, %ecx\n	xor	%eax, %eax\n	rep stosq\n"
DONE = "done:\n"


@pytest.mark.parametrize("paging", LONG)
@pytest.mark.parametrize(
    ("changes", "rules"),
    [
        pytest.param({REP_MOVS: HALF + HALF}, [], id="a page in two halves"),
        pytest.param(
            {REP_MOVS: HALF},
            ["copies-follow-list", "destinations-complete"],
            id="half a page",
        ),
        pytest.param(
            {REP_MOVS: HALF + "	sub	$8, %rsi\n	sub	$8, %rdi\n" + HALF},
            ["copies-follow-list"],
            id="halves that do not meet",
        ),
        pytest.param(
            {DONE: f"{DONE}	lea	-128(%rsp), %rdi\n{CLEAR}"}, [], id="the stack cleared"
        ),
        pytest.param(
            {DONE: f"{DONE}	lea	-8192(%rsp), %rdi\n{CLEAR}"},
            ["copies-owned"],
            id="what is not its own cleared",
        ),
    ],
)
def test_string_moves_are_whole_pages_or_the_codes_own_work(
    paging: Paging, changes: dict[str, str], rules: list[str], tmp_path: Path
) -> None:
    found = broken(paging, changes, tmp_path)
    assert bool(found) == bool(rules)
    assert set(rules) <= set(found)


DR7 = "	mov	%rax, %dr7\n"
OTHERS = "".join(f"	mov	%rax, %dr{number}\n" for number in (0, 1, 2, 3, 6))


@pytest.mark.parametrize("paging", LONG)
@pytest.mark.parametrize(
    ("code", "falls"),
    [
        pytest.param(DR7 + OTHERS, False, id="after the breakpoints are off"),
        pytest.param(OTHERS + DR7, True, id="before"),
    ],
)
def test_debug_registers_may_be_cleared_once_no_breakpoint_is_on(
    paging: Paging, code: str, falls: bool, tmp_path: Path
) -> None:
    """In the window in which nothing may fault: GD or a breakpoint of the old kernel's could."""
    found = broken(paging, {DR7: code}, tmp_path)
    assert found == (["fault-window"] if falls else [])
