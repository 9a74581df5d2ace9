"""A TOML document declared once, as dataclasses: read with paths in every error, written with
comments.

    @dataclass(frozen=True, kw_only=True)
    class Cpu:
        physical_bits: Annotated[int, Number(low=32, high=52), Says("MAXPHYADDR")]

    read_table(Cpu, {"physical_bits": 46}, At("a.toml", "cpu"))    ->  Cpu(physical_bits=46)
    write_table(cpu, "cpu", Comments())                            ->  [cpu], physical_bits = 46  # MAXPHYADDR
    json_schema(Cpu)                                               ->  what an editor checks while one types

Rules: this file knows TOML and `HostError`, and nothing about hosts; it needs the standard library
alone, because a machine that is captured has nothing else.  A table is a dataclass, an array of
tables a tuple of one; a field without a default has to be there, and keys that no field has are
refused.  An attribute that Python keeps for itself ends in `_`: `global_` is `global`.

    kinds     numbers, words, flags: what one value may be
    tables    what a dataclass declares; reading one; JSON Schema
    writing   one as TOML, with comments

May import: errors
"""

from tightrope.host.schema.kinds import (
    At,
    Choice,
    Number,
    NumberOr,
    Says,
    Text,
    Texts,
    either,
    quoted,
)
from tightrope.host.schema.tables import declares, json_schema, read_table
from tightrope.host.schema.writing import Comments, write_table

__all__ = [
    "At",
    "Choice",
    "Comments",
    "Number",
    "NumberOr",
    "Says",
    "Text",
    "Texts",
    "declares",
    "either",
    "json_schema",
    "quoted",
    "read_table",
    "write_table",
]
