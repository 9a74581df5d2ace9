"""Do the machines agree?  Seeded random handovers, sound and broken, on every machine there is.

    hosts       random old kernels in little memory, in every paging mode
    cases       a case: host, image, request and what is broken, all from (seed, number)
    difference  two runs of one handover compared: verdict, fault, registers, memory
    known       differences that are explained: what a machine is known to get wrong
    deed        all cases on all machines

Rules: a case is made from its seed and number alone, so that one line replays it.  The first
machine is what the others are compared with; nothing is explained away that `known` does not name.

May import: check, deeds, errors, handover, host, image, machine, memory, model, observe,
participants, plan, sabotage, shipped, x86
"""

from tightrope.deeds.agree.cases import Case, make
from tightrope.deeds.agree.deed import agree
from tightrope.model.agreement import Agreement, Difference

__all__ = ["Agreement", "Case", "Difference", "agree", "make"]
