"""The world that a plan jumps from: the old kernel's, or a hypervisor's with its dom0.

Rules: this file knows who calls V, and nothing of how either is laid out.
"""

from __future__ import annotations

from typing import assert_never

from tightrope.model import Bare, Code, Host, Plan, World, XenCompat, XenV1, XenV2
from tightrope.world.world import lay
from tightrope.world.xen.world import lay_xen


def planned(plan: Plan, code: Code, host: Host | None = None) -> World:
    """The world of a plan with `code` at V; `host` is the plan's unless a sabotage says otherwise.

    Raises HostError for what does not fit.
    """
    host = host or plan.host
    match plan.through:
        case Bare():
            return lay(host, code, plan.relocation)
        case XenV1() | XenCompat() | XenV2():
            return lay_xen(plan, plan.through, code, host)
        case _:
            assert_never(plan.through)
