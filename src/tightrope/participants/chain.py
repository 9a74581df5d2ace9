"""The programs of one jump, in their order: who walks when V is called in this way.

    bare        the design, a purgatory where there is one, the stub; of a loader's segments its purgatory
    v1          the design's own code, called with an array of pages, the stub
    compat      the hypervisor's way out of long mode, then as v1
    v2          the hypervisor's own code, the stub

Rules: all ways through are matched; nobody else asks which one it is to find a program.
"""

from __future__ import annotations

from typing import assert_never

from tightrope.errors import DesignError
from tightrope.model import Bare, Participant, Plan, Trees, XenCompat, XenV1, XenV2
from tightrope.participants.purgatory.ours import purgatory
from tightrope.participants.relocation import named
from tightrope.participants.relocation.in_guest import in_guest
from tightrope.participants.relocation.xen_v1 import TAKES, xen_v1
from tightrope.participants.relocation.xen_v2 import xen_v2
from tightrope.participants.stubs import stub
from tightrope.participants.way_out import way_out


def chain(plan: Plan, design: str | Participant) -> tuple[Participant, ...]:
    """The programs between the call and the new kernel; `design` is one of ours by its name, or
    other code.

    Raises BadInput for a design that is none, DesignError for one that cannot walk this way.
    """
    code = design if isinstance(design, Participant) else named(design)(plan.paging)
    theirs = code is design
    hypervisors = theirs and code.contract.trees is Trees.SMALL_PAGES
    if hypervisors and not isinstance(plan.through, XenV2):
        raise _refused(plan, f"{code.name} is called by a hypervisor, through interface v2")
    if theirs and not hypervisors and not isinstance(plan.through, Bare):
        raise _refused(plan, f"no hypervisor calls {code.name}: it has code of its own, or dom0's")
    match plan.through:
        case Bare():
            # What a user wrote is walked as it is written.
            written = theirs and code.image is None
            own = code if written else in_guest(code, plan.host.confidential)
            return own, *_before_the_entry(plan)
        case XenV1():
            return xen_v1(_handed_over(plan, code), plan.paging), stub(plan.stub)
        case XenCompat():
            return way_out(), xen_v1(_handed_over(plan, code), plan.paging), stub(plan.stub)
        case XenV2():
            if hypervisors:
                return code, stub(plan.stub)
            if code.contract.trees is not Trees.TWO:
                raise _refused(
                    plan, f"under v2 the tables are the hypervisor's own: there is no {code.name}"
                )
            return xen_v2(), stub(plan.stub)
        case _:
            assert_never(plan.through)


def _before_the_entry(plan: Plan) -> tuple[Participant, ...]:
    """What runs after the copy: our stub, a loader's purgatory, or nothing."""
    if plan.loaded is None:
        ours = () if plan.purgatory is None else (purgatory(),)
        return *ours, stub(plan.stub)
    return () if plan.loaded.purgatory is None else (plan.loaded.purgatory,)


def _handed_over(plan: Plan, code: Participant) -> Participant:
    if code.contract.trees not in TAKES:
        raise _refused(
            plan, f"page_list has no slots for {code.name}: v1 takes two-tables and damm-v4"
        )
    return code


def _refused(plan: Plan, why: str) -> DesignError:
    return DesignError(why, source=plan.host.source, field="design")
