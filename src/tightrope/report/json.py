"""Facts as JSON: an object whose `schema` names its shape and the version of that.

    {"schema": "tightrope/plan/1", "image": ..., ...}
    {"schema": "tightrope/error/1", "status": 2, "error": {"kind": "BadInput", "message": ..., ...}}

Rules: a version grows when a key goes or means something else; a key more is no new version.  What
a command says where it could not answer is an object, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypedDict

from tightrope.errors import BadInput


class ErrorFacts(TypedDict):
    """Why there is no answer: `source`, `field`, `offset` and `limit` are those of BadInput."""

    kind: str
    message: str
    source: str | None
    field: str | None
    offset: int | None
    limit: int | None


class FailureFacts(TypedDict):
    """What a command prints under --json that could not answer."""

    status: int
    error: ErrorFacts


ERROR = "error"
VERSION = 1
"""The version of `FailureFacts`."""


def schema_name(name: str, version: int) -> str:
    """What a document names its shape."""
    return f"tightrope/{name.replace(' ', '-')}/{version}"


def document(name: str, version: int, facts: Mapping[str, object]) -> str:
    """Facts as a JSON object, without a line break at its end."""
    return json.dumps({"schema": schema_name(name, version), **facts}, indent=2)


def failure(error: BaseException, message: str, status: int) -> str:
    """Why there is no answer, and the exit status that says so."""
    bad = error if isinstance(error, BadInput) else None
    facts: FailureFacts = {
        "status": status,
        "error": {
            "kind": type(error).__name__,
            "message": message,
            "source": None if bad is None else bad.source,
            "field": None if bad is None else bad.field,
            "offset": None if bad is None else bad.offset,
            "limit": None if bad is None else bad.limit,
        },
    }
    return document(ERROR, VERSION, facts)
