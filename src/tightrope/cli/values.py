"""What an argument's text says: a number, a time, an extent.

Rules: text in, a value out, or argparse's own error, which names the argument.
"""

from __future__ import annotations

import argparse


def seconds(text: str) -> float:
    """Seconds of an argument; `nan` would never be over."""
    seconds = float(text)
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text} is not a time to listen for")
    return seconds


def count(text: str) -> int:
    """A number of cases."""
    count = int(text, 0)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of cases")
    return count


def number(text: str) -> int:
    """A whole number, in hexadecimal with 0x."""
    return int(text, 0)


def extent(text: str) -> tuple[int, int]:
    """START+SIZE, both in bytes."""
    start, plus, size = text.partition("+")
    if not plus:
        raise argparse.ArgumentTypeError(f"{text} is not START+SIZE")
    return int(start, 0), int(size, 0)
