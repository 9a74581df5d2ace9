"""Somebody else's segments for a rehearsal: recorded before, or asked of a loader now.

    a segments file                        -> Loaded
    kexec-tools, run under the recorder    -> Loaded
    kexec_file_load, as Linux would place  -> Loaded

    loaded = segments.recorded(recording)
    verdict = rehearse(new, old, segments.request(loaded, Request()))

Rules: a deed; what a loader is like is a value of `participants.purgatory` and of `HABITS`.
"""

from __future__ import annotations

from dataclasses import replace

from tightrope.errors import BadInput, ImageError
from tightrope.model import Habits, Loaded, Loader
from tightrope.model.recording import Recording, SegmentsCall
from tightrope.participants import purgatory
from tightrope.plan import Request

RNG_SEED, EFI, E820_EXT = 9, 4, 1
"""SETUP_RNG_SEED, SETUP_EFI, SETUP_E820_EXT (Linux asm/setup_data.h)."""
KEXEC_TOOLS = Habits(
    fields={
        "screen_info": None, "alt_mem_k": None, "acpi_rsdp_addr": None, "efi_info": None,
        "hd0_info": None, "hd1_info": None, "eddbuf_entries": None, "edd_mbr_sig_buf_entries": None,
        "edd_mbr_sig_buffer": None, "eddbuf": None, "apm_bios_info": None, "ist_info": None,
        "sys_desc_table": None, "edid_info": None, "secure_boot": None,
        "root_flags": frozenset({0xFFFF}), "root_dev": frozenset({0x300}),
        "boot_flag": frozenset({0x55}), "loadflags": frozenset({0}),
        "hardware_subarch": None, "hardware_subarch_data": None,
    },
    setup_data=frozenset({RNG_SEED, EFI, E820_EXT}),
    words=frozenset({"elfcorehdr=", "acpi_rsdp="}),
    first_ram=0x400,
)  # fmt: skip
"""docs/kexec-tools.md has the table; setup_linux_system_parameters() in kexec/arch/i386."""


def recorded(recording: Recording) -> Loaded:
    """The segments that a recording has.  Raises BadInput for a kexec_file_load, which has none."""
    call = recording.call
    if not isinstance(call, SegmentsCall):
        raise BadInput(
            "is a kexec_file_load: Linux would choose the places, see --loader file-load",
            source=recording.source,
        )
    objects = []
    for number, data in enumerate(recording.programs):
        try:
            objects.append(purgatory.read(data, f"{recording.source}: objects[{number}]"))
        except ImageError:
            continue  # an object that is no purgatory
    entered = next((each for each in call.segments if call.entry in each.destination), None)
    program = None
    if entered is not None:
        program = purgatory.found(entered.destination, entered.data, objects, recording.loader)
    return Loaded(
        loader=Loader.KEXEC_TOOLS,
        by=recording.loader,
        source=recording.source,
        segments=call.segments,
        entry=call.entry,
        crash=recording.crash,
        narrow=recording.machine != "x86_64",
        purgatory=program,
        habits=KEXEC_TOOLS,
    )


def request(loaded: Loaded, request: Request) -> Request:
    """The request with these segments."""
    return replace(request, loaded=loaded, crash=loaded.crash)
