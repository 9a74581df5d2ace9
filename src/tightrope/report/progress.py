"""A progress bar on a terminal, nothing in a pipe.

Rules: the bar goes to stderr, so that stdout is the report alone; it disappears when it is done.
Work that takes less than a moment shows nothing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Never

if TYPE_CHECKING:
    from tqdm import tqdm

DELAY = 0.4
"""Seconds before a bar appears."""


class Bar:
    """Call it as a `machine.port.Progress`; close it at the end, whatever happened."""

    def __init__(self) -> None:
        self._bar: tqdm[Never] | None = None
        self._what = ""
        self._wanted = sys.stderr.isatty()

    def __call__(self, what: str, done: int, total: int) -> None:
        if not self._wanted:
            return
        if self._bar is None or what != self._what:
            self._start(what, total)
        if self._bar is not None and total:
            self._bar.n = done
            self._bar.refresh()

    def _start(self, what: str, total: int) -> None:
        from tqdm import tqdm

        self.close()
        self._what = what
        self._bar = tqdm(
            desc=what,
            total=total or None,
            unit="s" if total else "",
            delay=DELAY,
            leave=False,
            dynamic_ncols=True,
            bar_format="{desc}: {elapsed} |{bar}| at most {total}s"
            if total
            else "{desc}: {elapsed}",
        )

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
