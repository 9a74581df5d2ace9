"""The designs as a table, one row each.

Rules: the rows are done; a design that cannot exist has its reason below the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tightrope.model.comparison import Row


def text(rows: Sequence[Row]) -> str:
    """The table, without a line break at its end."""
    return "\n".join(_lines(rows))


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    yield (
        f"{'design':<15} {'verdict':<34} {'new kernel':<11} {'tables':>6} {'old kernel':>11}"
        f" {'copied':>7} {'copies':>7} {'instructions':>13} {'flushes':>8}"
    )
    yield (f"{'':<15} {'':<34} {'':<11} {'pages':>6} {'bytes lost':>11} {'pages':>7} {'a page':>7}")
    for row in rows:
        if row.outcome is None:
            yield f"{row.design:<15} cannot exist"
            continue
        verdict = row.outcome.value + (f" ({row.detail})" if row.detail else "")
        copies = "-" if row.copies_per_page is None else f"{row.copies_per_page:g}"
        yield (
            f"{row.design:<15} {verdict:<34} {'entered' if row.reached else 'not entered':<11}"
            f" {row.table_pages:>6} {row.old_bytes_changed:>11} {row.pages_copied:>7} {copies:>7}"
            f" {row.instructions:>13} {row.flushes:>8}"
        )
    for row in rows:
        if row.outcome is None:
            yield f"{row.design}: {row.detail}"


def document(rows: Sequence[Row]) -> list[dict[str, object]]:
    """One object per design."""
    return [
        {
            "design": row.design,
            "outcome": None if row.outcome is None else row.outcome.value,
            "detail": row.detail,
            "table_pages": row.table_pages,
            "old_bytes_changed": row.old_bytes_changed,
            "pages_copied": row.pages_copied,
            "copies_per_page": row.copies_per_page,
            "reached": row.reached,
            "instructions": row.instructions,
            "flushes": row.flushes,
        }
        for row in rows
    ]
