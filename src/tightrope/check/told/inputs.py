"""Rules about what was given: at the entry the kernel, its initrd or modules and its command line
lie where the new kernel looks for them, byte for byte as they came in.

Rules: memory is compared with the image, the files and the line that were given, never with a
plan's segments: whoever planned wrong would be asked for his own mistake.  What the walk spoilt on
the way is told by destinations-complete, and not once more.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tightrope.check.alike import alike, wrong
from tightrope.check.case import Case
from tightrope.check.rule import Found, finding, rule
from tightrope.check.told import core_header
from tightrope.check.told.memory import Garbled
from tightrope.check.told.reading import linux_page, told_at_entry
from tightrope.errors import MachineError, raw
from tightrope.memory import Extent
from tightrope.model import Buffer, Part, Protocol, Step, Stop

WORD = b"elfcorehdr="
RSDP = "acpi_rsdp="


@rule(
    "kernel-as-given",
    Step.COPY,
    says="At the entry the kernel's bytes are the image's, with zeros where it asks for them.",
    source="Linux Documentation/arch/x86/boot.rst, Loading The Rest of The Kernel; System V ABI, PT_LOAD",
    mend="load the image's own bytes, at the place that its entry asks for",
)
def kernel_as_given(case: Case) -> Iterator[Found]:
    """Each part of the image at its offset from the base."""
    if case.run.stop is not Stop.ENTRY:
        return
    image = case.intent.image
    for number, part in enumerate(image.parts, 1):
        place = Extent.sized(case.base + part.offset, part.size if part.zeroed else len(part.data))
        if not case.intact(place):
            continue
        try:
            bad = _differs(case, part, place)
        except MachineError as err:
            yield finding(f"the kernel cannot be where it is entered: {err}")
            return
        if len(bad):
            yield finding(
                f"part {number} of the kernel is not the image's: byte {bad[0]:#x}, at"
                f" {place.start + int(bad[0]):#x}",
                evidence={"wrong bytes": str(len(bad)), "image": image.source},
            )
            return


def _differs(case: Case, part: Part, place: Extent) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The offsets in a part of what is not the image's, but for the words that a move changes."""
    image = case.intent.image
    distance = case.base - image.pref_address
    planned = case.planned(place) if image.relocations is None or not distance else None
    if planned is not None and alike(planned, part.data):
        return np.zeros(0, np.int64)
    got: Buffer = case.run.memory.read(place)
    if image.relocations is not None and distance:
        places = image.relocations - part.offset
        places = places[(places >= 0) & (places + 4 <= place.size)][:, np.newaxis] + np.arange(4)
        back = np.frombuffer(got, np.uint8).copy()
        words = np.ascontiguousarray(back[places]).view("<u4") - np.uint32(distance & 0xFFFF_FFFF)
        back[places] = words.view(np.uint8)
        got = back.data
    return wrong(got, part.data)


@rule(
    "initrd-as-given",
    Step.COPY,
    says="The initrd, or each module, lies where the new kernel is told, byte for byte as given.",
    source="Linux arch/x86/kernel/setup.c, get_ramdisk_image; Multiboot 0.6.96, 3.3; Xen hvm/start_info.h",
    mend="point the new kernel at what was loaded, with its exact size",
)
def initrd_as_given(case: Case) -> Iterator[Found]:
    """What the new kernel finds at each address against what was given."""
    told = told_at_entry(case)
    if case.run.stop is not Stop.ENTRY or told is None:
        return
    inputs = case.intent.inputs
    given = [("the initrd", inputs.initrd)] if inputs.initrd is not None else []
    given += [(f"module {number}", each.data) for number, each in enumerate(inputs.modules, 1)]
    if len(told.modules) != len(given):
        yield finding(
            f"the new kernel is told of {len(told.modules)} of {len(given)}"
            f" {'initrd' if case.linux else 'modules'}",
        )
        return
    for (name, data), place in zip(given, told.modules, strict=True):
        if not case.intact(place):
            continue
        problem = None
        if place.size != len(data):
            problem = f"it is told to have {place.size:#x} bytes, and has {len(data):#x}"
        else:
            try:
                bad = wrong(case.run.memory.read(place), data)
            except MachineError as err:
                problem = str(err)
            else:
                if len(bad):
                    problem = f"byte {bad[0]:#x}, at {place.start + int(bad[0]):#x}, is another"
        if problem:
            yield finding(
                f"{name} is not what was given: {problem}",
                evidence={"the new kernel looks at": str(place)},
            )
            return


@rule(
    "command-line-as-given",
    Step.COPY,
    says="The command line that the new kernel reads is the one that was given.",
    source="Linux arch/x86/kernel/setup.c, get_cmd_line_ptr; a crash kernel's first word: kexec-bzimage64.c",
    mend="hand over the line as it was given, and its address",
)
def command_line_as_given(case: Case) -> Iterator[Found]:
    """The line, but for the word that leads a crash kernel to its core header."""
    told = told_at_entry(case)
    if case.run.stop is not Stop.ENTRY:
        return
    if told is None:
        yield from _unreadable(case)
        return
    line, wanted = told.line, raw(case.intent.inputs.command_line)
    if case.intent.protocol in (Protocol.MULTIBOOT, Protocol.MULTIBOOT2):
        line = line.partition(b" ")[2]  # the file's name comes first
    if line == wanted:
        return  # also one that nobody gave and that was found in the segments, with its words
    if case.intent.crash and line.startswith(WORD) and core_header.named(line) is not None:
        line = line.partition(b" ")[2]
    elif case.intent.crash and case.loaded is not None:
        line = _without_added(case, line)
    if line != wanted:
        yield finding(
            f"the new kernel reads the command line {_text(told.line)!r}, and was to read"
            f" {_text(wanted)!r}",
        )


def _unreadable(case: Case) -> Iterator[Found]:
    """A command line of Linux that nobody can read; what else cannot be read has its own rules."""
    page = linux_page(case) if case.linux else ""
    if isinstance(page, str):
        return
    try:
        page.line(case.run.memory)
    except (Garbled, MachineError) as err:
        yield finding(f"the command line at {page.command_line:#x} cannot be read: {err}")


def _without_added(case: Case, line: bytes) -> bytes:
    """The line without the words that its loader adds at its end, as far as they are right."""
    assert case.loaded is not None
    while True:
        rest, _, last = line.rpartition(b" ")
        name = (last.partition(b"=")[0] + b"=").decode("utf-8", "replace")
        wrong_one = name == RSDP and last != f"{RSDP}{case.host.rsdp or 0:#x}".encode()
        if name not in case.loaded.habits.words or wrong_one:
            return line
        line = rest


def _text(line: bytes) -> str:
    return line.decode("utf-8", "backslashreplace")
