"""The solver's door: z3 where it is installed, and formulas written for any other solver.

Rules: z3 is imported inside functions here, so that what is proved by enumeration does without it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from tightrope.errors import MissingPart
from tightrope.prove.goal import Script


def solver_library() -> Any:
    """z3.  Raises MissingPart where it is not installed."""
    try:
        import z3
    except ModuleNotFoundError as err:
        raise MissingPart("z3 is not installed: install tightrope[prove]") from err
    # Its own handler would turn Ctrl-C into "unknown", and the program would go on.
    z3.set_param("ctrl_c", False)
    return z3


def interrupt() -> None:
    """End the question that z3 is at, from another thread; nothing where z3 was never loaded."""
    z3 = sys.modules.get("z3")
    if z3 is not None and hasattr(z3, "main_ctx"):
        z3.main_ctx().interrupt()


def written(
    name: str, formulas: Sequence[Any], expected: str = "unsat", logic: str = "QF_BV"
) -> Script:
    """Formulas as SMT-LIB 2, over bit vectors unless another logic is named."""
    z3 = solver_library()
    solver = z3.Solver()
    # Simplified: z3 would write an `and` of one term, which others do not read.
    solver.add(*map(z3.simplify, formulas))
    lines = solver.to_smt2().splitlines()
    kept = [line for line in lines if not line.startswith((";", "(set-info"))]
    head = [f"(set-logic {logic})", f"(set-info :status {expected})"]
    return Script(name=name, text="\n".join([*head, *kept, ""]), expected=expected)
