#!/usr/bin/env bash
# pyarrow reads kernel addresses from CSV and JSON as doubles, and gives symbols of one neighbourhood one address.
#
# Guess before it was tried: integers of 2**63 and more are of type uint64, or an error, as pyarrow.array of such an
# integer is one ("Python int too large").
# Seen with pyarrow 26.0.1: without a schema read_csv and read_json make the column double, without a word: of
# 0xffffffff81000123 and its neighbour both are 0xffffffff81000000, as a double has 53 bits.  One such value does that to
# the whole column, small ones as well.  With uint64 in column_types or in an explicit schema they are exact.  DuckDB 2.0.1
# (HUGEINT) and polars 2.1.0 (Int128) read the same files exactly.
#
# What it costs: a table of symbols, of linear addresses or of CR3 and EFER values that was exact in its file joins and
# groups as if they were the same within 2 KiB; page offsets are gone.
#
# Needs: python3 with venv, and 150 MB of download; half a minute.  Exits 1 when this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check pyarrow==26.0.1 duckdb==2.0.1 polars==2.1.0
env/bin/python - <<'PY'
import json
from importlib.metadata import version
from pathlib import Path

import duckdb
import polars
import pyarrow
import pyarrow.csv
import pyarrow.json

WRITTEN = [4096, 0xFFFFFFFF81000123, 0xFFFFFFFF81000124]
READ = [4096.0, float(0xFFFFFFFF81000000), float(0xFFFFFFFF81000000)]
Path("table.csv").write_text("address\n" + "".join(f"{each}\n" for each in WRITTEN))
Path("table.json").write_text("".join(json.dumps({"address": each}) + "\n" for each in WRITTEN))
print(*(f"{each} {version(each)}" for each in ("pyarrow", "duckdb", "polars")))
exact = pyarrow.schema({"address": pyarrow.uint64()})
for name, inferred, told in (
    (
        "CSV",
        pyarrow.csv.read_csv("table.csv"),
        pyarrow.csv.read_csv("table.csv", convert_options=pyarrow.csv.ConvertOptions(column_types=exact)),
    ),
    (
        "JSON",
        pyarrow.json.read_json("table.json"),
        pyarrow.json.read_json("table.json", parse_options=pyarrow.json.ParseOptions(explicit_schema=exact)),
    ),
):
    column = inferred["address"]
    print(f"{name}: {column.type}", *(hex(int(each)) for each in column.to_pylist()))
    assert column.type == pyarrow.float64() and column.to_pylist() == READ
    assert told["address"].to_pylist() == WRITTEN
try:
    print("pyarrow.array:", pyarrow.array(WRITTEN).type)
    raise SystemExit("an integer of 2**63 and more is taken now")
except OverflowError as error:
    print("pyarrow.array:", error)
for name, wide in (("table.csv", polars.read_csv), ("table.json", polars.read_ndjson)):
    by_duckdb = duckdb.sql(f"SELECT typeof(address), address FROM '{name}'").fetchall()
    by_polars = wide(name)["address"]
    print(f"{name}: DuckDB {by_duckdb[0][0]}, polars {by_polars.dtype}")
    assert [address for _, address in by_duckdb] == by_polars.to_list() == WRITTEN
print("as seen")
PY
