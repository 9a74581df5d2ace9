"""Sound handovers to flip bits in: every mode, plain and for a crash, and through Xen.

Rules: from a seed and a number alone; what cannot go together is drawn again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from tightrope.deeds.agree.cases import made_image, made_request
from tightrope.deeds.agree.hosts import random_host
from tightrope.deeds.rehearse import build
from tightrope.errors import BadInput, TightropeError
from tightrope.model import Handover, Paging, Plan
from tightrope.participants import DESIGNS, OURS
from tightrope.plan import prepare

ATTEMPTS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A plan, its design and the handover that they make."""

    says: str
    plan: Plan
    design: str
    handover: Handover

    def build(self, plan: Plan) -> Handover:
        """The handover of another plan, in the same design."""
        return build(plan, design=self.design)

    def over(self, handover: Handover) -> Base:
        """The same with something in it changed already."""
        return replace(self, handover=handover, plan=handover.plan)


def base(seed: int, number: int, paging: Paging, *, crash: bool = False) -> Base:
    """The sound handover `number` of a seed.  Raises BadInput where nothing can be made of it."""
    random = Random(f"{seed}:{number}:{paging.value}:{crash}")
    for _ in range(ATTEMPTS):
        try:
            old = random_host(random, paging)
            plan = prepare(made_image(random), old, made_request(random, crash=crash))
            design = random.choice([*DESIGNS, OURS, OURS])
            handover = build(plan, design=design)
        except (TightropeError, ValueError):
            continue  # host, image and request cannot go together
        says = f"{paging.value}, {design}{', crash' if crash else ''}"
        return Base(says=says, plan=plan, design=design, handover=handover)
    raise BadInput(f"nothing can be made of base {number}", source="--seed")
