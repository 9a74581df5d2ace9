"""The page list as Linux's relocate_kernel_64.S reads it: one word at a time, flags 1, 2, 4, 8.

Rules: written from the kernel's machine code, in plain Python, without a constant or a function of
`tightrope.plan`.  It is the other door through which tests read a list.
"""

from __future__ import annotations

from collections.abc import Callable

PAGE = 4096


def follow(
    head: int, word_at: Callable[[int], int], *, limit: int = 100_000
) -> list[tuple[int, int]]:
    """The copies that a list orders, in order: (destination, source) addresses of whole pages.

    `word_at` gives the 8-byte word at a physical address.  A word that has no flag is skipped, as
    the kernel does; a list that does not end after `limit` words is an AssertionError.
    """
    copies: list[tuple[int, int]] = []
    destination = at = 0
    word = head
    for _ in range(limit):
        if word & 1:
            destination = word & -PAGE
        elif word & 2:
            at = word & -PAGE
        elif word & 4:
            return copies
        elif word & 8:
            copies.append((destination, word & -PAGE))
            destination += PAGE
        word = word_at(at)
        at += 8
    raise AssertionError(f"the list has not ended after {limit} words")
