"""dump info: the log in every layout that there has been, symbols, CPUs, taint, and whose dump it is."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.makers.kallsyms import Layout, Symbol
from tests.vmcore import logs
from tests.vmcore.cores import (
    BASE,
    MIB,
    PGD,
    Crashed,
    Load,
    crashed,
    elf_core,
    note,
    vmcoreinfo,
    xen,
)
from tests.vmcore.kdumps import of
from tests.vmcore.logs import COMMITTED, RESERVED, REUSABLE, Said
from tightrope import host, vmcore
from tightrope.cli import main
from tightrope.memory import Extent, MemoryMap, Phys, Region, RegionKind, Virt
from tightrope.model import Host, Paging
from tightrope.model.dead import Belonging, Dead
from tightrope.vmcore.information import information

TEXT = {
    "i386": 0xC100_0000,
    "pae": 0xC100_0000,
    "x86_64": 0xFFFF_FFFF_8100_0000,
    "la57": 0xFFFF_FFFF_8100_0000,
}
MODES = tuple(TEXT)


def told(dead: Crashed) -> Dead:
    return information(vmcore.parse(dead.core(), "made"))


def texts(dead: Crashed) -> list[str]:
    return [each.text for each in told(dead).log]


@pytest.mark.parametrize("mode", MODES)
def test_the_ring_buffer_is_read(mode: str) -> None:
    dead = crashed(mode)
    logs.ring(
        dead,
        [
            Said("Linux version 6.1", 0, 5, 0),
            Said("", 7),
            Said("two\nlines", 1_500_000_000, 3, 0x8000_0001),
        ],
    )
    first, empty, last = told(dead).log
    assert (first.text, first.level, first.caller, first.sequence) == ("Linux version 6.1", 5, 0, 0)
    assert (empty.text, empty.nanoseconds) == ("", 7)
    assert (last.text, last.nanoseconds, last.level, last.caller) == (
        "two\nlines",
        1_500_000_000,
        3,
        0x8000_0001,
    )


@settings(max_examples=40)
@given(
    st.lists(
        st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=90),
        min_size=1,
        max_size=60,
    ),
    st.sampled_from(["pae", "x86_64"]),
    st.integers(0, 1 << 29),
)
def test_what_a_ring_has_kept_is_what_was_said_last(said: list[str], mode: str, first: int) -> None:
    dead = RINGS[mode]
    logs.ring(dead, [Said(each) for each in said], bits=3, text_bits=10, first=first)
    got = texts(dead)
    assert 0 < len(got) <= 8
    assert got == said[-8:]


RINGS = {mode: crashed(mode) for mode in ("pae", "x86_64")}


def test_a_record_that_was_being_written_is_left_away() -> None:
    dead = crashed("x86_64")
    states = (COMMITTED, RESERVED, REUSABLE, logs.FINALIZED)
    logs.ring(dead, [Said(f"state {state}", state=state) for state in states])
    assert texts(dead) == ["state 1", "state 2"]


@pytest.mark.parametrize("name", ["printk_log", "log"])
@pytest.mark.parametrize("count", [3, 40])
def test_records_of_older_kernels_are_read(name: str, count: int) -> None:
    dead = crashed("x86_64")
    said = [
        Said(f"line {number} {'x' * (number * 7 % 60)}", number * 1000, level=number % 8)
        for number in range(count)
    ]
    logs.records(dead, said, name=name)
    got = told(dead).log
    kept = said[-len(got) :]
    assert len(got) > 2
    assert [(each.text, each.nanoseconds, each.level) for each in got] == [
        (each.text, each.nanoseconds, each.level) for each in kept
    ]


@pytest.mark.parametrize("lines", [3, 90])
def test_the_text_of_linux_3_4_is_read(lines: int) -> None:
    dead = crashed("pae")
    text = b"".join(b"<6>[    0.%06d] line\n" % number for number in range(lines))
    logs.plain(dead, text)
    assert "\n".join(texts(dead)).encode() == text[-256:]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("SYMBOL(prb)", "1000", "0x1000 is not in the dump"),
        ("OFFSET(prb_desc_ring.count_bits)", "16", "points astray"),
        ("SIZE(prb_desc)", "-4", "VMCOREINFO's SIZE(prb_desc) is -4"),
        (
            "OFFSET(printk_ringbuffer.desc_ring)",
            "many",
            "VMCOREINFO has no OFFSET(printk_ringbuffer.desc_ring)",
        ),
    ],
)
def test_a_log_that_cannot_be_read_is_said_with_its_reason(
    key: str, value: str, words: str
) -> None:
    dead = crashed("x86_64")
    logs.ring(dead, [Said("here")])
    assert (texts(dead), any("the log" in each for each in told(dead).untold)) == (["here"], False)
    dead.info[key] = value
    assert any(words in each for each in told(dead).untold)


def test_under_xen_the_dump_says_why_there_is_no_log() -> None:
    dead = crashed("x86_64")
    core = elf_core([Load(BASE, dead.memory)], xen(cr3=PGD, cr4=0x20))
    (why,) = [each for each in information(vmcore.parse(core, "xen")).untold if "log" in each]
    assert why == "the log: no VMCOREINFO of Linux in the dump"


@given(st.lists(st.tuples(st.integers(0, 3 * 65536), st.integers(0, 255)), min_size=1, max_size=30))
@settings(max_examples=60)
def test_any_bytes_of_a_log_are_records_or_a_reason(changes: list[tuple[int, int]]) -> None:
    dead = crashed("x86_64") if not BROKEN else BROKEN[0]
    BROKEN[:] = [dead]
    logs.ring(dead, [Said(f"line {number}") for number in range(20)])
    for at, value in changes:
        dead.memory[logs.PLACE - BASE + (at if at > 512 else at // 2)] = value
    told(dead)


BROKEN: list[Crashed] = []


PANICS = [
    (
        ["hello", "Kernel panic - not syncing: sysrq triggered crash"],
        "Kernel panic - not syncing: sysrq triggered crash",
    ),
    (
        [
            "BUG: kernel NULL pointer dereference, address: 0",
            "Kernel panic - not syncing: Fatal exception",
        ],
        "Kernel panic - not syncing: Fatal exception; BUG: kernel NULL pointer dereference, address: 0",
    ),
    (["BUG: unable to handle page fault"], "BUG: unable to handle page fault"),
    (["nothing happened"], None),
]


@pytest.mark.parametrize(("said", "panic"), PANICS)
def test_the_line_that_says_why_is_found(said: list[str], panic: str | None) -> None:
    dead = crashed("x86_64")
    logs.ring(dead, [Said(each) for each in said])
    assert told(dead).panic == panic


def cpu(mode: str, at: int, pid: int, *, user: bool = False) -> bytes:
    """NT_PRSTATUS of a CPU that stood there (struct elf_prstatus)."""
    if TEXT[mode] >> 32:
        registers = [
            *range(16),
            at,
            0x33 if user else 0x10,
            0x246,
            0xFFFF_C900_0000_1000,
            0x18,
            *range(6),
        ]
        return note(
            "CORE", 1, struct.pack("<32xi76x", pid) + struct.pack("<27Q", *registers) + bytes(8)
        )
    registers = [*range(12), at, 0x73 if user else 0x60, 0x246, 0xC100_0000, 0x68]
    return note(
        "CORE", 1, struct.pack("<24xi44x", pid) + struct.pack("<17I", *registers) + bytes(4)
    )


@pytest.mark.parametrize(
    ("mode", "layout", "per_cpu"),
    [
        ("x86_64", Layout.OFFSETS_FIRST, True),
        ("x86_64", Layout.OFFSETS_LAST, True),
        ("la57", Layout.OFFSETS_LAST, False),
        ("x86_64", Layout.BY_PLACE, False),
        ("pae", Layout.OFFSETS_FIRST, False),
    ],
)
def test_cpus_stand_where_the_kernels_own_symbols_say(
    mode: str, layout: Layout, per_cpu: bool
) -> None:
    dead = crashed(mode)
    text = TEXT[mode]
    taint = logs.direct(dead, BASE + 11 * MIB)
    symbols = [Symbol(0, "A", "fixed_percpu_data")] if per_cpu else []
    symbols += [
        Symbol(text, "T", "_stext"),
        Symbol(text + 0x100, "T", "kexec_relocate"),
        Symbol(text + 0x300, "t", "a" * 200),
    ]
    if mode == "pae":
        symbols.append(Symbol(taint, "D", "tainted_mask"))
    else:
        symbols.append(Symbol(text + 0x3000, "D", "tainted_mask"))
        taint = 0
    end = Symbol(max(text, taint) + 0x30_0000, "B", "_end")
    logs.named(dead, [*symbols, end], layout, per_cpu=per_cpu)
    dead.put(BASE + 11 * MIB if taint else BASE + 0x3000, 1 << 12 | 1 << 9, dead.bits // 8)
    notes = (
        cpu(mode, text + 0x11A, 42)
        + cpu(mode, 0x1234, 7, user=True)
        + note("CORE", 1, bytes(336))
        + vmcoreinfo(dead.info)
    )
    found = information(vmcore.parse(dead.core(notes=notes), "made"))
    assert [(each.place, each.pid, each.user, bool(each.registers)) for each in found.cpus] == [
        ("kexec_relocate+0x1a", 42, False, True),
        (None, 7, True, True),
        (None, 0, False, False),
    ]
    assert found.cpus[0].registers["rsp" if dead.bits == 64 else "esp"] in (
        0xFFFF_C900_0000_1000,
        0xC100_0000,
    )
    last = "gs" if dead.bits == 64 else "ss"
    assert found.cpus[0].registers[last] == (5 if dead.bits == 64 else 0x68)
    assert found.tainted == 0x1200
    assert found.untold == (
        "the log: VMCOREINFO names no log of Linux (prb, log_first_idx, log_end)",
    )
    dead.info["SYMBOL(kallsyms_offsets)"] = "1000"
    without = notes[: notes.index(b"VMCOREINFO") - 12] + vmcoreinfo(dead.info)
    lost = information(vmcore.parse(dead.core(notes=without), "made"))
    assert {each.place for each in lost.cpus} == {None}
    assert (lost.tainted, "no symbols" in lost.untold[-1]) == (None, True)


def described(*, virt: int, ram: int = 1 << 30) -> Host:
    """A host file's value, of a kernel whose text is there."""
    out = host.read(host.example(Paging.X86_64), "host.toml")
    text = replace(out.text, virt=Virt(virt), phys=Phys(BASE), size=4 * MIB)
    memory = MemoryMap(regions=(Region(extent=Extent(0, ram), kind=RegionKind.RAM),))
    return replace(out, text=text, memory=memory)


def test_a_dump_and_a_host_file_belong_together_or_not() -> None:
    dead = crashed("x86_64")
    core = vmcore.parse(dead.core(), "made")

    def belonging(**what: int) -> Belonging:
        match = information(core, described(**what)).match
        assert match is not None
        return match.belonging

    assert belonging(virt=TEXT["x86_64"]) is Belonging.TOGETHER
    assert belonging(virt=TEXT["x86_64"] + 0x1E00_0000) is Belonging.APART, "another boot, by KASLR"
    assert belonging(virt=TEXT["x86_64"], ram=BASE + 8 * MIB) is Belonging.APART, (
        "memory that the host has not"
    )
    del dead.info["SYMBOL(_stext)"]
    core = vmcore.parse(dead.core(), "made")
    assert belonging(virt=TEXT["x86_64"]) is Belonging.UNTOLD
    other = information(core, host.read(host.example(Paging.LA57), "host.toml")).match
    assert other is not None
    assert other.belonging is Belonging.APART
    assert "page tables" in other.differ[0]


def test_the_report_is_one_of_the_dead_kernel(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dead = crashed("x86_64")
    dead.info["CRASHTIME"] = "1700000000"
    logs.ring(
        dead,
        [Said(f"line {number}", number * 10**9) for number in range(14)]
        + [Said("Kernel panic - not syncing: it\x1b[31m", 10**11)],
    )
    path = tmp_path / "vmcore"
    path.write_bytes(of(dead, leave_out=lambda frame, page: frame == BASE // 4096 + 2304 + 300))
    assert main(["dump", "info", str(path)]) == 0
    said = capsys.readouterr().out
    assert (
        "Linux 6.1.0-56-amd64, 2023-11-14 22:13:20 UTC: Kernel panic - not syncing: it\\x1b[31m"
        in " ".join(said.split())
    )
    assert ("[   13.000000] line 13" in said, "[    0.000000] line 0" in said) == (True, False)
    assert "4 KiB left out" in said
    assert main(["dump", "info", str(path), "--log"]) == 0
    log = capsys.readouterr().out.splitlines()
    assert (log[0], log[-1], len(log)) == (
        "[    0.000000] line 0",
        "[  100.000000] Kernel panic - not syncing: it\\x1b[31m",
        15,
    )
    assert main(["dump", "info", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["crashed"], facts["left_out"], len(facts["log"])) == (1700000000, 4096, 15)
    plain = tmp_path / "plain"
    plain.write_bytes(crashed("x86_64").core())
    assert main(["dump", "info", str(plain), "--log"]) == 2


@pytest.mark.parametrize(("mode", "wide"), [("x86_64", 16), ("pae", 8)])
def test_registers_are_printed_and_those_of_many_cpus_left_to_programs(
    mode: str, wide: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dead, path = crashed(mode), tmp_path / "vmcore"
    one = cpu(mode, TEXT[mode] + 0x11A, 42)
    for count in (1, 6):
        notes = b"".join([one] * count) + note("CORE", 1, bytes(336)) + vmcoreinfo(dead.info)
        path.write_bytes(dead.core(notes=notes))
        assert main(["dump", "info", str(path)]) == 0
        said = capsys.readouterr().out
        ip = "rip" if wide == 16 else "eip"
        assert said.count(f" {ip} {TEXT[mode] + 0x11A:0{wide}x}") == min(count, 4)
        assert ("those of 2 more CPUs: --json" in said) is (count == 6)
        lines = said[said.index("CPU 0: registers") :].splitlines()
        assert max(map(len, lines)) <= 80
        assert main(["dump", "info", str(path), "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert [len(each["registers"]) for each in facts["cpus"]] == [
            *[27 if wide == 16 else 17] * count,
            0,
        ]


def test_a_dump_that_tells_nothing_of_its_kernel_is_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, as of what cannot be told; a release alone is something."""
    mute, named = tmp_path / "mute", tmp_path / "named"
    mute.write_bytes(elf_core([Load(0x1000, bytes(4096))]))
    named.write_bytes(elf_core([Load(0x1000, bytes(4096))], vmcoreinfo({"OSRELEASE": "6.12.0"})))
    assert main(["dump", "info", str(mute)]) == 2
    assert "kernel     not named" in capsys.readouterr().out
    assert main(["dump", "info", str(named)]) == 0
