"""The shape of facts as JSON Schema (draft 2020-12), made from the TypedDict that mypy checks them
by.

    class PlanFacts(TypedDict):            {"type": "object", "properties": {
        image: str                   ->        "image": {"type": "string"},
        pages: list[int]                       "pages": {"type": "array", "items": {"type": "integer"}}}}

Rules: an object is closed unless its keys are names of things (a dict); every key is required,
because a value that is missing is null.
"""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints, is_typeddict

from tightrope.report.json import schema_name

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_PLAIN = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    NoneType: "null",
}


def schema(name: str, version: int, shape: type) -> dict[str, Any]:
    """The schema of a document; each TypedDict within is said once, under $defs."""
    definitions: dict[str, Any] = {}
    top = _object(shape, definitions)
    named = schema_name(name, version)
    top["properties"] = {"schema": {"const": named}, **top["properties"]}
    top["required"] = ["schema", *top["required"]]
    return {"$schema": DRAFT, "$id": named, "title": named, **top, "$defs": definitions}


def _object(shape: type, definitions: dict[str, Any]) -> dict[str, Any]:
    hints = get_type_hints(shape)
    return {
        "type": "object",
        "properties": {key: _type(each, definitions) for key, each in hints.items()},
        "required": list(hints),
        "additionalProperties": False,
    }


def _type(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if is_typeddict(hint):
        if hint.__name__ not in definitions:
            definitions[hint.__name__] = {}  # it may contain itself
            definitions[hint.__name__] = _object(hint, definitions)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return {"anyOf": [_type(each, definitions) for each in inner]}
    if origin is list:
        return {"type": "array", "items": _type(inner[0], definitions)}
    if origin is dict and inner[0] is str:
        return {"type": "object", "additionalProperties": _type(inner[1], definitions)}
    raise TypeError(f"{hint!r} has no place in JSON")
