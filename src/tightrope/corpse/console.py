"""A console that ends: the last place of every word of the table.

Rules: of words that say the same of the same place, the later one stands for both.
"""

from __future__ import annotations

from collections.abc import Iterator

from tightrope.corpse.log import Log
from tightrope.corpse.words import WORDS
from tightrope.model.corpse import Remains


def read(log: Log) -> Iterator[Remains]:
    """Each word where it stands last."""
    by_line: dict[int, Remains] = {}
    for each in WORDS:
        found = log.last(each.word)
        if found is None:
            continue
        at = found[0]
        number = log.number(at)
        said = log.line(at)
        if said.startswith("-- "):
            said = f"{log.line_before(at)} {said}"  # the reason stands in the line before it
        # More than one word of a line: the last row of the table says most.
        by_line[number] = Remains(
            kind=each.kind,
            line=number,
            offset=at,
            ending=each.ending,
            phase=each.phase,
            words=f"{each.means}: {said}",
        )
    yield from by_line.values()
