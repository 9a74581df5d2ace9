"""What a PC is: its memory map as the firmware tells it, its registers, its console."""

from __future__ import annotations

import pytest

from tests.qemu.pcs import MIB, old_kernel, qemu
from tightrope import host
from tightrope.errors import HostError, MachineError, WireError
from tightrope.machine.qemu import cpu, exceptions, stage
from tightrope.machine.qemu.memory import extents_of
from tightrope.machine.qemu.pc import Pc
from tightrope.memory import Extent, covered
from tightrope.model import Paging


@pytest.mark.parametrize("size", [256, 1024, 3583])
def test_the_example_has_no_ram_that_a_pc_has_not_and_leaves_little(size: int) -> None:
    qemu().close()
    old = old_kernel(Paging.X86_64, size)
    with Pc(stage.board_for(old)) as pc:
        told = stage.after_firmware(pc)
        area = bytes(pc.ram.read(Extent(0xF0000, 0x10_0000)))
    assert all(covered(extent, told) for extent in old.memory.ram)
    assert sum(e.size for e in told) - sum(e.size for e in old.memory.ram) <= 256 << 10
    assert b"RSD PTR " in area, "the firmware has made ACPI tables"


@pytest.mark.parametrize("size", [0, 255, 3584, 1 << 40])
def test_a_pc_that_cannot_be_is_refused(size: int) -> None:
    with pytest.raises(HostError, match="is not between"):
        host.example(pc=size)


@pytest.mark.parametrize("paging", list(Paging))
def test_every_mode_has_an_example_on_a_pc(paging: Paging) -> None:
    old = host.read(host.example(paging, pc=256), "a PC")
    assert old.paging is paging
    assert old.rsdp is None
    assert old.memory.ram[-1].end == 256 * MIB - (256 << 10)


def test_ram_is_split_where_the_pc_splits_it() -> None:
    assert extents_of(3583 * MIB, split=False) == (Extent(0, 0xDFF0_0000),)
    assert extents_of(4096 * MIB, split=True) == (
        Extent(0, 0xC000_0000),
        Extent(0x1_0000_0000, 0x1_4000_0000),
    )


def test_a_pc_stands_at_its_reset_vector_and_takes_registers() -> None:
    qemu().close()
    with Pc(stage.board_for(old_kernel(Paging.X86_64))) as pc:
        assert pc.registers()["rip"] == 0xFFF0
        pc.set_register("rbx", 0x1122_3344)
        assert pc.registers()["rbx"] == 0x1122_3344
        assert cpu.registers(pc).gdt == (0, 0xFFFF)
        with pytest.raises(MachineError, match="refused nonsense"):
            pc.qmp("nonsense")
        # Memory is one: what is written here is read there.
        pc.ram.write(0x5000, b"tightrope")
        assert pc.gdb(b"m5000,9") == b"tightrope".hex().encode()


def test_a_dump_without_tables_is_an_error() -> None:
    with pytest.raises(WireError, match="no GDT"):
        cpu.tables("RAX=0")


LOG = """\
     0: v=20 e=0000 i=0 cpl=0 IP=0010:0 pc=0 SP=0018:0 env->regs[R_EAX]=0
     1: v=80 e=0000 i=1 cpl=0 IP=0010:0 pc=0 SP=0018:0 env->regs[R_EAX]=0
check_exception old: 0xffffffff new 0xe
     2: v=0e e=0010 i=0 cpl=0 IP=0010:0000000000001234 pc=0000000000001234 SP=0018:00ff CR2=abcd
     3: v=08 e=0000 i=0 cpl=0 IP=0010:0000000000001234 pc=0000000000001234 SP=0018:00ff EAX=0
"""


def test_the_first_exception_is_taken_from_the_log() -> None:
    raised = exceptions.first(LOG)
    assert raised is not None
    assert (raised.vector, raised.error_code, raised.pc) == (14, 0x10, 0x1234)
    assert (raised.address, raised.stack) == (0xABCD, 0xFF)
    assert exceptions.first("SMM: enter\n") is None
