"""Rules about a Linux kernel's zero page: every field is what the image or the host says, or empty.

Rules: the page is read by `boot_params`; here is only what each field should hold.  The addresses
of command line and initrd are any: `inputs` looks at what lies there.  What the host does not know
of is empty, which a kernel since 6.1 takes so: no screen_info, no console of the firmware's; no
efi_info, no EFI runtime; acpi_rsdp_addr 0, the RSDP is looked for in the BIOS area; e820_entries
0, no memory at all; setup_data 0, no list.  Source: Linux arch/x86/boot/compressed/acpi.c,
arch/x86/kernel/setup.c; Documentation/arch/x86/boot.rst and zero-page.rst; a wiped sentinel:
arch/x86/include/asm/bootparam_utils.h.
"""

from __future__ import annotations

from collections.abc import Iterator

from tightrope.check.case import Case
from tightrope.check.rule import Found, finding, rule
from tightrope.check.told import efi
from tightrope.check.told.boot_params import (
    BY_NAME,
    E820_EXT,
    HDRS,
    HEADER,
    MAP,
    PLACES,
    ROW,
    SIZE,
    Place,
    ZeroPage,
)
from tightrope.check.told.dump import overwritten
from tightrope.check.told.memory import Garbled
from tightrope.check.told.memory_map import map_problems
from tightrope.check.told.page import zero_page
from tightrope.check.told.reading import told_at_entry
from tightrope.errors import MachineError
from tightrope.model import Step

KEXEC = 0xD0
"""type_of_loader of kexec-tools and kexec_file_load(): 0xD, version 0 (boot.rst)."""
NO_HEADER_VERSION = 0x0206
"""What kexec-tools writes for a vmlinux, which has no setup header
(kexec/arch/i386/x86-linux-setup.c)."""
ANY = frozenset(
    {
        "ramdisk_image", "ramdisk_size", "ext_ramdisk_image", "ext_ramdisk_size",
        "cmd_line_ptr", "ext_cmd_line_ptr", "e820_entries", "e820_table", "setup_data",
    }
)  # fmt: skip
"""Fields that lead somewhere: other rules follow them."""
EFI = frozenset({"efi_info", "secure_boot"})
"""Those of `efi-told`."""


@rule(
    "boot-params-told",
    Step.COPY,
    says="Every field of boot_params is what the image's header or the host says, or empty.",
    source="Linux Documentation/arch/x86/zero-page.rst and boot.rst",
    mend="start from zeros, copy the setup header, fill in what is known: nothing else",
)
def boot_params_told(case: Case) -> Iterator[Found]:
    """The zero page, field by field; then what hangs on it."""
    page = zero_page(case)
    if page is None:
        return
    if isinstance(page, str):
        yield finding(
            f"boot_params cannot be read: {page}",
            mend="let its addresses lead to what was loaded, and end its lists",
        )
        return
    wanted = _wanted(case, page)
    for place in PLACES if page.page != wanted else ():
        got, known = _of(page.page, place), _of(wanted, place)
        if got != known and not _habit(case, place, got):
            yield finding(
                f"{place.name} of boot_params is {_shown(got)}, not {_shown(known)}",
                evidence={"at": f"{page.at + place.at:#x}", "bytes": str(place.size)},
            )
            return
    used = ROW.size * min(page.field("e820_entries"), 128)
    if any(page.page[MAP + used : MAP + 128 * ROW.size]):
        yield finding(
            f"behind the {page.field('e820_entries')} rows of e820_table stands another",
            mend="count every row in e820_entries, and leave what is behind them empty",
        )
    for at, kind, _ in page.nodes:
        if kind == efi.NODE and efi.wanted(case):
            continue
        if kind != E820_EXT and (case.loaded is None or kind not in case.loaded.habits.setup_data):
            yield finding(
                f"setup_data has a node of type {kind} at {at:#x}, and the host has nothing for it",
                mend="hand on what is a fact of the host, and no other loader's list",
            )


@rule(
    "memory-told",
    Step.COPY,
    says="The memory map in boot_params lists memory that exists and that the new kernel may use.",
    source="Linux arch/x86/kernel/e820.c; Documentation/arch/x86/boot.rst",
    mend="hand on what the firmware told the old kernel",
)
def memory_told(case: Case) -> Iterator[Found]:
    """The e820 table against the host's map."""
    page = zero_page(case)
    if page is None or isinstance(page, str) or any(overwritten(case)):
        return  # see boot-params-told, dump-survives
    told = told_at_entry(case)
    if told is None:
        return  # its command line cannot be read: see command-line-as-given
    try:
        problems = list(map_problems(case, told, case.run.memory))
    except (Garbled, MachineError) as err:
        problems = [str(err)]
    for problem in problems[:1]:
        yield finding(
            f"the memory map of boot_params is not that of this machine: {problem}",
            evidence={"rows": str(page.field("e820_entries"))},
        )


def _habit(case: Case, place: Place, got: bytes) -> bool:
    """Whether a field is what this loader leaves there."""
    if case.loaded is None or place.name not in case.loaded.habits.fields:
        return False
    values = case.loaded.habits.fields[place.name]
    return values is None or int.from_bytes(got, "little") in values


def _of(page: bytes | bytearray, place: Place) -> bytes:
    return bytes(page[place.at : place.at + place.size])


def _shown(value: bytes) -> str:
    if not any(value):
        return "empty"
    return f"{int.from_bytes(value, 'little'):#x}" if len(value) <= 8 else value.hex()


def _wanted(case: Case, page: ZeroPage) -> bytes:
    """The page as it should be; where a field may hold one thing or another, what it holds is
    right."""
    image = case.intent.image
    out = bytearray(SIZE)
    header = image.setup_header[: SIZE - HEADER]
    out[HEADER : HEADER + len(header)] = header
    known: dict[str, bytes | int] = {
        "screen_info": case.host.screen,
        "acpi_rsdp_addr": case.host.rsdp or 0,
        "type_of_loader": KEXEC,
    }
    if not image.setup_header:
        known |= {
            "header": HDRS,
            "version": NO_HEADER_VERSION,
            "initrd_addr_max": image.initrd_limit,
            "cmdline_size": image.cmdline_limit,
        }
    start = BY_NAME["code32_start"]
    if case.base < 1 << 32 and _of(page.page, start) != _of(out, start):
        known["code32_start"] = case.base
    any_of = ANY | EFI if efi.wanted(case) else ANY
    known |= {name: _of(page.page, BY_NAME[name]) for name in any_of}
    if page.ramdisk is None and case.intent.inputs.initrd is None:
        # Without a size nobody reads where: what stands there is another boot's.
        known |= {"ramdisk_image": 0, "ext_ramdisk_image": 0}
    for name, value in known.items():
        place = BY_NAME[name]
        data = value.to_bytes(place.size, "little") if isinstance(value, int) else value
        out[place.at : place.at + place.size] = data.ljust(place.size, b"\0")
    return bytes(out)
