"""Sheets and facts in, text for people and JSON for programs out: one file each for all commands.

    text       a sheet as text, for a terminal or a pipe
    strip      its maps, a lane a line
    html       a sheet as one HTML file, by sheet.html.j2
    drawing    its maps, as an SVG
    json       facts as JSON with the name and version of their schema; errors too
    schema     a TypedDict as JSON Schema
    parquet    rows as a Parquet file
    progress   the bar on a terminal

Rules: nothing here knows a command; what is shown is decided in `views`, how it looks is decided
here.

May import: errors, model
"""
