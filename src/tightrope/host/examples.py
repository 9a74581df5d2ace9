"""Example hosts for every mode and split, derived from the commented example.toml.

Rules: the default is that file as it is.  For other modes the values that differ are replaced, line by
line, and the comments that would not be true; so there is one example to keep.  A 32-bit kernel lies where Linux
puts it: text at 16 MiB inside lowmem, lowmem as long as the split leaves room for vmalloc.
"""

from __future__ import annotations

import re
from importlib import resources

from tightrope.errors import HostError
from tightrope.host.pc import on_pc
from tightrope.memory import Extent
from tightrope.model import Paging
from tightrope.model.host import FOUR_FOUR

PAGE_OFFSETS = (0xC000_0000, 0xB000_0000, 0x8000_0000, 0x7800_0000, 0x4000_0000)
"""The memory splits that arch/x86/Kconfig offers a 32-bit kernel."""
SPLITS = (*PAGE_OFFSETS, FOUR_FOUR)
FIXMAP = 0xFFFB_7000
"""A page of the fixmap, which ends a page below 4 GiB (arch/x86/include/asm/fixmap.h)."""
VMALLOC = 128 << 20
"""What Linux keeps above lowmem by default (arch/x86/include/asm/pgtable_32_areas.h)."""
LOWMEM = 0x3800_0000
"""896 MiB: the most that a 3G/1G split gives, and enough for an example with any."""
SOURCE = "an example host"


def example(
    paging: Paging = Paging.X86_64,
    page_offset: int | None = None,
    crash: Extent | None = None,
    pc: int | None = None,
) -> str:
    """A host as a commented TOML document that `read` takes.

    `page_offset` is the memory split of a 32-bit kernel (3G/1G when None), `crash` a crash region:
    with it come the notes that the old kernel leaves for a crash kernel.  With `pc` the memory is that
    of QEMU's `pc` machine with so many MiB.
    Raises HostError for a split in a 64-bit mode, or one that leaves no lowmem.
    """
    text = resources.files("tightrope.host").joinpath("example.toml").read_text("utf-8")
    if paging in (Paging.I386, Paging.PAE):
        text = _legacy(text, paging, PAGE_OFFSETS[0] if page_offset is None else page_offset)
    elif page_offset is not None:
        raise HostError("only i386 and pae have a memory split", source=SOURCE, field="split")
    elif paging is Paging.LA57:
        text = _set(text, "paging", f'"{paging.value}"')
        text = _set(text, "la57", "true", section="cpu")
        text = _set(text, "cr4", "0x37_16f0", section="registers")
        text = _set(text, "virt", "0xff11_0000_0000_0000", section="direct_map")
        text = _say(
            text,
            ("64-bit kernel was placed", "64-bit kernel runs with 5 levels and was placed"),
            ('"x86_64" (4 levels)', '"la57" (5 levels)'),
            ("FSGSBASE OSXMMEXCPT", "FSGSBASE LA57 OSXMMEXCPT"),
        )
    if pc is not None:
        text = on_pc(text, paging, pc)
    if crash is not None:
        text = text.replace("# [crash_region]", "[crash_region]")
        text = text.replace("# start = 0x3300_0000", f"start = {crash.start:#x}")
        text = text.replace("# size = 0x1000_0000", f"size = {crash.size:#x}")
        text = _with_notes(text, crash)
    return text


def _with_notes(text: str, crash: Extent) -> str:
    """The commented crash notes as notes, in the first of two busy places that the region leaves."""
    for base in (0x210_0000, 0x6000_0000):
        if not crash.overlaps(Extent.sized(base, 0x2000)):
            start, end = text.index("# [[crash_note]]"), text.index("# The firmware's memory map")
            block = re.sub("^# ", "", text[start:end], flags=re.MULTILINE)
            for offset, old in ((0, "0x210_0000"), (0x1000, "0x210_1000")):
                block = block.replace(old, f"{base + offset:#x}")
            return text[:start] + block + text[end:]
    return text


def _legacy(text: str, paging: Paging, page_offset: int) -> str:
    """A 32-bit kernel: no long mode, text and direct map at PAGE_OFFSET + physical address."""
    lowmem = min(LOWMEM, (1 << 32) - page_offset - VMALLOC)
    if page_offset % (1 << 22) or lowmem < 256 << 20:
        raise HostError(
            f"{page_offset:#x} is not a memory split: 4 MiB aligned, with at least 256 MiB of lowmem",
            source=SOURCE,
            field="split",
        )
    pae = paging is Paging.PAE
    four_four = page_offset == FOUR_FOUR
    relocation = FIXMAP if four_four else page_offset + 0x140_1000
    for key, value, section in (
        ("paging", f'"{paging.value}"', None),
        ("relocation", f"{relocation:#x}", None),
        ("cr4", "0x6f0" if pae else "0x6d0", "registers"),
        ("efer", "0x800" if pae else "0x0", "registers"),
        ("nx", "true" if pae else "false", "cpu"),
        ("physical_bits", "36" if pae else "32", "cpu"),
        ("gbpages", "false", "cpu"),
        ("virt", f"{page_offset + 0x100_0000:#x}", "text"),
        ("phys", "0x100_0000", "text"),
        ("size", "0x100_0000", "text"),
        ("page_size", "0x20_0000" if pae else "0x40_0000", "direct_map"),
        ("virt", f"{page_offset:#x}\nsize = {lowmem:#x}", "direct_map"),
        ("start", "0x300_0000", "private"),
    ):
        text = _set(text, key, value, section=section)
    text = text.replace(
        "start = 0x100_0000\nsize = 0x180_0000", "start = 0x200_0000\nsize = 0x80_0000"
    )
    if not pae:  # a CPU with 32 address bits sees nothing above 4 GiB
        start = text.index("[[memory]]\nstart = 0x1_0000_0000")
        text = text[:start] + text[text.index("\n", text.index("kind", start)) + 1 :]
    if four_four:
        text += (
            "\n# The page of the text that has the relocation code, in the fixmap.\n[[mapping]]\n"
            f"virt = {FIXMAP:#x}\nphys = 0x140_1000\nsize = 0x1000\nglobal = true\n"
        )
    large = 2 if pae else 4
    return _say(
        text,
        (
            "is the default host: a 4 GiB PC whose 64-bit kernel was placed by KASLR.",
            f"is a PC with a 32-bit kernel whose PAGE_OFFSET is {page_offset:#x}.",
        ),
        ('"x86_64" (4 levels)', '"pae" (3 levels)' if pae else '"i386" (2 levels)'),
        (
            "# SMAP SMEP OSXSAVE PCIDE FSGSBASE OSXMMEXCPT OSFXSR PGE MCE PAE PSE",
            f"# OSXMMEXCPT OSFXSR PGE MCE {'PAE ' if pae else ''}PSE",
        ),
        ("# NXE LMA LME SCE", "# NXE" if pae else "# nothing: neither long mode nor NX"),
        ("2 MiB global pages, 2 MiB aligned", f"{large} MiB global pages, {large} MiB aligned"),
        ("# all RAM at virt", "# RAM below size, which is lowmem, at virt"),
        ("# 0x1000, 0x20_0000 or 0x4000_0000", f"# 0x1000 or {'0x20' if pae else '0x40'}_0000"),
    )


def _say(text: str, *comments: tuple[str, str]) -> str:
    """The document with comments replaced that would not be true of it, all comments in one column."""
    for old, new in comments:
        assert text.count(old) == 1, f"example.toml does not say {old}"
        text = text.replace(old, new)
    return re.sub(r"^(\w+ = \S+) +# ", lambda it: f"{it[1]:<24}# ", text, flags=re.MULTILINE)


def _set(text: str, key: str, value: str, *, section: str | None = None) -> str:
    """The document with one value replaced; its comment stays behind it."""
    start = 0 if section is None else text.index(f"\n[{section}]")
    pattern = re.compile(rf"^{key}( *= *)(\S+)", re.MULTILINE)
    found = pattern.search(text, start)
    assert found is not None, f"example.toml has no {key}"
    return text[: found.start(2)] + value + text[found.end(2) :]
