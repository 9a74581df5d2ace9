"""Files of a machine that were collected without Tightrope, and the script that does it.

    contrib/capture.py  = its head + the functions of capture.tree and capture.collect, annotations gone
    its output          --collected--> the same files --capture--> a host file --> Host

Rules: the script is made from the source of this room, byte for byte the same each time; a test
holds the one in contrib/ to it.  Any text is a host or a HostError.
"""

from __future__ import annotations

import ast
import inspect
import os
import tomllib
from collections.abc import Callable, Iterator

from tightrope.errors import BadInput, HostError
from tightrope.host import profile
from tightrope.host.capture import capture, collect, sources, tree
from tightrope.model import Host

HEAD = '''#!/usr/bin/env python3
"""Collect what Tightrope asks of a machine: ssh HOST python3 - < capture.py > HOST.toml

Made from Tightrope's own source by `make collector`; do not edit.  It reads, and writes to its output
alone; Python 3.6 or newer and nothing else.  Root sees more, and what others cannot see is assumed.
"""

import errno
import json
import os
import re
import stat
import sys
from itertools import islice
from pathlib import Path

'''
MOST_FILES = 1 << 16


def script() -> str:
    """The source of contrib/capture.py."""
    values = {
        "PATHS": tree.PATHS,
        "DIRECTORIES": tree.DIRECTORIES,
        "LIMITS": tree.LIMITS,
        "MOST_ENTRIES": tree.MOST_ENTRIES,
        "SYMBOLS": sources.SYMBOLS,
        "MARK": collect.MARK,
        "KALLSYMS": collect.KALLSYMS,
    }
    parts = [f"{name} = {_literal(value)}\n" for name, value in values.items()]
    functions: tuple[Callable[..., object], ...] = (
        tree.read_tree,
        tree._entries,
        tree._text,
        collect.printed,
        collect.main,
    )
    parts += [f"\n\n{_plain(inspect.getsource(each))}" for each in functions]
    return HEAD + "".join(parts) + "\n\nmain()\n"


def _literal(value: object) -> str:
    if isinstance(value, tuple):
        rows = "".join(f"    {each!r},\n" for each in value)
        return f"(\n{rows})"
    return repr(value)


def _plain(source: str) -> str:
    """A function's source without its annotations."""
    lines = source.splitlines(keepends=True)
    for start, end in sorted(_annotations(ast.parse(source)), reverse=True):
        (first, column), (last, after) = start, end
        kept = lines[first - 1][:column] + lines[last - 1][after:]
        lines[first - 1 : last] = [kept]
    return "".join(lines)


_Place = tuple[int, int]


def _annotations(tree: ast.AST) -> Iterator[tuple[_Place, _Place]]:
    """From where to where each lies: (line, column), with its colon or arrow."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation is not None:
            start = (node.lineno, node.col_offset + len(node.arg))
            yield start, _end(node.annotation)
        elif isinstance(node, ast.AnnAssign):
            yield _end(node.target), _end(node.annotation)
        elif isinstance(node, ast.FunctionDef) and node.returns is not None:
            end = _end(node.returns)
            arrow = len(" -> ")
            yield (node.returns.lineno, node.returns.col_offset - arrow), end


def _end(node: ast.expr) -> _Place:
    assert node.end_lineno is not None, "what was parsed from text has an end"
    assert node.end_col_offset is not None, "what was parsed from text has an end"
    return node.end_lineno, node.end_col_offset


def read(text: str, source: str) -> Host:
    """A host from a host file, or from what `contrib/capture.py` printed.  Raises HostError."""
    if not text.startswith(collect.MARK):
        return profile.read(text, source)
    return profile.read(capture(collected(text, source), source).toml, source)


def read_bytes(data: bytes, source: str) -> Host:
    """The same from a file's bytes.  Raises BadInput."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as err:
        raise BadInput("not UTF-8 text", source=source, offset=err.start) from err
    return read(text, source)


def collected(text: str, source: str) -> dict[str, str | OSError]:
    """The files that were collected, by their paths.  Raises HostError."""
    try:
        said = tomllib.loads(text)
    except (ValueError, RecursionError) as err:
        raise HostError(f"not TOML: {err}", source=source) from err
    files, errors = said.get("files"), said.get("errors", {})
    if not isinstance(files, dict) or not isinstance(errors, dict) or not set(said) <= _TABLES:
        raise HostError("has no [files], or more than [files] and [errors]", source=source)
    if len(files) + len(errors) > MOST_FILES:
        raise HostError("more files than a machine has", source=source, limit=MOST_FILES)
    found: dict[str, str | OSError] = {}
    for path, got in files.items():
        if not isinstance(got, str):
            raise HostError("is not text", source=source, field=path)
        found[path] = got
    for path, number in errors.items():
        if not isinstance(number, int):
            raise HostError("is not an error's number", source=source, field=path)
        found[path] = OSError(number, os.strerror(min(number, 4095)))
    return found


_TABLES = {"files", "errors"}
