"""The shape of an inspected image's facts.

Rules: as in the other views; the keys are the same for every kind of image.
"""

from __future__ import annotations

from typing import TypedDict


class LoadFacts(TypedDict):
    relocatable: bool
    pref_address: int
    init_size: int
    alignment: int
    min_alignment: int
    above_4g: bool


class PartFacts(TypedDict):
    offset: int
    size: int
    data_size: int


class EntryFacts(TypedDict):
    name: str
    offset: int
    bits: int
    protocol: str


class PayloadFacts(TypedDict):
    offset: int
    size: int
    compression: str
    unpacked_size: int | None
    elf_bits: int | None
    error: str | None


class MovableFacts(TypedDict):
    """Where a loader may put a kernel: [start, end), at multiples of `alignment`."""

    start: int
    end: int
    alignment: int


class InspectionFacts(TypedDict):
    """Everything that `tightrope inspect --json` prints."""

    source: str
    format: str
    protocol: str | None
    version: str | None
    file_size: int
    setup_size: int | None
    kernel_size: int | None
    signature_size: int | None
    loaded_size: int
    load: LoadFacts
    parts: list[PartFacts]
    movable: MovableFacts | None
    """What a Multiboot2 header says of moving the kernel."""
    remarks: list[str]
    """What a reader should know of the file that is no reason to refuse it."""
    initrd_limit: int
    cmdline_limit: int
    entries: list[EntryFacts]
    initrd_size: int | None
    command_line: str | None
    loadflags: list[str]
    xloadflags: list[str]
    kexec_file_load_refusal: str | None
    setup_header: dict[str, int] | None
    payload: PayloadFacts | None
