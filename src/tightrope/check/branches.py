"""Rules about branches: what CET may refuse, and what two makers' CPUs read differently.

    the call ......... no indirect jump or call but to an ENDBR, no return ......... CR4.CET cleared

With CR4.CET set, IA32_S_CET decides what is tracked: indirect branches, returns, both or nothing.
Only the old kernel's C code knows it, and the contract says whether that code has turned all of it
off.

Rules: asked of instructions as they were executed; nothing is decoded again.
Sources: SDM volume 1, 17.2 and 17.3; Xen commit 37e594c58f (kexec with CET active).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from tightrope.check.case import Case
from tightrope.check.changes import steps_of
from tightrope.check.rule import Found, finding, rule
from tightrope.model import CpuVendor, Done, Sight, Step
from tightrope.x86.cpu import CR4_CET

INDIRECT = re.compile(r"(notrack |rex\.w )?l?(jmp|call)[a-z]* \*")
RETURN = re.compile(r"(l?ret|iret)")


@rule(
    "branches-untracked",
    Step.CALL,
    says="Before the first indirect branch or return, CR4.CET is clear, or CET tracks nothing.",
    source="SDM volume 1, 17.2.4 and 17.3.4; Xen commit 37e594c58f: kexec with CET active",
    mend="clear CR4.CET at V, right after page_table_a is loaded, or IA32_S_CET before the call",
    needs={Sight.INSTRUCTIONS, Sight.REGISTER_WRITES},
)
def branches_untracked(case: Case) -> Iterator[Found]:
    """The first branch that CET may refuse, while CR4.CET is set."""
    if not case.handover.registers.cr4 & CR4_CET or Done.BRANCHES_UNTRACKED in case.contract.done:
        return
    run = case.run
    end = next(
        (
            w.instruction
            for w in run.register_writes
            if w.register == "cr4" and not w.after & CR4_CET
        ),
        run.instructions,
    )
    for index in range(min(end, len(run.trace))):
        text = case.text(index)
        returns = RETURN.match(text)
        if not returns and not (INDIRECT.match(text) and not _to_endbr(case, index)):
            continue
        why = (
            "the shadow stack has no such return" if returns else "what it leads to is not an ENDBR"
        )
        yield finding(
            f"`{text}` at {int(run.trace[index]):#x} may raise #CP: CR4.CET is still set, and {why}",
            evidence={"instruction": str(index)},
            step=Step(int(steps_of(run, np.array([index]))[0])),
        )
        return


def _to_endbr(case: Case, index: int) -> bool:
    return case.text(index + 1).startswith("endbr")


FAR_64 = re.compile(r"^(rex\.w l?(jmp|call)|l(jmp|call)q \*)", re.MULTILINE)


@rule(
    "far-branch-alike",
    Step.CALL,
    says="No far jump or call takes a 64-bit offset from memory: AMD's CPUs read 32 bits of it.",
    source="AMD APM volume 3 (24594), JMP (Far) and CALL (Far): no mem16:64; SDM volume 2A has one",
    mend="push selector and offset, and return far: lretq does the same on both",
    needs={Sight.INSTRUCTIONS},
)
def far_branch_alike(case: Case) -> Iterator[Found]:
    """Asked unless the host says that its CPU is Intel's."""
    if case.host.cpu.vendor is CpuVendor.INTEL:
        return
    # All at once: there is hardly ever one.
    if FAR_64.search("\n".join(case.run.texts.values())) is None:
        return
    for rip, text in sorted(case.run.texts.items()):
        if FAR_64.match(text):
            yield finding(
                f"`{text}` at {rip:#x} takes ten bytes from memory on Intel's CPUs, and six on AMD's"
            )
            return
