"""Debian's Bochs as a CPU that nobody here wrote: orders in, answers out, one process for thousands.

    ROM, 1 MiB below 4 GiB                       RAM
    0x00000  what RAM begins with      -------->  0x01000  gdt, tss, idt
      ...                                         0x02000  the interpreter (interpreter.S)
    0xf0000  boot.S, the reset vector             0x03000  its stack   0x04000  code for CPL 3
                                                  0x05000  one answer
                                                  0x10000  tables of the identity map
                                                  0x20000  tables of the worlds
                                                  0x40000  the orders
                                                  0x9f000  (linear) a window
                                                  4 MiB    the marked RAM, to 8 MiB

Rules: written from the SDM; nothing of `tightrope` is used.  Orders are what interpreter.S says.
Bochs opens a VNC port for its screen while it runs (the only display it can do without a terminal).
"""

from __future__ import annotations

import functools
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import lacking
from tests.x86.modes import PG_PE_WP, RW, US, A, D, Mode, P

HERE = Path(__file__).resolve().parent
ROM_SIZE, BOOT_SIZE, LOW_RAM = 1 << 20, 1 << 16, 0x9F000
RAM_END, MARKED = 8 << 20, 4 << 20
SYSTEM, INTERPRETER, STACK, USER_CODE = 0x1000, 0x2000, 0x3F00, 0x4000
TSS, IDT = 0x1100, 0x1200
IDENTITY, ROOT, ORDERS, WINDOW = 0x10000, 0x20000, 0x40000, 0x9F000
LAST_ORDERS = WINDOW - 13
VECTORS = 0x31
CPU_MODEL = "tigerlake"
"""The newest that Bochs 2.7 has: SMEP, SMAP, 1 GiB pages; none has LA57."""
STORED = 0x5A5A_5A5A_5A5A_5A5A
NONE = 0x30
"""The vector of an answer that is no exception."""

ORDER = struct.Struct("<BIQ")
ANSWER = struct.Struct("<BIQQ")


@dataclass(frozen=True)
class Answer:
    """What came of one order."""

    vector: int
    error_code: int
    address: int
    """CR2."""
    value: int


def marker(phys: int) -> int:
    """What lies at a multiple of 8 in the marked RAM: `mov $phys / 8, %eax; int3`."""
    return 0xB8 | phys // 8 << 8 | 0xCC << 40


class Orders:
    """A list of orders under way."""

    def __init__(self) -> None:
        self._data = bytearray()

    def _add(self, what: int, a: int = 0, b: int = 0) -> None:
        self._data += ORDER.pack(what, a, b)

    def entry(self, at: int, value: int) -> None:
        """Write a page-table entry; no TLB is told."""
        self._add(1, at, value)

    def cr3(self, value: int) -> None:
        """Write CR3."""
        self._add(2, value)

    def cr4(self, value: int) -> None:
        """Write CR4."""
        self._add(3, value)

    def cr0(self, value: int) -> None:
        """Write CR0."""
        self._add(4, value)

    def efer(self, value: int) -> None:
        """Write IA32_EFER."""
        self._add(5, value)

    def flags(self, value: int) -> None:
        """RFLAGS of the accesses that follow."""
        self._add(6, value)

    def access(self, kind: int, virt: int) -> None:
        """0 read, 1 write, 2 fetch; answers."""
        self._add(7, kind, virt)

    def get_entry(self, at: int) -> None:
        """Answers with a page-table entry."""
        self._add(8, at)

    def get_physical(self, at: int, then: int) -> None:
        """Answers with the 8 bytes at a physical address below 4 GiB, and puts others there."""
        self._add(9, at, then)

    def invlpg(self, virt: int) -> None:
        """INVLPG."""
        self._add(10, 0, virt)

    @property
    def room(self) -> int:
        """Orders that still fit."""
        return (LAST_ORDERS - ORDERS - len(self._data)) // ORDER.size

    def done(self) -> bytes:
        """The bytes, with the order that ends the run."""
        assert self.room >= 1, "too many orders for one run"
        return bytes(self._data) + ORDER.pack(0, 0, 0)


def identity(mode: Mode, *, user: bool) -> dict[int, int]:
    """The entries that map low RAM to itself through slot 0 of the root; only CODE is open to CPL 3."""
    open_ = P | RW | A | (US if user else 0)
    entries: dict[int, int] = {}
    table = ROOT
    for level in range(mode.levels - 1):
        below = IDENTITY + 0x1000 * level
        entries[table] = below | (P if mode.name == "pae" and level == 0 else open_)
        table = below
    for page in range(SYSTEM, WINDOW, 0x1000):
        rights = P | RW | A | D | (US if user and page == USER_CODE else 0)
        entries[table + (page >> 12) * mode.entry_size] = page | rights
    return entries


def _window_entry(mode: Mode) -> int:
    return IDENTITY + 0x1000 * (mode.levels - 2) + (WINDOW >> 12) * mode.entry_size


@functools.cache
def _assembled(source: str, at: int, bits: int, symbols: tuple[tuple[str, int], ...]) -> bytes:
    """A flat binary by GNU as and ld."""
    for tool in ("as", "ld"):
        if shutil.which(tool) is None:
            lacking(f"no {tool} here: install binutils (scripts/system-packages)")
    machine = "elf_x86_64" if bits == 64 else "elf_i386"
    defines = [word for name, value in symbols for word in ("--defsym", f"{name}={value:#x}")]
    with tempfile.TemporaryDirectory() as folder:
        made, flat = f"{folder}/a.o", f"{folder}/a.bin"
        subprocess.run(["as", f"--{bits}", *defines, "-o", made, str(HERE / source)], check=True)
        link = ["ld", "-m", machine, "-Ttext", hex(at), "-e", hex(at), "--oformat", "binary"]
        subprocess.run([*link, "-o", flat, made], check=True)
        return Path(flat).read_bytes()


def _rom(mode: Mode, *, user: bool, cr4: int, efer: int, orders: bytes) -> bytes:
    """The whole ROM."""
    long_mode = mode.linear_bits > 32
    code = _assembled(
        "interpreter.S",
        INTERPRETER,
        64 if long_mode else 32,
        (
            ("LONG", long_mode),
            ("WIDE", mode.entry_size == 8),
            ("USER", user),
            ("PG_CR0", PG_PE_WP | 1 << 5 | 1 << 4),
            ("CR3", ROOT),
            ("CR4", cr4),
            ("EFER", efer & ~(1 << 10)),
            ("ORDERS", ORDERS),
            ("WINDOW", WINDOW),
            ("WINDOW_ENTRY", _window_entry(mode)),
        ),
    )
    ram = bytearray(ROM_SIZE)

    def put(at: int, data: bytes) -> None:
        ram[at : at + len(data)] = data

    ring0, ring3 = (0x00AF_9B00, 0x00AF_FB00) if long_mode else (0x00CF_9B00, 0x00CF_FB00)
    put(SYSTEM + 8, struct.pack("<II", 0xFFFF, ring0))
    put(SYSTEM + 16, struct.pack("<II", 0xFFFF, 0x00CF_9300))
    put(SYSTEM + 24, struct.pack("<II", 0xFFFF, ring3))
    put(SYSTEM + 32, struct.pack("<II", 0xFFFF, 0x00CF_F300))
    put(SYSTEM + 40, struct.pack("<IIQ", 0x67 | TSS << 16 & 0xFFFF_FFFF, 0x8900, 0))
    put(TSS + 4, struct.pack("<Q", STACK) if long_mode else struct.pack("<II", STACK, 0x10))
    put(TSS + 0x66, struct.pack("<H", 0x68))
    # The stubs are 64 bytes apart; they begin behind the code for the accesses.
    probe = (
        b"\x48\x8b\x03\xcd\x30\x48\x89\x03\xcd\x30"
        if long_mode
        else b"\x8b\x03\xcd\x30\x89\x03\xcd\x30"
    )
    at = code.index(probe)
    vectors = INTERPRETER + (at + len(probe) + 63 & ~63)
    for number in range(VECTORS):
        handler = vectors + 64 * number
        gate = struct.pack("<HHHH", handler & 0xFFFF, 8, 0xEE00, handler >> 16)
        put(IDT + number * (16 if long_mode else 8), gate)
    assert len(code) <= 0x1000
    put(INTERPRETER, code)
    put(USER_CODE, probe)
    for where, value in identity(mode, user=user).items():
        put(where, value.to_bytes(mode.entry_size, "little"))
    assert ORDERS + len(orders) <= LOW_RAM
    put(ORDERS, orders)
    boot = _assembled(
        "boot.S",
        0xFFFF_0000,
        32,
        (
            ("ROM", (1 << 32) - ROM_SIZE),
            ("BYTES", LOW_RAM),
            ("MARKED", MARKED),
            ("RAM_END", RAM_END),
            ("START", INTERPRETER),
        ),
    )
    put(ROM_SIZE - BOOT_SIZE, boot)
    return bytes(ram)


CONFIGURATION = """\
megs: 32
romimage: file={folder}/rom
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
cpu: model={model}, count=1, ips=100000000, reset_on_triple_fault=0, ignore_bad_msrs=0
display_library: rfb, options="timeout=0"
sound: waveoutdrv=dummy
speaker: enabled=0
plugin_ctrl: speaker=0, parallel=0, serial=0, gameport=0, biosdev=0
pci: enabled=0
port_e9_hack: enabled=1
log: {folder}/log
panic: action=fatal
error: action=report
info: action=ignore
debug: action=ignore
"""


def run(mode: Mode, orders: bytes, *, user: bool, cr4: int, efer: int) -> list[Answer]:
    """The answers, in order.  AssertionError with Bochs' log where it did not get to the end."""
    bochs = shutil.which("bochs-bin")
    if bochs is None:
        lacking("no bochs here: install bochs and bochs-term (scripts/system-packages)")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "rom").write_bytes(_rom(mode, user=user, cr4=cr4, efer=efer, orders=orders))
        (Path(folder) / "rc").write_text(CONFIGURATION.format(folder=folder, model=CPU_MODEL))
        # Debian builds Bochs with its debugger, which waits for an order of its own.
        (Path(folder) / "go").write_text("c\nq\n")
        done = subprocess.run(
            [bochs, "-q", "-f", f"{folder}/rc", "-rc", f"{folder}/go"],
            input=b"",
            capture_output=True,
            timeout=60,
            cwd=folder,
            check=False,
        )
        log = (Path(folder) / "log").read_text(errors="replace")
    return _answers(done.stdout, log)


def _answers(output: bytes, log: str) -> list[Answer]:
    """What stands between the marks, among the debugger's own lines."""
    _, began, rest = output.partition(b"<answers>")
    data, ended, _ = rest.rpartition(b"</answers>")
    assert began, log
    assert ended, log
    assert not len(data) % ANSWER.size, log
    return [Answer(*row) for row in ANSWER.iter_unpack(data)]
