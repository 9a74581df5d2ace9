"""Showing a result: text, or JSON where that is asked for.

Rules: what is shown is the view's, how it looks is the report's; this file only prints.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from tightrope.views.view import View

Value = TypeVar("Value")


def show(options: Namespace, view: View[Value], value: Value) -> None:
    """Print a value as the command's options want it."""
    from tightrope.report import json, text

    if options.json:
        print(json.document(view.name, view.version, view.facts(value)))
    else:
        print(text.text(view.sheet(value), colour=colour()))


def colour() -> bool:
    """Colour on a terminal, unless NO_COLOR says otherwise (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
