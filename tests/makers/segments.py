"""Makers of segments files: what `tightrope record` writes, put together here by its document.

Rules: nothing of tightrope is used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence


def segments_file(
    rows: Iterable[tuple[int, int, bytes]] = (),
    *,
    entry: int = 0x10_0000,
    objects: Sequence[bytes] = (),
    header: Mapping[str, object] | None = None,
    **other: object,
) -> bytes:
    """A file of kexec_load's (start, size, data) rows; `header` or `other` say otherwise."""
    rows = list(rows)
    facts: Mapping[str, object] = {
        "format": "tightrope segments",
        "version": 1,
        "call": "kexec_load",
        "command": ["kexec", "-l", "vmlinuz"],
        "loader": "kexec-tools 2.0.25",
        "machine": "x86_64",
        "release": "6.1.0",
        "crash": False,
        "flags": 62 << 16,
        "entry": entry,
        "segments": [
            {"start": start, "size": size, "bytes": len(data)} for start, size, data in rows
        ],
        "objects": [len(each) for each in objects],
        **other,
    }
    line = json.dumps(facts if header is None else header).encode() + b"\n"
    whole = line + b"".join(data for _, _, data in rows) + b"".join(objects)
    return whole + hashlib.sha256(whole).hexdigest().encode() + b"\n"
