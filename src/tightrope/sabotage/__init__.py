"""Ways to break a handover on purpose, each caught by its own rule at its own step.

A check that has never failed proves nothing.  `rehearse --sabotage NAME` breaks one thing in the
description, the code, the tables, the list or the contents, and lets the walk run: the finding
named here has to be the first.  `rehearse` applies the four kinds of change where they belong.

    sabotage     what one is: said at the function that breaks something
    edits        finished values changed into others: an entry, a word of the list, bytes of code
    tables       entries of page_table_a and page_table_b
    pdptes       the one that needs code of its own
    routine      bytes of the relocation code
    page_list    words of the page list
    segments     what was loaded, the entry stub among it
    old_kernel   its page tables, and what a dump of it leads to
    xen          what is only there under a hypervisor

Rules: a sabotage leaves everything else as it was.  It may use symbols of the routines, so it
breaks the shipped code and no other.

May import: abi, errors, memory, model, routines, sabotage.xen, x86
"""

from __future__ import annotations

from collections.abc import Mapping

from tightrope.errors import BadInput, near
from tightrope.sabotage import old_kernel, page_list, pdptes, routine, segments, tables
from tightrope.sabotage.sabotage import Sabotage, sabotages_of
from tightrope.sabotage.xen import asked, way_out

_ALL = sabotages_of(tables, pdptes, routine, page_list, segments, old_kernel)
SABOTAGES: Mapping[str, Sabotage] = {n: each for n, each in _ALL.items() if each.entry is None}
ENTRY_SABOTAGES: Mapping[str, Sabotage] = {n: each for n, each in _ALL.items() if each.entry}
"""Those that break one entry and no other."""
XEN_SABOTAGES: Mapping[str, Sabotage] = sabotages_of(asked, way_out)
"""Those that break a handover through Xen and no other."""


def named(name: str) -> Sabotage:
    """The sabotage of that name.  Raises BadInput."""
    every = {**_ALL, **XEN_SABOTAGES}
    if name not in every:
        hint = near(name, every, lists="--sabotage list")
        raise BadInput(f"{name!r} is not a sabotage{hint}", source="--sabotage")
    return every[name]


__all__ = ["ENTRY_SABOTAGES", "SABOTAGES", "XEN_SABOTAGES", "Sabotage", "named"]
