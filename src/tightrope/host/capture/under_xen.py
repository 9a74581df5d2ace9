"""Whether the kernel that a capture looks at runs on Xen, and whether its addresses are a
machine's.

Rules: pure, on the words of a few files; their names and meanings are `abi.xen`'s.
"""

from __future__ import annotations

from collections.abc import Callable

from tightrope.abi.xen import CAPABILITIES, CONTROL_DOMAIN, GUEST_TYPE, HYPERVISOR_TYPE
from tightrope.errors import HostError


def under_xen(word: Callable[[str], str]) -> list[str]:
    """Notes for a capture, none without Xen; `word` reads a file, "" without it.

    Raises HostError in a PV guest, whose physical addresses are pseudo-physical, and in a dom0 of
    any type, whose kexec is the hypervisor's.  An HVM or PVH guest has a machine of its own.
    """
    if word(HYPERVISOR_TYPE) != "xen":
        return []
    kind = word(GUEST_TYPE)
    dom0 = CONTROL_DOMAIN in word(CAPABILITIES).split(",")
    if dom0 or kind == "PV":
        raise HostError(
            f"this is {'the dom0' if dom0 else 'a PV guest'} of a Xen: what /proc and /sys call"
            " physical is pseudo-physical, and a kexec is the hypervisor's to do; in dom0"
            " `tightrope perform xen --json` tells what Xen says, and `tightrope host xen` makes a"
            " host file of it",
            source="this machine",
            field=CAPABILITIES if dom0 else GUEST_TYPE,
        )
    if kind in ("HVM", "PVH"):
        return [f"Xen runs below, and gives this guest ({kind}) a machine of its own"]
    return [
        f"Xen runs below, and {GUEST_TYPE} cannot be read: in a PV guest all of these addresses are"
        " pseudo-physical, and nothing here is true of the machine"
    ]
