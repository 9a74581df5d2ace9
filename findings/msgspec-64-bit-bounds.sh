#!/usr/bin/env bash
# msgspec takes integers of any size, and a bound beyond int64 only until it is used.
#
# Seen with msgspec 0.23.0.  Guess beforehand: Annotated[int, Meta(ge=0, le=2**64-1, multiple_of=4096)] bounds
# a kernel's linear address: unsigned 64-bit values are read from TOML and JSON, and Meta and the class that
# has it take the bound.  So far that is so.  The first value that is decoded, a small one as well, raises
# ValueError, and so does the JSON Schema: bounds that do not fit an int64 are not supported.
#
# What it costs: the type of a field for addresses in the upper half of 64 bits cannot say how large they may
# be; a program finds out with the first file, not where it declares the type.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check msgspec==0.23.0

"$work/venv/bin/python" - <<'PYTHON'
from typing import Annotated

import msgspec
from msgspec import Meta

TEXT = 0xFFFF_FFFF_9AC0_1000
Aligned = msgspec.defstruct("Aligned", [("at", Annotated[int, Meta(multiple_of=4096)])])
Bounded = msgspec.defstruct("Bounded", [("at", Annotated[int, Meta(ge=0, le=2**64 - 1)])])
print("msgspec", msgspec.__version__)


def answer(kind, value):
    try:
        return hex(msgspec.toml.decode(f"at = {value}".encode(), type=kind).at)
    except (ValueError, msgspec.ValidationError) as err:
        return f"{type(err).__name__}: {str(err)[:60]}"


for kind in (Aligned, Bounded):
    for value in (4096, TEXT, 2**70):
        print(f"{kind.__name__} {value:#x}: {answer(kind, value)}")
try:
    schema = str(msgspec.json.schema(Bounded))
except ValueError as err:
    schema = f"ValueError: {str(err)[:60]}"
print("JSON Schema of Bounded:", schema)
assert answer(Aligned, TEXT) == hex(TEXT)
assert answer(Aligned, 2**70) == hex(2**70)
assert schema.startswith("ValueError: Integer bounds")
assert all("ValueError: Integer bounds" in answer(Bounded, value) for value in (4096, TEXT))
PYTHON
