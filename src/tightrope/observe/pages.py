"""Many page copies, done in few: the bytes are those that one copy after the other would leave.

    (to, of), (to, of), ...   the copies of one turn, each an array with a page for every turn

Copies of a page onto itself do nothing.  Copies that walk through memory in step, page after page,
and whose pages do not meet, are one move; a page that every turn goes through (Linux's swap page)
needs only what the last turn leaves there.  Whatever is not of this kind is done page by page.

Rules: `to` and `of` are physical addresses of whole pages that are memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tightrope.memory import PAGE_SIZE, Extent
from tightrope.observe.physical import Ram

Places = NDArray[np.int64]
Pairs = Sequence[tuple[Places, Places]]


def copy_in_order(ram: Ram, pairs: Pairs, count: int) -> None:
    """Copy, turn after turn, each turn's pages in the order of `pairs`."""
    if not pairs or not count:
        return
    # One array is one column, however many copies name it.
    columns = list({id(column): column for pair in pairs for column in pair}.values())
    if len(columns) == 1:
        return
    same = np.array([one == other for n, one in enumerate(columns) for other in columns[:n]])
    # Runs of turns in which the same columns are the same page.
    breaks = np.nonzero((same[:, 1:] != same[:, :-1]).any(axis=0))[0] + 1
    for first, end in zip([0, *breaks.tolist()], [*breaks.tolist(), count], strict=True):
        part = [(to[first:end], of[first:end]) for to, of in pairs]
        if not _moved(ram, part):
            _page_by_page(ram, part)


def _page_by_page(ram: Ram, pairs: Pairs) -> None:
    for turn in zip(*(column.tolist() for pair in pairs for column in pair), strict=True):
        for to, of in zip(turn[::2], turn[1::2], strict=True):
            if to != of:
                ram.write(to, ram.read(Extent.sized(of, PAGE_SIZE)))


def _moved(ram: Ram, pairs: Pairs) -> bool:
    """Do it in few moves; False, and nothing done, where the order of the turns may matter."""
    places = {int(column[0]): column for pair in pairs for column in pair}
    """The different pages of a turn, by the first turn's."""
    holds = {place: place for place in places}
    for to, of in pairs:
        holds[int(to[0])] = holds[int(of[0])]
    changed = {place: of for place, of in holds.items() if place != of}
    if not changed:
        return True
    length = len(pairs[0][0])
    still = {place for place, column in places.items() if column[0] == column[-1] and length > 1}
    moving = places.keys() - still
    if any(not _in_step(places[place]) for place in moving):
        return False
    if any((places[place] != place).any() for place in still) or changed.keys() & still & set(
        changed.values()
    ):
        return False
    spans = sorted(
        (place, place + (PAGE_SIZE if place in still else PAGE_SIZE * length)) for place in places
    )
    if any(end > start for (_, end), (start, _) in pairwise(spans)):
        return False
    last = PAGE_SIZE * (length - 1)
    new = []
    for place, source in changed.items():
        if place in still:
            new.append((place, source if source in still else source + last, PAGE_SIZE))
        elif source in still:
            return False
        else:
            new.append((place, source, PAGE_SIZE * length))
    # What is written may be a later one's source.
    written: set[int] = set()
    kept = []
    for place, source, size in new:
        view = ram.read(Extent.sized(source, size))
        kept.append((place, bytes(view) if changed[place] in written else view))
        written.add(place)
    for place, data in kept:
        ram.write(place, data)
    return True


def _in_step(column: Places) -> bool:
    """Page after page, upwards."""
    return bool((np.diff(column) == PAGE_SIZE).all())
