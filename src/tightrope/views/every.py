"""The shapes of all documents, by the name in their `schema`.

Rules: a test prints every command's JSON and holds it to the schema that is exported from here.
"""

from __future__ import annotations

from collections.abc import Mapping

from tightrope.views import (
    agreement,
    captured,
    comparison,
    contracts,
    crash_boot,
    dump_info,
    explanation,
    glossary,
    health,
    hops,
    host,
    inspection,
    linux_says,
    matrix,
    pairs,
    pgd,
    planned,
    proofs,
    rehearsal,
    rules,
    sweep,
    trees,
    watched,
    xen_says,
)

_VIEWS = (
    rehearsal.VIEW,
    inspection.VIEW,
    planned.VIEW,
    trees.VIEW,
    comparison.VIEW,
    matrix.VIEW,
    pairs.VIEW,
    explanation.VIEW,
    sweep.VIEW,
    hops.VIEW,
    watched.VIEW,
    agreement.VIEW,
    pgd.VIEW,
    dump_info.VIEW,
    captured.VIEW,
    crash_boot.VIEW,
    proofs.VIEW,
    proofs.MUTANTS,
    contracts.VIEW,
    rules.VIEW,
    rules.RULE,
    glossary.VIEW,
    health.VIEW,
    rules.SABOTAGES,
    host.VIEW,
)

SHAPES: Mapping[str, tuple[int, type]] = {
    **{each.name: (each.version, each.shape) for each in _VIEWS},
    xen_says.NAME: (xen_says.VERSION, xen_says.XenSaysFacts),
    **linux_says.SHAPES,
}
"""Name -> version and TypedDict."""
