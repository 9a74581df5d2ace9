"""Showing a result: text, JSON where that is asked for, and an HTML file beside either.

Rules: what is shown is the view's, how it looks is the report's; this file only prints.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, TypeVar

from tightrope.cli import outputs

if TYPE_CHECKING:
    from pathlib import Path

    from tightrope.views.view import View

Value = TypeVar("Value")
COLUMNS = 80
"""The width where there is no terminal."""


def ready(options: Namespace, inputs: Iterable[str | Path | None] = ()) -> None:
    """Before anything runs: whether the HTML file may be written.  Raises BadInput."""
    if options.html is not None:
        outputs.check(options.html, force=options.force, inputs=inputs)


def load_report(options: Namespace) -> None:
    """Load what `show` wants of this command's report, while its value is still waited for."""
    import_module(f"tightrope.report.{'json' if options.json else 'text'}")


def show(options: Namespace, view: View[Value], value: Value) -> None:
    """Print a value as the command's options want it."""
    page: Path | None = getattr(options, "html", None)
    sheet = None if options.json and page is None else view.sheet(value)
    if page is not None and sheet is not None:
        from tightrope.report.html import html

        outputs.write(page, html(sheet, title=f"tightrope {view.name}").encode())
    if options.json or sheet is None:
        from tightrope.report import json

        print(json.document(view.name, view.version, view.facts(value)))
        return
    from tightrope.report import text

    if getattr(options, "quiet", False):
        print(text.headline(sheet, colour=colour()))
    else:
        detail = getattr(options, "verbose", True)
        print(text.text(sheet, colour=colour(), width=width(), detail=detail))


def colour() -> bool:
    """Colour on a terminal that has some, unless NO_COLOR says otherwise (no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not plain


def width() -> int:
    """Columns: the terminal's, or COLUMNS, or 80."""
    import shutil

    return shutil.get_terminal_size((COLUMNS, 24)).columns
