"""Sabotages of what was loaded: the entry stub, the initrd, what the new kernel is told.

Rules: as `edits`; what is not there to be changed raises BadInput with the reason.
"""

from __future__ import annotations

from tightrope.abi.multiboot import LOADED_BY_1, LOADED_BY_2, Given
from tightrope.errors import BadInput
from tightrope.memory import PAGE_SIZE
from tightrope.model import Handover, Protocol, SegmentRole, Step
from tightrope.sabotage.edits import edit_segment
from tightrope.sabotage.sabotage import LONG_MODES, sabotage


@sabotage("interrupts-on", Step.COPY, breaks="interrupts-off")
def interrupts_on(handover: Handover) -> Handover:
    """Enter the new kernel with interrupts on."""

    def change(data: bytearray) -> None:
        # The stub clears the flags with its first popfq; sti in its place leaves interrupts on.
        at = data.find(b"\x9d")
        if at < 0:
            raise BadInput(
                "the entry stub is not the code that this sabotage knows", source="popfq"
            )
        data[at] = 0xFB

    return edit_segment(handover, SegmentRole.ENTRY_STUB, change, planned=True)


@sabotage("wrong-boot-params", Step.COPY, breaks="entry-boot-params")
def wrong_boot_params(handover: Handover) -> Handover:
    """Give the new kernel a boot_params pointer one page too high."""

    def change(data: bytearray) -> None:
        # The stub's last word is the address of boot_params.
        value = int.from_bytes(data[-8:], "little") + PAGE_SIZE
        data[-8:] = value.to_bytes(8, "little")

    return edit_segment(handover, SegmentRole.ENTRY_STUB, change, planned=True)


@sabotage("initrd-byte", Step.COPY, breaks="destinations-complete")
def initrd_byte(handover: Handover) -> Handover:
    """Flip one bit in the middle of the initrd after it was loaded."""

    def change(data: bytearray) -> None:
        data[len(data) // 2] ^= 0x40

    return edit_segment(handover, SegmentRole.INITRD, change, planned=False)


@sabotage(
    "paging-left-on", Step.COPY, breaks="known-state", modes=LONG_MODES, entry=Protocol.LINUX_32
)
def paging_left_on(handover: Handover) -> Handover:
    """From long mode, enter a 32-bit entry without turning paging off.

    A jump over all that leaves long mode, to where the stub loads the arguments.
    """
    plan = handover.intent
    if plan.entry_bits != 32 or not plan.paging.long_mode:
        raise BadInput("the entry does not leave long mode", source="--sabotage")
    # mov %eax, %cr0; jmp; ...; mov %eax, %cr4; mov %eax, %cr3 becomes jmp behind them.
    return _stub_edit(
        handover, b"\x0f\x22\xc0\xeb\0\xb9", b"\xeb\x19\x90\x90\x90\xb9", "paging_off"
    )


@sabotage("wrong-magic", Step.COPY, breaks="entry-arguments", entry=Protocol.MULTIBOOT)
def wrong_magic(handover: Handover) -> Handover:
    """Enter a Multiboot kernel with Multiboot2's word in eax."""
    if handover.intent.protocol is not Protocol.MULTIBOOT:
        raise BadInput("only a Multiboot kernel is entered with its word", source="--sabotage")
    old, new = (each.to_bytes(8, "little") for each in (LOADED_BY_1, LOADED_BY_2))
    return _stub_edit(handover, old, new, "word_eax")


@sabotage("no-memory-map", Step.COPY, breaks="entry-information", entry=Protocol.MULTIBOOT)
def no_memory_map(handover: Handover) -> Handover:
    """Tell a Multiboot kernel nothing of its memory."""

    def change(data: bytearray) -> None:
        data[0] &= ~Given.MEMORY_MAP & 0xFF

    return edit_segment(handover, SegmentRole.MULTIBOOT, change, planned=True)


def _stub_edit(handover: Handover, old: bytes, new: bytes, source: str) -> Handover:
    """The same handover with bytes of its entry stub replaced, which the plan then wants so."""

    def change(data: bytearray) -> None:
        at = data.find(old)
        if at < 0:
            raise BadInput("the entry stub is not the code that this sabotage knows", source=source)
        data[at : at + len(old)] = new

    return edit_segment(handover, SegmentRole.ENTRY_STUB, change, planned=True)
