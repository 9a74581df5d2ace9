"""The running machine as a host file: what could be read, what could not and why, what is assumed.

    /proc, /sys  --read_tree-->  path -> text or error  --capture-->  TOML, with each field's origin,
                                                                       and notes

Rules: `capture` is pure: the same texts give the same file.  A field that no file tells is assumed,
says so in its comment and in [facts], and is named in the notes.  What comes out has been read
back: it is a host, or it is a HostError.
"""

from __future__ import annotations

from dataclasses import dataclass

from tightrope.abi.kexec import handover
from tightrope.errors import HostError
from tightrope.host.capture import cpuinfo, firmware, places
from tightrope.host.capture.origins import AS_ROOT, Origins
from tightrope.host.capture.places import GIB, LARGE
from tightrope.host.capture.sources import Sources
from tightrope.host.capture.tree import BOOT_PARAMS, LOCKDOWN, SPECTRE_V2, Files
from tightrope.host.capture.under_xen import under_xen
from tightrope.host.document import (
    CpuTable,
    DirectMapTable,
    Document,
    MemoryTable,
    RegistersTable,
    TextTable,
)
from tightrope.host.profile import AS_ANY_GUEST, SHARING, read, written
from tightrope.host.schema import Comments
from tightrope.memory import PAGE_SIZE, Extent, RegionKind, align_down, subtract, union
from tightrope.model import CpuVendor, Paging
from tightrope.model.modes import MODES

SOURCE = "this machine"
TITLE = "This machine, read without changing it.  Each field says where it comes from."
CALLED_IN_PLACE_SINCE = (6, 14)
"""Linux from here on copies relocate_kernel, which is data, and calls the copy by its direct
map."""

CANONICAL_57, CANONICAL_48 = 0xFF00_0000_0000_0000, 0xFFFF_8000_0000_0000
"""Where the kernel's half begins with 5 levels and with 4: below the second lies only the direct
map of 5 (Documentation/arch/x86/x86_64/mm.rst)."""
_CPU_FLAGS = {"nx": "nx", "pse": "pse", "pge": "pge", "gbpages": "pdpe1gb", "la57": "la57"}
"""Field of [cpu] -> flag of /proc/cpuinfo; Linux hides la57 unless it runs with 5 levels."""
_LIKELY_FLAGS = frozenset({"nx", "pse", "pge"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Captured:
    """A host file, and one sentence for each thing that could not be read or had to be assumed."""

    toml: str
    notes: tuple[str, ...]


def capture(files: Files, source: str = SOURCE) -> Captured:
    """A host file from these texts; `source` names the machine.

    Raises HostError where not even an assumption would help.
    """
    try:
        return _captured(files, source)
    except HostError as err:
        if err.source != SOURCE:
            raise
        raise HostError(
            err.problem, source=source, field=err.field, offset=err.offset, limit=err.limit
        ) from err


def _captured(files: Files, source: str) -> Captured:
    origins = Origins()
    said = Sources(files, origins)
    for note in under_xen(said.word):
        origins.note(note)
    state = _state(said, origins)
    document = _document(said, origins)
    for node in firmware.setup_data(said, efi=document.efi is not None):
        origins.note(f"setup_data of the old kernel's loader is not handed on: {node}")
    title = [TITLE, *state, *(f"note: {note}" for note in origins.notes)]
    above = {"memory": f"The memory map: {_said(document, 'memory')}"}
    text = written(document, title, said=Comments(above=above))
    read(text, source)
    return Captured(toml=text, notes=tuple(origins.notes))


def _said(document: Document, field: str) -> str:
    fact = document.facts[field]
    return fact.read or fact.derived or f"assumed: {fact.assumed}"


def _document(said: Sources, origins: Origins) -> Document:
    """Every field, in the order in which one needs the other."""
    regions = places.memory_map(said, origins)
    firmware_ram = union(each.extent for each in regions if each.kind is RegionKind.RAM)
    apart = places.unused(said, firmware_ram)
    ram = subtract(firmware_ram, apart)
    paging = _paging(said, origins)
    text = places.text(said, ram, origins)
    own = Extent.sized(text.phys, text.size)
    relocation = _relocation(said, text, origins)
    cpu = _cpu(said, regions[-1].extent.end, paging, origins)
    registers = _registers(said, paging, origins)
    direct_map = _direct_map(said, paging, origins)
    region, also = places.crash_memory(said, ram, own, origins)
    crash = [Extent.sized(each.start, each.size) for each in also]
    crash += [region.extent] if region else []
    notes = places.crash_notes(said, ram, [own, *crash], origins)
    noted = [Extent.sized(each.start, each.size).page_aligned() for each in notes]
    taken = [own, *crash, *noted]
    private = places.private(ram, taken, own.end, direct_map.page_size, origins)
    taken.append(private.extent)
    kind = cpuinfo.confidential(said.flags or frozenset())
    if kind is not None:
        origins.note(f"this is a confidential guest ({kind.value})")
        origins.assumed("confidential", AS_ANY_GUEST.format(kind=kind.value), SHARING)
    return Document(
        paging=paging,
        relocation=relocation,
        rsdp=firmware.rsdp(said, origins),
        confidential=kind,
        screen_info=_screen(said, origins),
        cpu=cpu,
        registers=registers,
        text=text,
        direct_map=direct_map,
        private=private,
        crash_region=region,
        crash_note=notes,
        crash_memory=also,
        memory=tuple(
            MemoryTable(start=each.extent.start, size=each.extent.size, kind=each.kind)
            for each in regions
        ),
        busy=places.busy(said, ram, taken, apart, origins),
        efi=firmware.efi_table(said, 1 << cpu.physical_bits, origins),
        firmware=firmware.firmware(said, firmware_ram, 1 << cpu.physical_bits, origins),
        facts=origins.facts,
    )


def _state(said: Sources, origins: Origins) -> list[str]:
    """What has no field: whether this kernel would do a kexec at all."""
    if not said.kexec("loaded"):
        origins.note("this kernel offers no kexec: /sys/kernel/kexec_loaded cannot be read")
    lines = []
    for word, name in (
        (said.kexec("loaded"), "a kernel is loaded"),
        (said.kexec("crash_loaded"), "a crash kernel is loaded"),
        (said.word("/proc/sys/kernel/kexec_load_disabled"), "kexec_load is disabled"),
    ):
        lines.append(f"{name}: { {'0': 'no', '1': 'yes'}.get(word, 'not told') }")
    lockdown = said.word(LOCKDOWN)
    shown = lockdown if lockdown.isprintable() else repr(lockdown)
    lines.append(f"lockdown: {shown or 'not told'}")
    if "[integrity]" in lockdown or "[confidentiality]" in lockdown:
        origins.note("the kernel is locked down: it takes signed kernels by kexec_file_load")
    if said.flags and "hypervisor" in said.flags:
        lines.append("a virtual machine: /proc/cpuinfo (flag hypervisor)")
    if handover(said.word("/proc/cmdline").split()):
        what = "nothing is kept for the next kernel, though the command line turns KHO on"
        origins.assumed("preserved", what, "what KHO keeps, written as [[preserved]]")
    return lines


def _paging(said: Sources, origins: Origins) -> Paging:
    direct = said.kcore.direct_map if said.kcore else None
    if direct is not None and direct >= CANONICAL_57:
        # The two direct maps, wherever KASLR moves them, share no address (mm/kaslr.c).
        origins.derived("paging", f"/proc/kcore (the direct map at {direct:#x})")
        return Paging.LA57 if direct < CANONICAL_48 else Paging.X86_64
    if said.flags is None:
        origins.assumed("paging", "4 levels of tables", "/proc/cpuinfo")
        return Paging.X86_64
    if "la57" in said.flags and "no5lvl" not in said.word("/proc/cmdline").split():
        origins.derived("paging", "/proc/cpuinfo (flag la57, which is shown where it is used)")
        return Paging.LA57
    origins.derived("paging", "/proc/cpuinfo (no flag la57)")
    return Paging.X86_64


def _screen(said: Sources, origins: Origins) -> str | None:
    if said.params is None or not said.params.screen:
        return None
    origins.read("screen_info", f"{BOOT_PARAMS} (screen_info)")
    return said.params.screen.hex()


def _relocation(said: Sources, text: TextTable, origins: Origins) -> int | None:
    """V, None where the kernel calls the control page in its direct map."""
    at = said.symbols.get("relocate_kernel") or said.symbols.get("__relocate_kernel_start") or 0
    why = _why_data(said, text, at)
    if why:
        origins.derived("relocation", f"{why}: the control page is called itself (Linux 6.14 on)")
        return None
    mapped = Extent.sized(text.virt, text.size)
    if at in mapped:
        origins.read("relocation", "/proc/kallsyms (relocate_kernel)")
    else:
        at = mapped.start + mapped.size // 2
        what = "the relocation code in the middle of the kernel's text"
        origins.assumed("relocation", what, AS_ROOT)
    return align_down(at, PAGE_SIZE)


def _why_data(said: Sources, text: TextTable, at: int) -> str:
    """What shows that relocate_kernel is data, "" where nothing does."""
    if "kexec_va_control_page" in said.letters:
        return "/proc/kallsyms (kexec_va_control_page)"
    if said.letters.get("relocate_kernel", "T") in "dDbBrR":
        return "/proc/kallsyms (relocate_kernel is data)"
    # A release may be older than what a distribution has put into it, and symbols are not.
    if said.release is not None:
        new = said.release >= CALLED_IN_PLACE_SINCE
        return f"Linux {said.release[0]}.{said.release[1]}" if new else ""
    phys = at - text.virt + text.phys
    if any(phys in each.extent for each in said.iomem if each.name == "Kernel data"):
        return "/proc/iomem (relocate_kernel lies in Kernel data)"
    return ""


def _cpu(said: Sources, memory_end: int, paging: Paging, origins: Origins) -> CpuTable:
    bits = cpuinfo.physical_bits(said.cpuinfo)
    if bits is None:
        bits = max(46, (memory_end - 1).bit_length())
        what = f"{bits} bits of physical address"
        origins.assumed("cpu.physical_bits", what, "/proc/cpuinfo")
    else:
        origins.read("cpu.physical_bits", "/proc/cpuinfo (address sizes)")
    has = {key: flag in (said.flags or _LIKELY_FLAGS) for key, flag in _CPU_FLAGS.items()}
    has["la57"] |= paging is Paging.LA57
    for key, flag in _CPU_FLAGS.items():
        if said.flags is None:
            what = f"the CPU {'has' if has[key] else 'lacks'} {key}"
            origins.assumed(f"cpu.{key}", what, "/proc/cpuinfo")
        else:
            origins.read(f"cpu.{key}", f"/proc/cpuinfo (flag {flag})")
    vendor = cpuinfo.vendor(said.cpuinfo)
    if vendor is not None:
        origins.read("cpu.vendor", "/proc/cpuinfo (vendor_id)")
    return CpuTable(physical_bits=bits, vendor=vendor, **has)


def _registers(said: Sources, paging: Paging, origins: Origins) -> RegistersTable:
    flags = said.flags
    if flags is None:
        what = "cr0, cr4 and efer as Linux sets them on a plain CPU"
        origins.assumed("registers", what, "/proc/cpuinfo")
        flags = _LIKELY_FLAGS
    else:
        origins.derived("registers", "/proc/cpuinfo: cr0, cr4 and efer as Linux sets them with it")
    flags = flags | {"la57"} if paging is Paging.LA57 else flags - {"la57"}
    values = cpuinfo.control_registers(
        flags,
        amd=cpuinfo.vendor(said.cpuinfo) is CpuVendor.AMD,
        release=said.release,
        spectre_v2=said.word(SPECTRE_V2),
    )
    return RegistersTable(**values)


def _direct_map(said: Sources, paging: Paging, origins: Origins) -> DirectMapTable:
    base = said.kcore.direct_map if said.kcore else None
    top = MODES[paging].format.virtual_bits - 1
    if base is not None and base >> top == (1 << 64 - top) - 1 and base % PAGE_SIZE == 0:
        origins.read("direct_map.virt", "/proc/kcore")
    else:
        base = MODES[paging].direct_map
        what = f"the direct map at {base:#x}, where it is without KASLR"
        origins.assumed("direct_map.virt", what, f"/proc/kcore: {AS_ROOT}")
    gbpages = said.flags is not None and "pdpe1gb" in said.flags
    sizes = [(GIB, "DirectMap1G")] if gbpages else []
    sizes += [(LARGE, "DirectMap2M"), (PAGE_SIZE, "DirectMap4k")]
    used = [(s, key) for s, key in sizes if said.meminfo.get(key) and base % s == 0]
    if used:
        [(size, key), *_] = used
        origins.read("direct_map.page_size", f"/proc/meminfo ({key})")
    else:
        size = PAGE_SIZE if base % LARGE else LARGE
        what = f"a direct map in pages of {size:#x} bytes"
        origins.assumed("direct_map.page_size", what, "/proc/meminfo")
    return DirectMapTable(virt=base, page_size=size)
