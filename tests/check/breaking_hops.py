"""What changes from hop to hop: the walk is sound, and the host knows that it was handed something else.

Rules: as in `breaking`; what the kernel was handed is made of what it hands on, with one thing changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.check.breaking import Breach, Change, Walked
from tightrope.check import entered
from tightrope.memory import Extent
from tightrope.model import Handover, Run, Step
from tightrope.model.entered import RAM, Entered


def handed(change: Callable[[Entered], Entered]) -> Change:
    """The old kernel was handed what it hands on, but for a change."""

    def breach(handover: Handover, run: Run) -> Walked:
        told = entered(handover, run)
        assert told is not None
        host = replace(handover.world.host, entered=change(told))
        return replace(handover, world=replace(handover.world, host=host)), run

    return breach


def more_ram(told: Entered) -> Entered:
    """A page in a hole was RAM."""
    return replace(told, rows=(*told.rows, (Extent(0xE000_0000, 0xE000_1000), RAM)))


def fewer_rows(told: Entered) -> Entered:
    """Two rows were one."""
    return replace(told, rows=told.rows[:1] + told.rows[2:])


HOPS = (
    Breach(
        rule="hop-keeps-memory",
        name="a page of RAM gets lost",
        change=handed(more_ram),
        step=Step.COPY,
        says="[0xe0000000, 0xe0001000) was RAM to this kernel, and is not to the next",
    ),
    Breach(
        rule="hop-keeps-memory",
        name="the map grows by a row",
        change=handed(fewer_rows),
        step=Step.COPY,
        says="the memory map grows from 8 rows to 9, by [0x9fc00, 0xa0000): behind 119 more hops it has no room",
    ),
    Breach(
        rule="hop-keeps-setup-data",
        name="a node gets lost",
        change=handed(lambda told: replace(told, setup_data=((9, 32),))),
        step=Step.COPY,
        says="setup_data has 0 of 1 nodes of type 9 left",
    ),
    Breach(
        rule="hop-keeps-fields",
        name="the RSDP is another",
        change=handed(lambda told: replace(told, rsdp=told.rsdp + 16)),
        step=Step.COPY,
        says="acpi_rsdp_addr of boot_params is another",
    ),
    Breach(
        rule="hop-keeps-fields",
        name="EFI gets lost",
        change=handed(lambda told: replace(told, efi=b"EL64" + bytes(28))),
        step=Step.COPY,
        says="efi_info of boot_params is lost",
    ),
    Breach(
        rule="hop-keeps-fields",
        name="the screen gets lost",
        change=handed(lambda told: replace(told, screen=b"\x01" + bytes(63))),
        step=Step.COPY,
        says="screen_info of boot_params is lost",
    ),
    Breach(
        rule="hop-keeps-fields",
        name="the command line grows",
        change=handed(lambda told: replace(told, command_line=told.command_line[3:])),
        step=Step.COPY,
        says="the command line grows by 3 bytes at each hop",
    ),
)
TWINS: tuple[tuple[str, Change], ...] = (
    ("the same", handed(lambda told: told)),
    ("page 0 was RAM as well", handed(lambda told: replace(
        told, rows=((Extent(0, 0x9_FC00), RAM), *told.rows[1:])
    ))),
    ("a row more than now", handed(lambda told: replace(
        told, rows=(*told.rows, (Extent(0xE000_0000, 0xE000_1000), 2))
    ))),
    ("part of a page was RAM", handed(lambda told: replace(
        told, rows=(*told.rows, (Extent(0xE000_0800, 0xE000_1000), RAM))
    ))),
    ("a longer line", handed(lambda told: replace(told, command_line=told.command_line + b" more"))),
    ("nothing but rows of the map hung there", handed(lambda told: replace(
        told, setup_data=((1, 20),)
    ))),
)  # fmt: skip
"""What no rule may touch."""
