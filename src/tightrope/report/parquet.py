"""Rows as a Parquet file, for whoever asks a fleet's questions in SQL.

Rules: one row group, columns in the order they are given in; pyarrow writes it, and is loaded here
alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import IO, Any

from tightrope.errors import MissingPart


def ready() -> Any:
    """The library.  Raises MissingPart before anything has been done for nothing."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as err:
        raise MissingPart("--parquet needs pyarrow: pip install 'tightrope[fleet]'") from err
    return pyarrow


def write(out: IO[bytes], rows: Iterable[Mapping[str, Any]], columns: Mapping[str, type]) -> None:
    """All rows; a column is str, bool, int, float or list (of strings), or None."""
    arrow = ready()
    kinds = {
        str: arrow.string(),
        bool: arrow.bool_(),
        int: arrow.int64(),
        float: arrow.float64(),
        list: arrow.list_(arrow.string()),
    }
    schema = arrow.schema([(name, kinds[kind]) for name, kind in columns.items()])
    table = arrow.Table.from_pylist(list(rows), schema=schema)
    arrow.parquet.write_table(table, out, compression="zstd")
