"""A host: what it is, and what each of its fields rests on; the same for the verdict of a
rehearsal.

Rules: a description that says of nothing that it is assumed sets a verdict no condition.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict

from tightrope.model import Basis, Host
from tightrope.model.sheet import Line, Section, Sheet
from tightrope.views import words
from tightrope.views.view import View

FIELD = 24
"""Columns of a field's name."""


class FactFacts(TypedDict):
    field: str
    basis: str
    source: str
    settle: str | None


class HostFacts(TypedDict):
    """Everything that `tightrope host check --json` prints."""

    source: str
    paging: str
    ram: int
    relocation: int | None
    confidential: str | None
    facts: list[FactFacts]


def facts_of(host: Host) -> list[FactFacts]:
    """Every fact that says where it comes from."""
    return [
        {
            "field": each.field,
            "basis": each.basis.value,
            "source": each.source,
            "settle": each.settle or None,
        }
        for each in host.facts
    ]


def condition(host: Host) -> str:
    """`, if busy and private are as assumed`, or nothing."""
    names = [each.field for each in host.assumed()]
    if not names:
        return ""
    *most, last = names
    listed = f"{', '.join(most)} and {last} are" if most else f"{last} is"
    return f", if {listed} as assumed"


def rests_on(host: Host) -> str:
    """What kind of description a verdict rests on: a noun phrase."""
    if not host.facts:
        how = "capture` describes this machine" if host.xen is None else "xen` describes a dom0's"
        return f"a host description that names no source for its fields (`tightrope host {how})"
    assumed = len(host.assumed())
    if not assumed:
        return "a host description of which nothing is assumed"
    return f"a host description with {words.count(assumed, 'assumed field')} (see below)"


def assumptions(host: Host) -> Iterator[str]:
    """Each of them, and what would settle it."""
    found = host.assumed()
    if found:
        yield f"Assumed of the host ({words.count(len(found), 'fact')}):"
    for each in found:
        settle = f"; it would be settled by {each.settle}" if each.settle else ""
        yield f"    {each.field}: {each.source}{settle}"


def sheet(host: Host) -> Sheet:
    """A host as `host check` shows it."""
    lines = tuple(Line(each) for each in _lines(host))
    return Sheet((Section(None, lines),), headline=headline(host))


def headline(host: Host) -> str:
    """What it describes, and how many of its fields nothing says."""
    where = "in the direct map" if host.relocation is None else f"{host.relocation:#x}"
    assumed = words.count(len(host.assumed()), "assumed field") if host.facts else ""
    known = f"; {assumed or 'no field names a source'}"
    return (
        f"{host.source} is a host: {host.paging.value}, {words.size(_ram(host))} of RAM,"
        f" V {where}{known}"
    )


def _lines(host: Host) -> Iterator[str]:
    for basis, what in ((Basis.READ, "read from"), (Basis.DERIVED, "derived from")):
        for each in host.facts:
            if each.basis is basis:
                yield f"  {each.field:{FIELD}} {what} {each.source}"
    if not host.facts:
        yield "  Nothing says where the fields come from: they are as good as whoever wrote them knew."
    yield from assumptions(host)


def _ram(host: Host) -> int:
    return sum(each.size for each in host.memory.ram)


def facts(host: Host) -> HostFacts:
    """The same for programs."""
    return {
        "source": host.source,
        "paging": host.paging.value,
        "ram": _ram(host),
        "relocation": host.relocation,
        "confidential": None if host.confidential is None else host.confidential.value,
        "facts": facts_of(host),
    }


VIEW = View(name="host check", version=1, shape=HostFacts, sheet=sheet, facts=facts)
