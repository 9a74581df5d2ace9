"""The designs by name, as tests write them.

Rules: the names are the registry's; a test that names one that is not there fails to import.
"""

from __future__ import annotations

from tightrope import participants

DESIGNS = tuple(participants.DESIGNS)
IN_PLACE, TWO_TABLES, ONE_TABLE, DAMM_V4, SPLIT_FUNCTION = DESIGNS
