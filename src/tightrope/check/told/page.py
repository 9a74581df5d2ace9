"""The zero page that the new kernel finds, read once for all rules that ask for it.

Rules: None where there is nothing to say of it, why where it cannot be read.
"""

from __future__ import annotations

from tightrope.check.case import Case
from tightrope.check.told.boot_params import ZeroPage
from tightrope.check.told.reading import LINUX, linux_page
from tightrope.memory import Extent
from tightrope.model import Stop


def zero_page(case: Case) -> ZeroPage | str | None:
    """The page at the entry."""
    return case.once(_page)


def _page(case: Case) -> ZeroPage | str | None:
    """The page at the entry, why it cannot be read, or None where there is nothing to say of it."""
    if case.run.stop is not Stop.ENTRY or case.intent.protocol not in LINUX:
        return None
    if not case.intact(Extent.sized(case.intent.boot_params, 1)):
        return None  # see destinations-complete
    return linux_page(case)
