"""Multiboot, Multiboot2, PVH and flat entries from every mode: the state, and what is handed over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.entries.runs import BASE, LINE, MODULES, TOLD, kernel, reader, request, walk
from tests.makers.hosts import GIB, MIB, mode_host
from tests.makers.told import Reader, Told, multiboot, multiboot2, start_info
from tests.modes.runs import LEGACY, shared
from tests.rehearse.runs import mode_host as example_of
from tests.stand_ins.played import Fake
from tightrope.check import check
from tightrope.deeds.rehearse import build
from tightrope.errors import PlanError
from tightrope.memory import Extent, MemoryMap, Phys, Region, RegionKind
from tightrope.model import Handover, Host, Named, Outcome, Paging, Protocol, Registers, Run
from tightrope.plan import Module, Request, prepare

PG, PE, ET, MP, NE = 1 << 31, 1, 1 << 4, 1 << 1, 1 << 5
LMA, LME = 1 << 10, 1 << 8
TF, IF, DF, VM = 1 << 8, 1 << 9, 1 << 10, 1 << 17
MAGIC = {Protocol.MULTIBOOT: 0x2BADB002, Protocol.MULTIBOOT2: 0x36D76289, Protocol.PVH: 0}
READERS: dict[Protocol, Callable[[Reader, int], Told]] = {
    Protocol.MULTIBOOT: multiboot,
    Protocol.MULTIBOOT2: multiboot2,
    Protocol.PVH: start_info,
}
E820 = {"ram": 1, "reserved": 2, "acpi": 3, "nvs": 4, "unusable": 5, "pmem": 7}
EVERY_ENTRY = [*TOLD, Protocol.FLAT]


@pytest.mark.parametrize("machine", [None, Fake()], ids=["emulator", "fake"])
@pytest.mark.parametrize("paging", list(Paging))
@pytest.mark.parametrize("protocol", EVERY_ENTRY)
def test_the_state_is_that_of_32_bit_protected_mode_with_the_protocols_words(
    protocol: Protocol, paging: Paging, machine: Fake | None
) -> None:
    got = walk(protocol, paging, machine=machine)
    assert (got.outcome, got.findings) == (Outcome.HOLDS, ())
    now, plan = got.run.registers, got.handover.plan
    assert (now.rip, plan.protocol) == (plan.kernel_entry, protocol)
    assert now.cr0 == PE | ET | (0 if protocol is Protocol.PVH else MP | NE)
    assert (now.cr3, now.cr4) == (0, 0)
    assert not now.efer & (LMA | LME)
    assert not now.rflags & (IF | DF | TF | VM)
    descriptor = got.run.descriptors["cs"]
    assert (descriptor >> 54 & 1, descriptor >> 53 & 1) == (1, 0)  # D and not L
    words = {name: value for name, value in now.general.items() if value and name != "rsp"}
    if protocol is Protocol.FLAT:
        assert words == {}
        return
    assert words.pop("rax", 0) == MAGIC[protocol]
    assert 0 < words.pop("rbx") < 4 * GIB
    assert words == {}


@pytest.mark.parametrize("paging", [Paging.X86_64, Paging.LA57])
@pytest.mark.parametrize("machine", [None, Fake()], ids=["emulator", "fake"])
def test_a_flat_64_bit_binary_is_entered_in_long_mode_with_nothing(
    paging: Paging, machine: Fake | None
) -> None:
    got = walk(Protocol.FLAT, paging, bits=64, machine=machine)
    assert (got.outcome, got.findings) == (Outcome.HOLDS, ())
    now = got.run.registers
    assert now.rip == BASE
    assert now.cr0 & PG
    assert now.efer & LMA
    assert {name for name, value in now.general.items() if value} == {"rsp"}


@pytest.mark.parametrize("paging", list(Paging))
@pytest.mark.parametrize("protocol", TOLD)
def test_what_is_handed_over_is_read_back_by_its_specification(
    protocol: Protocol, paging: Paging
) -> None:
    got = walk(protocol, paging)
    plan, registers = got.handover.plan, got.run.registers
    read = reader(got.run.memory)
    told = READERS[protocol](read, registers.general["rbx"])
    first, second = MODULES
    strings = ["boot/vmlinuz console=hvc0 quiet", "initrd.img"]
    if protocol is Protocol.PVH:
        strings = ["console=hvc0 quiet", ""]
    assert told.line == (LINE if protocol is Protocol.PVH else f"xen.gz {LINE}")
    assert [string for _, _, string in told.modules] == strings
    for (start, end, _), module in zip(told.modules, (first, second), strict=True):
        assert start % 4096 == 0
        assert read(start, end - start) == module.data
    rows = [(r.extent.start, r.extent.size, E820[r.kind.value]) for r in plan.host.memory]
    assert told.memory == rows
    if protocol is not Protocol.PVH:
        assert told.loader == "tightrope"
        assert told.lower == 0x9FC00 >> 10
        [above] = [e for e in plan.host.memory.ram if MIB in e]
        assert told.upper == above.end - MIB >> 10
    if protocol is Protocol.MULTIBOOT2:
        assert told.load == plan.segments[0].destination.start == MIB


def test_the_start_info_names_the_rsdp_and_begins_with_the_initrd() -> None:
    old = replace(mode_host(Paging.PAE), rsdp=Phys(0xF0010))
    asked = Request(initrd=b"\x07" * 5000, modules=MODULES[:1])
    got = walk(Protocol.PVH, old, asked=asked)
    read = reader(got.run.memory)
    told = start_info(read, got.run.registers.general["rbx"])
    assert told.rsdp == 0xF0010
    assert [(read(start, 1)[0], end - start) for start, end, _ in told.modules] == [
        (7, 5000),
        (ord("d"), 6000),
    ]


@pytest.mark.parametrize("paging", list(Paging))
def test_the_start_info_lies_below_the_kernel_where_linux_has_it_mapped(paging: Paging) -> None:
    got = walk(Protocol.PVH, paging)
    low = [s for s in got.handover.plan.segments if s.name in ("start info", "command line")]
    assert len(low) == 2
    assert all(MIB <= each.destination.start < BASE for each in low)


def test_kinds_of_memory_that_multiboot_does_not_know_are_reserved_or_defective() -> None:
    old = mode_host(Paging.X86_64)
    more = (
        Region(Extent(6 * GIB, 7 * GIB), RegionKind.PMEM),
        Region(Extent(7 * GIB, 8 * GIB), RegionKind.UNUSABLE),
    )
    old = replace(old, memory=MemoryMap((*old.memory.regions, *more)))
    kinds = {}
    for protocol in TOLD:
        plan = prepare(kernel(protocol), old, Request())
        data = next(s for s in plan.segments if s.destination.start == plan.arguments["rbx"])
        base = data.destination.start

        def read(at: int, size: int, plan=plan) -> bytes:  # type: ignore[no-untyped-def]
            for each in plan.segments:
                if at in each.destination:
                    start = at - each.destination.start
                    return bytes(each.data[start : start + size])
            raise AssertionError(hex(at))

        told = READERS[protocol](read, base)
        kinds[protocol] = [kind for _, _, kind in told.memory[-2:]]
    assert kinds == {
        Protocol.MULTIBOOT: [2, 5],
        Protocol.MULTIBOOT2: [2, 5],
        Protocol.PVH: [7, 5],
    }


# --------------------------------------------------------------------------------- a crash kexec

CRASH_REGION = Extent.sized(MIB, 48 * MIB)
"""All that these kernels need, where they are linked; the 32-bit example hosts are there themselves."""


def crash_host(paging: Paging) -> Host:
    """An old kernel that is elsewhere."""
    old = example_of(paging)
    note = Named(extent=Extent.sized(0x7000_0000, 0x200), what="CPU 0's registers")
    return replace(old, crash_region=CRASH_REGION, busy=(), crash_notes=(note,))


@pytest.mark.parametrize("backup", [False, True])
@pytest.mark.parametrize("paging", [Paging.X86_64, Paging.LA57])
@pytest.mark.parametrize("protocol", EVERY_ENTRY)
def test_a_crash_kexec_in_its_own_place_is_handed_the_region(
    protocol: Protocol, paging: Paging, backup: bool
) -> None:
    asked = replace(request(protocol), crash=True, backup=backup)
    got = walk(protocol, crash_host(paging), asked=asked)
    assert (got.outcome, got.findings) == (Outcome.HOLDS, ())
    registers = got.run.registers.general
    assert registers.get("rax", 0) == MAGIC.get(protocol, 0)
    names = [each.name for each in got.handover.plan.segments]
    if protocol is Protocol.FLAT:
        assert names == ["kernel", "entry stub"]
        return
    told = READERS[protocol](reader(got.run.memory), registers["rbx"])
    assert "elfcorehdr=" in told.line
    assert ("backup of low memory" in names) is backup
    ram = [Extent.sized(start, size) for start, size, kind in told.memory if kind == 1]
    assert all(CRASH_REGION.covers(each) or each.end <= MIB for each in ram)
    assert any(each.start >= MIB for each in ram)


def test_a_core_header_that_leads_into_what_a_pvh_kernel_may_write_is_found() -> None:
    """Its memory map is read from the start info, as boot_params' would be."""
    asked = replace(request(Protocol.PVH), crash=True)
    built = build(
        prepare(kernel(Protocol.PVH), crash_host(Paging.X86_64), asked), design="two-tables"
    )
    run = shared().run(built)
    assert check(built, run) == ()
    segments = []
    for each in built.segments:
        data = bytearray(each.data)
        if each.name == "core header":
            # p_offset of the first PT_LOAD with an address of 0 in p_vaddr would do; the last row's.
            data[-56 + 8 : -56 + 16] = (CRASH_REGION.start + 0x100000).to_bytes(8, "little")
        segments.append(replace(each, data=bytes(data)))
    found = check(replace(built, segments=tuple(segments)), run)
    assert "dump-survives" in {each.rule for each in found}


# ------------------------------------------------------------------- each contract can be broken


def broken(protocol: Protocol, change: Callable[[Registers], Registers]) -> set[str]:
    """The rules that a sound walk breaks when its last registers are changed."""
    built = build(
        prepare(kernel(protocol), mode_host(Paging.PAE), request(protocol)), design="two-tables"
    )
    run = shared().run(built)
    assert check(built, run) == ()
    return {each.rule for each in check(built, replace(run, registers=change(run.registers)))}


def general(name: str, value: int) -> Callable[[Registers], Registers]:
    return lambda now: replace(now, general={**now.general, name: value})


@pytest.mark.parametrize(
    ("protocol", "change", "rule"),
    [
        (Protocol.MULTIBOOT, general("rax", 0x36D76289), "entry-arguments"),
        (Protocol.MULTIBOOT2, general("rax", 0x2BADB002), "entry-arguments"),
        pytest.param(Protocol.MULTIBOOT, general("rbx", 0), "entry-arguments", id="no information"),
        (Protocol.PVH, general("rbx", 0x1000), "entry-arguments"),
        (Protocol.MULTIBOOT, lambda now: replace(now, cr0=now.cr0 | PG), "known-state"),
        (Protocol.MULTIBOOT2, lambda now: replace(now, cr4=0x20), "known-state"),
        (Protocol.PVH, lambda now: replace(now, cr0=now.cr0 | NE), "known-state"),
        (Protocol.FLAT, lambda now: replace(now, efer=LMA), "known-state"),
        pytest.param(
            Protocol.MULTIBOOT,
            lambda now: replace(now, efer=0x100),
            "known-state",
            id="LME left on",
        ),
        (Protocol.MULTIBOOT, lambda now: replace(now, rflags=0x202), "entry-flags"),
    ],
)
def test_one_thing_wrong_is_found(
    protocol: Protocol, change: Callable[[Registers], Registers], rule: str
) -> None:
    assert rule in broken(protocol, change)


def test_selectors_are_free_where_the_protocol_leaves_them_free() -> None:
    assert (
        broken(
            Protocol.MULTIBOOT,
            lambda now: replace(now, segments={**now.segments, "ds": 0x20, "cs": 0x08}),
        )
        == set()
    )


def with_memory(protocol: Protocol, at: Callable[[Handover], int], data: bytes) -> set[str]:
    """The rules that are broken when `data` lies in memory at the end."""
    built = build(
        prepare(kernel(protocol), mode_host(Paging.PAE), request(protocol)), design="two-tables"
    )
    run: Run = shared().run(built)
    run.memory.write(at(built), data)  # type: ignore[attr-defined]
    return {each.rule for each in check(built, run)}


def information(offset: int) -> Callable[[Handover], int]:
    return lambda built: built.plan.arguments["rbx"] + offset


@pytest.mark.parametrize(
    ("protocol", "offset", "data"),
    [
        pytest.param(Protocol.MULTIBOOT, 0, bytes(4), id="no flags"),
        pytest.param(Protocol.MULTIBOOT, 20, b"\x01", id="one module too few"),
        pytest.param(Protocol.MULTIBOOT, 16, bytes(4), id="no command line"),
        pytest.param(Protocol.MULTIBOOT, 44, b"\x18\0", id="a memory map of one row"),
        pytest.param(Protocol.MULTIBOOT, 48, b"\xff\xff\xff\xff", id="the map is nowhere"),
        pytest.param(Protocol.MULTIBOOT2, 0, b"\x08\0\0\0", id="an empty list"),
        pytest.param(Protocol.MULTIBOOT2, 12, b"\x01\0\0\0", id="a tag of one byte"),
        pytest.param(Protocol.MULTIBOOT2, 0, b"\xff\xff\xff\xff", id="an endless list"),
        pytest.param(Protocol.PVH, 0, b"\0", id="a wrong magic"),
        pytest.param(Protocol.PVH, 4, b"\0", id="an old version"),
        pytest.param(Protocol.PVH, 12, b"\x01", id="one PVH module too few"),
        pytest.param(Protocol.PVH, 40, bytes(8), id="another map"),
        pytest.param(Protocol.PVH, 24, b"\xff" * 8, id="no address"),
    ],
)
def test_information_that_cannot_be_right_is_found(
    protocol: Protocol, offset: int, data: bytes
) -> None:
    assert "entry-information" in with_memory(protocol, information(offset), data)


# --------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("paging", LEGACY)
def test_a_flat_64_bit_binary_is_out_of_reach_of_a_32_bit_kernel(paging: Paging) -> None:
    with pytest.raises(PlanError, match="a 32-bit old kernel cannot take the 64-bit entry"):
        walk(Protocol.FLAT, paging, bits=64)


@pytest.mark.parametrize(
    ("protocol", "asked", "problem"),
    [
        (Protocol.MULTIBOOT, Request(initrd=b"x"), "takes modules, and no initrd"),
        (Protocol.MULTIBOOT2, Request(initrd=b"x"), "takes modules, and no initrd"),
        (Protocol.FLAT, Request(command_line="x"), "is handed nothing"),
        (Protocol.FLAT, Request(initrd=b"x"), "is handed nothing"),
        (Protocol.FLAT, Request(modules=MODULES), "is handed nothing"),
        (Protocol.PVH, Request(modules=(Module(data=b"", source="m"),)), "m: the module is empty"),
    ],
)
def test_what_a_protocol_has_no_place_for_is_refused(
    protocol: Protocol, asked: Request, problem: str
) -> None:
    with pytest.raises(PlanError, match=problem):
        walk(protocol, Paging.PAE, asked=asked)


def test_linux_takes_no_modules() -> None:
    from tests.modes.runs import kernel as bzimage

    with pytest.raises(PlanError, match="takes an initrd, and no modules"):
        prepare(bzimage(), mode_host(Paging.PAE), Request(modules=MODULES))


@pytest.mark.parametrize("protocol", TOLD)
def test_modules_and_information_have_to_fit_below_4_gib(protocol: Protocol) -> None:
    """There is room for them above, where a 32-bit entry cannot reach."""
    old = mode_host(Paging.X86_64)
    big = Module(data=bytes(3 * GIB - 64 * MIB), source="big")
    low = [each for each in old.memory.ram if each.start < 4 * GIB]
    assert max(each.end for each in low) <= 3 * GIB
    with pytest.raises(PlanError, match="big: initrd_addr_max: no room for"):
        prepare(kernel(protocol), old, Request(modules=(big,)))


@pytest.mark.parametrize("protocol", EVERY_ENTRY)
def test_a_kernel_that_cannot_be_moved_is_refused_where_its_place_is_no_ram(
    protocol: Protocol,
) -> None:
    old = mode_host(Paging.PAE)
    hole = replace(
        old,
        memory=MemoryMap(tuple(r for r in old.memory if not (MIB in r.extent or BASE in r.extent))),
    )
    with pytest.raises(PlanError, match="the kernel has to be loaded at"):
        prepare(kernel(protocol), hole, request(protocol))
