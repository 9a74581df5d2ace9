"""QEMU's log of exceptions, read: which line is the first exception of a walk."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.machine.qemu import exceptions


def line(vector: int, *, soft: int = 0, number: int = 0, code: int = 0) -> str:
    """As do_interrupt_all() writes it (QEMU target/i386/tcg/seg_helper.c)."""
    tail = "CR2=0000000000001234" if vector == 14 else "env->regs[R_EAX]=0000000000000000"
    return (
        f"{number:6d}: v={vector:02x} e={code:04x} i={soft} cpl=0 IP=0010:0000000001000200"
        f" pc=0000000001000200 SP=0018:0000000000090000 {tail}\n"
    )


def test_the_first_exception_is_read_whole() -> None:
    raised = exceptions.first(line(14, code=0x10) + line(8, number=1))
    assert raised is not None
    assert (raised.vector, raised.error_code, raised.pc) == (14, 0x10, 0x100_0200)
    assert (raised.stack, raised.address) == (0x9_0000, 0x1234)


@pytest.mark.parametrize(
    ("before", "vector"),
    [("", 6), (line(3, soft=1), 6), (line(13, soft=1), 6), (line(32), 6), (line(255), 6)],
    ids=["nothing", "int3", "int 13", "an interrupt", "another"],
)
def test_software_and_hardware_interrupts_are_none(before: str, vector: int) -> None:
    raised = exceptions.first(before + line(vector, number=1))
    assert raised is not None
    assert raised.vector == vector
    assert exceptions.first(before) is None


@given(st.lists(st.tuples(st.integers(0, 255), st.booleans())))
def test_of_any_log_it_is_the_first_that_the_cpu_raised(rows: list[tuple[int, bool]]) -> None:
    log = "".join(line(vector, soft=int(soft)) for vector, soft in rows)
    wanted = [vector for vector, soft in rows if vector < 32 and not soft]
    raised = exceptions.first(log)
    assert (raised and raised.vector) == (wanted[0] if wanted else None)
