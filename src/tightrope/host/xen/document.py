"""The [xen] table of a host file as it is declared: what makes the old kernel a hypervisor.

    [xen]                version, virt_start, fixmap
    [xen.dom0]           bits, its kernel, its tables, and either `pages` and `seed` or [[xen.dom0.p2m]]
    [[xen.dom0.hole]]    pseudo-physical memory that is not there
    [[xen.dom0.busy]]    pseudo-physical memory that it cannot give away

Rules: as `host.document`; nothing here is made, so that a limit is said before anything is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tightrope.host.schema import At, Number, Says, Text
from tightrope.memory import PAGE_SIZE, Extent

MOST_PAGES = 1 << 22
"""16 GiB of dom0, whose p2m is a table of 32 MiB here."""
LINEAR = Number(high=(1 << 64) - 1, multiple=PAGE_SIZE)
PAGES = Number(multiple=PAGE_SIZE)
SOME_PAGES = Number(low=PAGE_SIZE, multiple=PAGE_SIZE)


@dataclass(frozen=True, kw_only=True, slots=True)
class PseudoTable:
    """Whole pages of pseudo-physical memory."""

    start: Annotated[int, PAGES]
    size: Annotated[int, SOME_PAGES]

    @property
    def extent(self) -> Extent:
        return Extent.sized(self.start, self.size)


@dataclass(frozen=True, kw_only=True, slots=True)
class PseudoNamedTable:
    """The same with the reason why it is listed."""

    start: Annotated[int, PAGES]
    size: Annotated[int, SOME_PAGES]
    what: Annotated[str, Text()]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunTable:
    """[[xen.dom0.p2m]]: frames that follow one another on both sides."""

    pseudo: Annotated[int, PAGES]
    machine: Annotated[int, PAGES]
    size: Annotated[int, SOME_PAGES]

    def verify(self, at: At) -> None:
        if self.pseudo + self.size > MOST_PAGES * PAGE_SIZE:
            (at / "pseudo").refuse(
                f"{self.pseudo:#x} + {self.size:#x} is more than a dom0 has", MOST_PAGES * PAGE_SIZE
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Dom0Table:
    """[xen.dom0]"""

    bits: Annotated[int, Number(decimal=True)]
    text: Annotated[int, LINEAR]
    text_start: Annotated[int, PAGES]
    text_size: Annotated[int, SOME_PAGES]
    relocation: Annotated[int, LINEAR]
    pages: Annotated[
        int | None,
        Number(low=1, high=MOST_PAGES),
        Says("of memory, scattered over the machine by the seed: no two neighbours adjacent"),
    ] = None
    seed: Annotated[int | None, Number(high=(1 << 32) - 1, decimal=True)] = None
    p2m: tuple[RunTable, ...] | None = None
    tables: Annotated[PseudoTable, Says("pseudo-physical memory for its page tables")]
    hole: Annotated[tuple[PseudoTable, ...], Says("pseudo-physical memory that is not there")] = ()
    busy: Annotated[
        tuple[PseudoNamedTable, ...], Says("pseudo-physical memory that it cannot give away")
    ] = ()

    def verify(self, at: At) -> None:
        if self.bits not in (32, 64):
            (at / "bits").refuse(f"{self.bits} is neither 32 nor 64")
        if self.p2m is None:
            for key in ("pages", "seed"):
                if getattr(self, key) is None:
                    (at / key).refuse("missing")
        else:
            for key, value in (("pages", self.pages), ("seed", self.seed), ("hole", self.hole)):
                if value:
                    (at / key).refuse("unknown field")


@dataclass(frozen=True, kw_only=True, slots=True)
class XenTable:
    """[xen]"""

    version: Annotated[str, Text(r"\d{1,3}\.\d{1,3}", "MAJOR.MINOR")]
    virt_start: Annotated[int, LINEAR, Says("from here on linear addresses are the hypervisor's")]
    fixmap: Annotated[
        int,
        LINEAR,
        Says("of the first page of interface v1's list; each further one is a page lower"),
    ]
    dom0: Annotated[
        Dom0Table,
        Says("the guest that asks for the jump; what it calls physical is pseudo-physical"),
    ]
