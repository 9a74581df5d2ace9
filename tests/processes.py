"""Whether a process has ended: who started it may have gone before it was waited for.

Rules: a zombie has ended; what is waited for has minutes.
"""

from __future__ import annotations

import time
from pathlib import Path


def lives(number: int) -> bool:
    """A process that has not ended; a zombie has."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def gone(number: int) -> bool:
    """It is not there any more, within some time."""
    limit = time.monotonic() + 120
    while lives(number) and time.monotonic() < limit:
        time.sleep(0.01)
    return not lives(number)
