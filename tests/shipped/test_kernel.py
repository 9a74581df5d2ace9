"""What the shipped kernel says, on a bare CPU that maps what it may touch and nothing else.

Rules: the CPU is Unicorn with its own MMU, driven from here; nothing of tightrope's rooms takes part.
A page that is not in the scene is not mapped, so reading it is a fault and the test fails.
"""

from __future__ import annotations

import importlib
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope import shipped

# Unicorn carries py.typed but no annotations: here it is plainly untyped.
unicorn: Any = importlib.import_module("unicorn")
const: Any = importlib.import_module("unicorn.x86_const")

PAGE = 4096
INIT_SIZE = 0x10000
IMAGE = shipped.read()
KERNEL = IMAGE[0x400:]
STANDS = "tightrope: the new kernel stands"

LOAD, BOOT_PARAMS, COMMAND_LINE, INITRD = 0x1000000, 0x90000, 0x91000, 0x4000000
GDT, FAR_JUMP, TABLES = 0x8000, 0x7000, 0x8000000
DATA, CODE_64, CODE_32 = 0x00CF92000000FFFF, 0x00AF9A000000FFFF, 0x00CF9A000000FFFF
RAM, RESERVED = 1, 2


@dataclass
class Scene:
    """Everything a new kernel is handed; tests start from a right one and break it."""

    load: int = LOAD
    kernel: bytearray = field(default_factory=lambda: bytearray(KERNEL.ljust(INIT_SIZE, b"\0")))
    boot_params: bytearray = field(default_factory=lambda: bytearray(PAGE))
    command_line: bytes = b"console=ttyS0\0"
    command_line_at: int = COMMAND_LINE
    initrd: bytes = b"an initrd"
    initrd_at: int = INITRD
    e820: list[tuple[int, int, int]] = field(
        default_factory=lambda: [
            (0, 0x9F000, RAM),
            (0xF0000, 0x10000, RESERVED),
            (0x100000, 0x7F00000, RAM),
            (0x100000000, 0x40000000, RAM),
        ]
    )
    cr0: int = 0x80000011
    cr4: int = 0x20
    efer: int = 0x500
    rflags: int = 0x2
    segments: dict[str, int] = field(
        default_factory=lambda: {"CS": 0x10, "DS": 0x18, "ES": 0x18, "SS": 0x18}
    )
    code_descriptor: int = CODE_64
    after: Callable[[Scene], None] = lambda scene: None
    """Breaks boot_params once it is filled in."""

    def put(self, offset: int, layout: str, value: int) -> None:
        """Write one field of boot_params."""
        struct.pack_into(layout, self.boot_params, offset, value)

    def fill_boot_params(self) -> None:
        """What a loader does (zero-page.rst, boot.rst)."""
        self.boot_params[0x1F1:0x26C] = IMAGE[0x1F1:0x26C]
        self.put(0x210, "<B", 0xFF)
        for low, high, value in (
            (0x218, 0x0C0, self.initrd_at),
            (0x21C, 0x0C4, len(self.initrd)),
            (0x228, 0x0C8, self.command_line_at),
        ):
            self.put(low, "<I", value & 0xFFFFFFFF)
            self.put(high, "<I", value >> 32)
        self.put(0x1E8, "<B", len(self.e820))
        for number, entry in enumerate(self.e820[:128]):
            struct.pack_into("<QQI", self.boot_params, 0x2D0 + 20 * number, *entry)
        self.after(self)


def identity_tables(pages: set[int], levels: int) -> tuple[int, dict[int, bytearray]]:
    """A root and its tables that map each page to itself, writable, and no other page."""
    tables = {TABLES: bytearray(PAGE)}
    for page in sorted(pages):
        at = TABLES
        for level in range(levels - 1, -1, -1):
            slot = 8 * (page >> (12 + 9 * level) & 511)
            (entry,) = struct.unpack_from("<Q", tables[at], slot)
            if not entry:
                below = page if level == 0 else TABLES + PAGE * len(tables)
                entry = below | 3
                struct.pack_into("<Q", tables[at], slot, entry)
                if level:
                    tables[below] = bytearray(PAGE)
            at = entry & ~0xFFF
    return TABLES, tables


def said(scene: Scene, *, by_far_jump: bool = False) -> list[str]:
    """The lines on the serial port, up to the halt.  Raises AssertionError at any fault."""
    return lines_of(console_of(scene, by_far_jump=by_far_jump))


def lines_of(console: bytes) -> list[str]:
    assert console.endswith(b"\r\n")
    return console.decode("ascii").removesuffix("\r\n").split("\r\n")


def console_of(scene: Scene, *, by_far_jump: bool = False) -> bytes:
    """The bytes on the serial port, from the 64-bit entry up to the halt."""
    scene.fill_boot_params()
    contents = {
        scene.load: bytes(scene.kernel),
        BOOT_PARAMS: bytes(scene.boot_params),
        scene.initrd_at: scene.initrd,
        scene.command_line_at: scene.command_line,
    }
    pages = {
        page
        for start, data in contents.items()
        for page in range(start & -PAGE, start + len(data), PAGE)
    }
    jump = {FAR_JUMP, GDT} if by_far_jump else set()
    # mov $0x18, %ecx; mov %ecx, %ss (Unicorn takes SS.B from a load only); ljmp *0(%rip); 16:32
    far_jump = b"\xb9\x18\0\0\0\x8e\xd1\xff\x2d\0\0\0\0"
    far_jump += struct.pack("<IH", scene.load + 0x200 & 0xFFFFFFFF, 0x10)
    root, tables = identity_tables(pages | jump, 5 if scene.cr4 & 0x1000 else 4)
    descriptors = [0, 0, scene.code_descriptor, DATA, CODE_64, DATA]
    contents |= {GDT: struct.pack("<6Q", *descriptors), FAR_JUMP: far_jump}

    engine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    engine.ctl_set_cpu_model(const.UC_CPU_X86_ICELAKE_SERVER)
    for page in pages | {GDT, FAR_JUMP} | set(tables):
        engine.mem_map(page, PAGE)
    for start, data in [*contents.items(), *tables.items()]:
        engine.mem_write(start, bytes(data))
    engine.reg_write(const.UC_X86_REG_GDTR, (0, GDT, 8 * len(descriptors) - 1, 0))
    for name, selector in scene.segments.items():
        engine.reg_write(getattr(const, f"UC_X86_REG_{name}"), selector)
    engine.reg_write(const.UC_X86_REG_MSR, (0xC0000080, scene.efer))
    for name, value in (
        ("CR4", scene.cr4),
        ("CR3", root),
        ("CR0", scene.cr0),
        ("EFLAGS", scene.rflags),
        ("RSI", BOOT_PARAMS),
        ("RSP", 0xDEAD0000),  # the protocol promises no stack
    ):
        engine.reg_write(getattr(const, f"UC_X86_REG_{name}"), value)
    return serial(engine, FAR_JUMP if by_far_jump else scene.load + 0x200)


def serial(engine: Any, start: int) -> bytes:
    """Runs until the halt.  Raises AssertionError when the CPU takes an exception on the way."""
    console = bytearray()
    exceptions: list[str] = []

    def read_port(_: Any, port: int, *rest: object) -> int:
        return 0x60 if port == 0x3FD else 0

    def write_port(_: Any, port: int, size: int, value: int, *rest: object) -> None:
        assert (port, size) == (0x3F8, 1)
        console.append(value)

    def exception(_: Any, vector: int, *rest: object) -> None:
        rip, cr2 = (engine.reg_read(r) for r in (const.UC_X86_REG_RIP, const.UC_X86_REG_CR2))
        exceptions.append(f"vector {vector} at {rip:#x}, cr2 {cr2:#x}")
        engine.emu_stop()

    engine.hook_add(unicorn.UC_HOOK_INSN, read_port, None, 1, 0, const.UC_X86_INS_IN)
    engine.hook_add(unicorn.UC_HOOK_INSN, write_port, None, 1, 0, const.UC_X86_INS_OUT)
    engine.hook_add(unicorn.UC_HOOK_INTR, exception)
    engine.emu_start(start, 0, timeout=20_000_000)  # microseconds; a run takes some thousands
    assert not exceptions
    return bytes(console)


def bad_lines(lines: list[str]) -> list[str]:
    """What is wrong, without the prefix; checks that every other line has the agreed form."""
    assert lines[0].startswith("tightrope: new kernel entered at 0x")
    assert all(line.startswith(("tightrope: ok   ", "tightrope: BAD  ")) for line in lines[1:-1])
    return [line[16:] for line in lines if line.startswith("tightrope: BAD  ")]


def test_a_right_handover_stands_and_every_value_is_said() -> None:
    scene = Scene(initrd=b"an initrd")
    scene.command_line = f"console=ttyS0 {shipped.initrd_argument(scene.initrd)} ro\0".encode()
    total = f"{zlib.adler32(scene.initrd):08x}"
    assert said(scene) == [
        "tightrope: new kernel entered at 0x1000200",
        "tightrope: ok   cr0: 0x80000011",
        "tightrope: ok   cr4: 0x20",
        "tightrope: ok   efer: 0x500",
        "tightrope: ok   cs: 0x10",
        "tightrope: ok   ds: 0x18",
        "tightrope: ok   es: 0x18",
        "tightrope: ok   ss: 0x18",
        "tightrope: ok   interrupt flag: 0x0",
        "tightrope: ok   direction flag: 0x0",
        "tightrope: ok   load address: 0x1000000",
        f"tightrope: ok   image adler32: {zlib.adler32(KERNEL[:-4]):08x}",
        "tightrope: ok   zeros until: 0x1010000",
        "tightrope: ok   boot_params at: 0x90000",
        "tightrope: ok   boot flag: 0xaa55",
        "tightrope: ok   type of loader: 0xff",
        "tightrope: ok   setup header, protocol: 0x20f",
        f"tightrope: ok   command line: console=ttyS0 tightrope.initrd={total} ro",
        "tightrope: ok   memory map entries: 4",
        "tightrope: ok   kernel place: [0x1000000, 0x1010000)",
        "tightrope: ok   initrd place: [0x4000000, 0x4000009)",
        f"tightrope: ok   initrd adler32: {total}, asked for {total}",
        STANDS,
    ]


def set_field(offset: int, layout: str, value: int) -> Scene:
    return Scene(after=lambda scene: scene.put(offset, layout, value))


def flipped(offset: int) -> Scene:
    scene = Scene()
    scene.kernel[offset] ^= 1
    return scene


def map_of(*entries: tuple[int, int, int]) -> Scene:
    return Scene(e820=list(entries))


def wrap_initrd(scene: Scene) -> None:
    """A size of -0x1000000."""
    scene.put(0x21C, "<I", 0xFF000000)
    scene.put(0x0C4, "<I", 0xFFFFFFFF)


SMALL_MAP = [(0x100000, 0x7F00000, RAM)]

BROKEN = {
    "cr0.wp set": (Scene(cr0=0x80010011), "cr0: 0x80010011, wants"),
    "cr0.am set": (Scene(cr0=0x80040011), "cr0: 0x80040011, wants"),
    "cr0.ts set": (Scene(cr0=0x80000019), "cr0: 0x80000019, wants"),
    "cr0.em set": (Scene(cr0=0x80000015), "cr0: 0x80000015, wants"),
    "cr4.pge set": (Scene(cr4=0xA0), "cr4: 0xa0, wants"),
    "efer.lme clear": (Scene(efer=0x400), "efer: 0x400, wants"),
    "not at the start of a page": (Scene(load=LOAD + 16), "load address: 0x1000010, wants"),
    "cs is another code selector": (
        Scene(segments={"CS": 0x20, "DS": 0x18, "ES": 0x18, "SS": 0x18}),
        "cs: 0x20, wants 0x10",
    ),
    "ds is another data selector": (
        Scene(segments={"CS": 0x10, "DS": 0x28, "ES": 0x18, "SS": 0x18}),
        "ds: 0x28, wants 0x18",
    ),
    "es is the null selector": (
        Scene(segments={"CS": 0x10, "DS": 0x18, "ES": 0, "SS": 0x18}),
        "es: 0x0, wants 0x18",
    ),
    "ss is another data selector": (
        Scene(segments={"CS": 0x10, "DS": 0x18, "ES": 0x18, "SS": 0x28}),
        "ss: 0x28, wants 0x18",
    ),
    "interrupts on": (Scene(rflags=0x202), "interrupt flag: 0x1, wants"),
    "strings run downwards": (Scene(rflags=0x402), "direction flag: 0x1, wants"),
    "a byte of its image": (flipped(len(KERNEL) - 8), "image adler32: "),
    "its sum": (flipped(len(KERNEL) - 1), "image adler32: "),
    "the first byte of the tail": (flipped(len(KERNEL)), f"zeros until: {LOAD + len(KERNEL):#x}, "),
    "the last byte of the tail": (flipped(INIT_SIZE - 1), "zeros until: 0x100ffff, wants"),
    "the magic": (set_field(0x202, "<B", ord("h")), "boot_params at: 0x90000, no HdrS"),
    "the boot flag": (set_field(0x1FE, "<H", 0x55AA), "boot flag: 0x55aa, wants"),
    "no loader": (set_field(0x210, "<B", 0), "type of loader: 0x0, wants"),
    "another protocol": (set_field(0x206, "<H", 0x20C), "setup header, protocol: 0x20c, not"),
    "another init_size": (set_field(0x260, "<I", 0x20000), "setup header, protocol: 0x20f, not"),
    "another pref_address": (set_field(0x25C, "<I", 1), "setup header, protocol: 0x20f, not"),
    "no end of the command line": (
        Scene(command_line=b"x" * 2 * PAGE),
        "command line: no zero in its first 2048 bytes",
    ),
    "a command line of one byte too many": (
        Scene(command_line=b"x" * 2048 + b"\0"),
        "command line: no zero in its first 2048 bytes",
    ),
    "no memory map": (map_of(), "memory map entries: 0, wants"),
    "a map of 129 entries": (
        map_of(*[(n * PAGE, PAGE, RAM) for n in range(129)]),
        "memory map entries: 129, wants",
    ),
    "overlapping entries": (
        map_of((0, 0x100001, RAM), *SMALL_MAP),
        "memory map entries: 2, wants",
    ),
    "unsorted entries": (map_of(*SMALL_MAP, (0, 0x9F000, RAM)), "memory map entries: 2, wants"),
    "an entry that wraps": (
        map_of(*SMALL_MAP, (2**64 - PAGE, 2 * PAGE, RAM)),
        "memory map entries: 2, wants",
    ),
    "no ram under the kernel": (
        map_of((0x2000000, 0x6000000, RAM)),
        "kernel place: [0x1000000, 0x1010000), wants",
    ),
    "reserved under the kernel": (
        map_of((0x100000, 0xF00000, RAM), (LOAD, PAGE, RESERVED), (LOAD + PAGE, 0x6FFF000, RAM)),
        "kernel place: [0x1000000, 0x1010000), wants",
    ),
    "no ram under the end of the kernel": (
        map_of((0x100000, 0xF0FFFF, RAM), (0x2000000, 0x6000000, RAM)),
        "kernel place: [0x1000000, 0x1010000), wants",
    ),
    "no ram under the initrd": (
        map_of((0x100000, 0x3F00000, RAM)),
        "initrd place: [0x4000000, 0x4000009), wants",
    ),
    "an initrd beyond the end of the map": (
        set_field(0x0C4, "<I", 1),
        "initrd place: [0x4000000, 0x104000009), wants",
    ),
    "an initrd whose end wraps": (
        Scene(after=wrap_initrd),
        "initrd place: [0x4000000, 0x3000000), wants",
    ),
    "another initrd": (
        Scene(command_line=b"tightrope.initrd=00000001\0"),
        f"initrd adler32: {zlib.adler32(b'an initrd'):08x}, asked for 00000001",
    ),
    "a sum of seven digits": (
        Scene(command_line=b"tightrope.initrd=1234567 \0"),
        f"initrd adler32: {zlib.adler32(b'an initrd'):08x}, wants eight hex digits",
    ),
    "a sum of nine digits": (
        Scene(command_line=b"tightrope.initrd=123456789\0"),
        f"initrd adler32: {zlib.adler32(b'an initrd'):08x}, wants eight hex digits",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_one_broken_thing_is_named_and_is_the_only_one(what: str) -> None:
    scene, expected = BROKEN[what]
    lines = said(scene)
    (bad,) = bad_lines(lines)
    assert bad.startswith(expected)
    assert lines[-1] == "tightrope: the new kernel was handed 1 wrong things"


@given(first=st.integers(len(KERNEL), INIT_SIZE - 1), more=st.integers(1, 0xFF))
@settings(max_examples=20)
def test_the_first_byte_that_is_not_zero_is_named(first: int, more: int) -> None:
    scene = Scene()
    scene.kernel[first:] = bytes([more]) * (INIT_SIZE - first)
    (bad,) = bad_lines(said(scene))
    assert bad.startswith(f"zeros until: {LOAD + first:#x}, wants")


@pytest.mark.parametrize("neighbour", "/:@G`g")
def test_a_character_beside_the_hex_digits_is_none(neighbour: str) -> None:
    lines = said(Scene(command_line=f"tightrope.initrd=0000000{neighbour}\0".encode()))
    (bad,) = bad_lines(lines)
    assert bad.endswith("wants eight hex digits after tightrope.initrd=")


@pytest.mark.parametrize("more", range(0, 80, 16))
def test_a_block_of_largest_sums_does_not_overflow(more: int) -> None:
    """The byte sum is 65520, the largest there is, before a whole block of the largest bytes."""
    prefix = b"\xff" * 256 + b"\xef"
    initrd = prefix.ljust(5552 + more, b"\0") + b"\xff" * 3 * 5600
    assert zlib.adler32(initrd[: 5552 + more]) & 0xFFFF == 65520
    lines = said(Scene(initrd=initrd))
    assert lines[-2] == f"tightrope: ok   initrd adler32: {zlib.adler32(initrd):08x}, not asked"


def test_wrong_things_are_counted() -> None:
    scene = Scene(cr0=0x80010011, cr4=0xA0, rflags=0x602, e820=[])
    lines = said(scene)
    assert len(bad_lines(lines)) == 5
    assert lines[-1] == "tightrope: the new kernel was handed 5 wrong things"


def test_sixteen_wrong_things_are_said_in_decimal() -> None:
    scene = Scene(
        cr0=0x80010011,
        cr4=0xA0,
        rflags=0x602,
        segments={"CS": 0x20, "DS": 0x28, "ES": 0x28, "SS": 0x28},
        command_line=b"x" * PAGE,
        e820=[],
    )
    scene.kernel[len(KERNEL) - 8] ^= 1
    scene.kernel[len(KERNEL)] = 1

    def break_boot_params(broken: Scene) -> None:
        broken.boot_params[0x1F1:0x26C] = bytes(0x26C - 0x1F1)
        broken.put(0x228, "<I", COMMAND_LINE)

    scene.after = break_boot_params
    lines = said(scene)
    assert len(bad_lines(lines)) == 16
    assert lines[-1] == "tightrope: the new kernel was handed 16 wrong things"


@pytest.mark.parametrize(
    "scene",
    [
        Scene(cr4=0x1020),
        Scene(command_line_at=0),
        Scene(command_line=b"x" * 2047 + b"\0"),
        Scene(command_line=b"xtightrope.initrd=00000001 tightrope.initr=2\0"),
        Scene(initrd=b"", command_line=b" tightrope.initrd=00000001\0"),
        Scene(
            initrd=b"an initrd",
            command_line=f"{shipped.initrd_argument(b'an initrd').upper()} "
            f"tightrope.initrd={zlib.adler32(b'an initrd'):08X}\0".encode(),
        ),
        Scene(e820=[(0x100000, 0xF01000, RAM), (LOAD + PAGE, 0x6FFF000, RAM)]),
        Scene(e820=[(n * PAGE, PAGE, RESERVED) for n in range(127)] + SMALL_MAP),
        Scene(load=0x130000000, initrd_at=0x120000123, command_line_at=0x110000FF0),
    ],
    ids=[
        "five levels of tables",
        "no command line",
        "the longest command line",
        "words that only look like the one",
        "no initrd, and its sum asked for",
        "upper case digits",
        "ram in two touching entries",
        "128 entries",
        "everything above 4 GiB",
    ],
)
def test_other_right_handovers_stand(scene: Scene) -> None:
    lines = said(scene)
    assert bad_lines(lines) == []
    assert lines[-1] == STANDS


def test_a_command_line_with_control_characters_stays_one_line() -> None:
    lines = said(Scene(command_line=b"a\r\nb\x1bc\xff\0"))
    assert "tightrope: ok   command line: a??b?c?" in lines
    assert lines[-1] == STANDS


def test_a_sum_that_was_not_asked_for_is_said_all_the_same() -> None:
    assert f"tightrope: ok   initrd adler32: {zlib.adler32(b'an initrd'):08x}, not asked" in said(
        Scene()
    )


def test_the_64_bit_entry_notices_32_bit_code() -> None:
    scene = Scene(code_descriptor=CODE_32)
    assert said(scene, by_far_jump=True) == [
        "tightrope: BAD  entry: the 64-bit one was entered with CS.L clear"
    ]


def test_a_far_jump_into_64_bit_code_stands() -> None:
    """The test above differs from a right handover by its descriptor alone."""
    assert said(Scene(), by_far_jump=True)[-1] == STANDS


def test_the_32_bit_entry_says_that_there_is_only_a_64_bit_one() -> None:
    engine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
    engine.mem_map(LOAD, INIT_SIZE)
    engine.mem_map(BOOT_PARAMS, PAGE)
    engine.mem_write(LOAD, KERNEL)
    engine.reg_write(const.UC_X86_REG_ESI, BOOT_PARAMS)
    assert lines_of(serial(engine, LOAD)) == [
        "tightrope: BAD  entry: 32-bit, but this kernel has only a 64-bit one, 0x200 further"
    ]


@settings(max_examples=25)
@given(
    load=st.integers(0x100, 0x3FF0).map(lambda page: page * PAGE),
    initrd=st.one_of(
        st.binary(max_size=100),
        st.integers(0, 3 * 5552 + 17).map(lambda size: b"\xff" * size),
        st.integers(0, 40).map(lambda more: b"\xff" * (5552 * 40 + more)),
    ),
)
def test_it_stands_on_any_page_and_sums_any_initrd(load: int, initrd: bytes) -> None:
    argument = shipped.initrd_argument(initrd)
    lines = said(Scene(load=load, initrd=initrd, command_line=f"{argument}\0".encode()))
    assert lines[0] == f"tightrope: new kernel entered at {load + 0x200:#x}"
    total = f"{zlib.adler32(initrd):08x}"
    assert lines[-2:] == [f"tightrope: ok   initrd adler32: {total}, asked for {total}", STANDS]


TEXTS = KERNEL.index(b"tightrope: new kernel")


@settings(max_examples=25)
@given(st.integers(TEXTS, len(KERNEL) - 1), st.integers(0, 7))
def test_it_never_stands_with_a_flipped_bit_in_its_texts(offset: int, bit: int) -> None:
    """Texts only: a flip in the code may break the very instruction that would notice it."""
    scene = Scene()
    scene.kernel[offset] ^= 1 << bit
    assert b"the new kernel stands" not in console_of(scene)
