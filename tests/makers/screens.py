"""What a reader gets of a value: the screen as text, and the facts as a dict."""

from __future__ import annotations

from typing import Any, TypeVar

from tightrope.report import text
from tightrope.views.view import View

Value = TypeVar("Value")


def screen(view: View[Value], value: Value, *, colour: bool = False) -> str:
    """The view's sheet as text."""
    return text.text(view.sheet(value), colour=colour)


def facts(view: View[Value], value: Value) -> dict[str, Any]:
    """The view's facts, whatever their shape."""
    return dict(view.facts(value))
