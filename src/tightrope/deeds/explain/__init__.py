"""A log of a kexec that failed, explained: alone as far as it goes, or beside a rehearsal.

    alone      what a log comes to by itself
    beside     the same handover rehearsed: where an address lies, what was to be there
    mistakes   handovers with one thing wrong, each rehearsed: does it fall just so?
    deed       the function that people call

Rules: the log is what is believed; a rehearsal is asked, and says what it was asked.

May import: corpse, deeds, errors, machine, memory, model, sabotage, x86
"""

from tightrope.deeds.explain.beside import Rehearsed
from tightrope.deeds.explain.deed import explain

__all__ = ["Rehearsed", "explain"]
