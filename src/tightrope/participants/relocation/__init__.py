"""This project's relocation code by name, and a hypervisor's.

    in_place         in-place: Linux 2.6.16, before the thread
    two_tables       two-tables: the thread's, and what a rehearsal has when none is asked for
    one_table        one-table: Biederman's answer in the thread, and what Linux became
    damm_v4          damm-v4: as merged in 2.6.20
    split_function   split-function: Biederman's last proposal in the thread
    in_guest         this project's code, as a confidential guest has to run it

    xen_v1           a design of dom0's, as a hypervisor calls it
    xen_v2           the hypervisor's own

Rules: this is the only list of what makes them; the command line has their names of
`choices.Design`, and mypy and a test hold the two together.

May import: choices, errors, model, participants, routines
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tightrope.choices import Design
from tightrope.errors import BadInput
from tightrope.model import Paging, Participant
from tightrope.participants.relocation.damm_v4 import damm_v4
from tightrope.participants.relocation.in_place import in_place
from tightrope.participants.relocation.one_table import one_table
from tightrope.participants.relocation.split_function import split_function
from tightrope.participants.relocation.two_tables import two_tables

DESIGNS: Mapping[str, Callable[[Paging], Participant]] = {
    Design.IN_PLACE.value: in_place,
    Design.TWO_TABLES.value: two_tables,
    Design.ONE_TABLE.value: one_table,
    Design.DAMM_V4.value: damm_v4,
    Design.SPLIT_FUNCTION.value: split_function,
}
"""This project's designs by name, in the order of history but for the thread's own."""


def named(design: str) -> Callable[[Paging], Participant]:
    """The design of that name.  Raises BadInput."""
    try:
        return DESIGNS[design]
    except KeyError:
        raise BadInput(
            f"no design {design!r}; there are {', '.join(DESIGNS)}", source="--design"
        ) from None
