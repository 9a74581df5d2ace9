"""The contracts that relocation code can be held to, as a list: how it is called, what it may
touch.

Rules: everything here stands in a contract; nothing is said of a participant that it does not say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypedDict

from tightrope.model import Contract, Participant, Place, Promise, Trees
from tightrope.model.sheet import Pairs, Section, Sheet
from tightrope.views.view import View

Both = tuple[Participant, Participant]
"""The same contract for 64-bit code and for 32-bit code."""
NAMES, COLUMNS = 14, 100
TREES: Mapping[Trees, str] = {
    Trees.TWO: "page_table_a with V and P; page_table_b with all that is needed",
    Trees.CHAINS: "page_table_a's two chains written over one another; page_table_b",
    Trees.ONE: "one tree with all that is needed, and V",
}
PLACES: Mapping[Place, str] = {
    Place.CONTROL_PAGE: "the control page",
    Place.PAGE_LIST: "the page list",
    Place.ARGUMENTS: "what the call hands over in memory",
}
PROMISES: Mapping[Promise, str] = {
    Promise.GLOBALS_DROPPED: "CR4.PGE is cleared before an identity address is trusted",
    Promise.STACK_IN_CONTROL_PAGE: "the stack is the end of the control page",
    Promise.COPIES_ONCE: "each page that is not in place is copied once, in the list's order, by rep movs",
    Promise.NOTHING_ELSE_MAPPED: "while tables are switched nothing but the control page is mapped",
}
"""What is not in these is shown by its own name."""


def sheet(contracts: Sequence[Both]) -> Sheet:
    """A section for each contract."""
    return Sheet(
        tuple(
            Section(
                wide.name,
                (Pairs(rows=tuple(_rows(wide, narrow)), names=NAMES, indent=2, columns=COLUMNS),),
            )
            for wide, narrow in contracts
        )
    )


def _rows(wide: Participant, narrow: Participant) -> Iterator[tuple[str, str]]:
    contract = wide.contract
    yield "called", "at its first byte, at V"
    for name, given in contract.arguments.items():
        both = narrow.contract.arguments.get(name) is given
        # Where paging is turned off there is no page_table_b.
        yield f"{name}, e{name[1:]}" if both and name[1].isalpha() else name, given
    yield "tables", TREES.get(contract.trees, contract.trees.value)
    yield "may read", _listed(contract.reads | contract.writes)
    yield "may write", _listed(contract.writes)
    for old, step in contract.old.items():
        yield "gives up", f"the old kernel's {old.value}, in step {int(step)} at the latest"
    kept = [each for each in Promise if each in contract.promises]
    for number, promise in enumerate(kept):
        yield "" if number else "promises", PROMISES.get(promise, promise.value)


def _listed(places: Iterable[Place]) -> str:
    return ", ".join(PLACES.get(each, each.value) for each in Place if each in places)


class CalledFacts(TypedDict):
    register: str
    what: str


class ContractFacts(TypedDict):
    contract: str
    called_64: list[CalledFacts]
    called_32: list[CalledFacts]
    tables: str
    reads: list[str]
    writes: list[str]
    promises: list[str]


class ContractsFacts(TypedDict):
    """Everything that `tightrope contracts --json` prints."""

    contracts: list[ContractFacts]


def facts(contracts: Sequence[Both]) -> ContractsFacts:
    """One object per contract."""
    return {
        "contracts": [
            {
                "contract": wide.name,
                "called_64": _called(wide.contract),
                "called_32": _called(narrow.contract),
                "tables": wide.contract.trees.value,
                "reads": _values(wide.contract.reads | wide.contract.writes),
                "writes": _values(wide.contract.writes),
                "promises": [each.value for each in Promise if each in wide.contract.promises],
            }
            for wide, narrow in contracts
        ]
    }


def _called(contract: Contract) -> list[CalledFacts]:
    return [{"register": at, "what": given.value} for at, given in contract.arguments.items()]


def _values(places: Iterable[Place]) -> list[str]:
    return [each.value for each in Place if each in places]


VIEW = View(name="contracts", version=1, shape=ContractsFacts, sheet=sheet, facts=facts)
