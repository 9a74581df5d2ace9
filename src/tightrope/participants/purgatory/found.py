"""Which purgatory a segment is, told by the objects that its loader carries.

    kexec-tools (purgatory/arch/x86_64, since 2.0.0)     Linux (arch/x86/purgatory, since 3.17)

    entry64_regs     registers at the new kernel's entry, rip among them         entry64_regs
    entry32_regs     the same for a 32-bit entry
    sha256_regions   16 rows (address, bytes): what is digested                  purgatory_sha_regions
    sha256_digest    what has to come out                                        purgatory_sha256_digest
    skip_checks      1 for `kexec -i`
    jump_back_entry  the word that lay on top of the stack
    console_*, serial_*, reset_vga, legacy_pic, panic_kernel, backup_*, cmdline_end

kexec-tools' prints "sha256 digests do not match :(" where it was told a console, and both stay for
ever in a jump to itself.

Rules: names are looked for, versions are not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tightrope.memory import Extent
from tightrope.model import Buffer, Code, Contract, Kind, Participant, Place
from tightrope.participants.purgatory.relocatable import Relocatable

CONTRACT = Contract(
    # 0(%rsp) is read before the stack is its own: kexec's jump back entry (setup-x86_64.S).
    # kexec-tools' saves low memory, byte by byte (crashdump_backup_memory).
    reads=frozenset({Place.PURGATORY, Place.SEGMENTS, Place.CONTROL_PAGE, Place.LOW_MEMORY}),
    writes=frozenset({Place.PURGATORY, Place.BACKUP}),
    old={},
)
ROW = 16
"""Bytes of a row of the list of regions."""
REGIONS = 16 * ROW
DIGEST = 32
_NAMES: Mapping[str, tuple[tuple[str, int], ...]] = {
    "registers": (("entry64_regs", 136),),
    "registers32": (("entry32_regs", 36),),
    "regions": (("sha256_regions", REGIONS), ("purgatory_sha_regions", REGIONS)),
    "digest": (("sha256_digest", DIGEST), ("purgatory_sha256_digest", DIGEST)),
}
"""What a word is, and what each loader calls it, with its bytes."""
_SET = (
    ("skip_checks", 4), ("jump_back_entry", 8), ("cmdline_end", 8), ("console_vga", 1),
    ("console_serial", 1), ("serial_base", 2), ("serial_baud", 4), ("reset_vga", 1), ("legacy_pic", 1),
    ("panic_kernel", 1), ("backup_start", 8), ("backup_src_start", 8), ("backup_src_size", 8),
)  # fmt: skip
"""Other words that kexec-tools fills in, where its options say so."""


def found(where: Extent, data: Buffer, objects: Iterable[Relocatable], by: str) -> Participant:
    """The purgatory in the segment at `where`, whose bytes are `data` and then zeros."""
    held = bytes(data).ljust(where.size, b"\0")
    for each in objects:
        laid = each.laid(where.start) if each.size <= where.size else b""
        if laid and _same(held, laid, each):
            return _known(where, held, each, by)
    code = Code(name="purgatory", data=held, symbols={})
    return Participant(
        name=f"a purgatory of {by}",
        kind=Kind.PURGATORY,
        code=code,
        contract=CONTRACT,
        own=(where,),
    )


def _known(where: Extent, held: bytes, each: Relocatable, by: str) -> Participant:
    symbols = dict(each.symbols)
    for word, names in _NAMES.items():
        for name, _ in names:
            if name in each.symbols:
                symbols[word] = each.symbols[name]
    parts = (*each.writable, *written_all_the_same(each))
    own = tuple(Extent.sized(where.start + part.start, part.size) for part in parts)
    return Participant(
        name=f"{by}'s purgatory",
        kind=Kind.PURGATORY,
        code=Code(name="purgatory", data=held, symbols=symbols),
        contract=CONTRACT,
        own=own,
    )


def written_all_the_same(each: Relocatable) -> Sequence[Extent]:
    """What is no variable and is written: a CPU marks the descriptors that it loads, and entry64
    has a stack of two words beside them."""
    out = []
    for first, last in (("gdt", "gdt_end"), ("stack", "stack_init")):
        start: int | None = None
        for name, at in each.labels:
            if name == first:
                start = at
            elif name == last and start is not None:
                out.append(Extent(start, at))
                start = None
    return [part for part in out if part.size]


def filled_in(each: Relocatable) -> Sequence[Extent]:
    """The words of an object that its loader fills in, as offsets."""
    names = [*(row for rows in _NAMES.values() for row in rows), *_SET]
    return [Extent.sized(each.symbols[name], size) for name, size in names if name in each.symbols]


def _same(held: bytes, laid: bytes, each: Relocatable) -> bool:
    """Whether all but the words that a loader fills in is the object's."""
    one, other = bytearray(held[: len(laid)]), bytearray(laid)
    for word in filled_in(each):
        one[word.start : word.end] = other[word.start : word.end] = bytes(word.size)
    return one == other and not any(held[len(laid) :])
