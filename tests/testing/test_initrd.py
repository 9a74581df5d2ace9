"""The guest that does nothing but leave: what its process asks of the kernel, and what it boots from."""

from __future__ import annotations

from typing import Any

import pytest
import unicorn
from unicorn.x86_const import (
    UC_X86_INS_SYSCALL,
    UC_X86_REG_R8,
    UC_X86_REG_R10,
    UC_X86_REG_RAX,
    UC_X86_REG_RDI,
    UC_X86_REG_RDX,
    UC_X86_REG_RIP,
    UC_X86_REG_RSI,
    UC_X86_REG_RSP,
)

from tightrope.errors import BadInput
from tightrope.image.initramfs import initrd_contents
from tightrope.testing.initrd import BASE, initrd, program
from tightrope.testing.leave import _refused

STACK = 0x7F_0000
WORDS = "console=ttyS0 a=b"
OPEN, LOAD, WRITE, READ, REBOOT, EXIT = 2, 320, 1, 0, 169, 231


class Process:
    """The program on a CPU whose kernel gives these answers; it ends behind the last."""

    def __init__(self, answers: dict[int, int]) -> None:
        self.asked: list[tuple[int, ...]] = []
        self._answers = answers
        data = program(WORDS)
        # Its types say nothing of themselves.
        engine: Any = unicorn
        self.cpu = engine.Uc(engine.UC_ARCH_X86, engine.UC_MODE_64)
        self.cpu.mem_map(BASE, 0x1000)
        self.cpu.mem_map(STACK, 0x1000)
        self.cpu.mem_write(BASE, data)
        self.cpu.reg_write(UC_X86_REG_RSP, STACK + 0x800)
        self.cpu.hook_add(unicorn.UC_HOOK_INSN, self._asks, None, 1, 0, UC_X86_INS_SYSCALL)
        self.cpu.emu_start(int.from_bytes(data[24:32], "little"), 0, count=200)

    def _asks(self, cpu: Any, _data: object) -> None:
        names = (UC_X86_REG_RDI, UC_X86_REG_RSI, UC_X86_REG_RDX, UC_X86_REG_R10, UC_X86_REG_R8)
        number = cpu.reg_read(UC_X86_REG_RAX)
        self.asked.append((number, *(cpu.reg_read(each) for each in names)))
        if number in self._answers:
            cpu.reg_write(UC_X86_REG_RAX, self._answers[number] & (1 << 64) - 1)
        if number in (REBOOT, EXIT):
            cpu.emu_stop()

    def text(self, at: int, size: int) -> bytes:
        return bytes(self.cpu.mem_read(at, size))


def test_it_loads_says_so_waits_and_leaves() -> None:
    ran = Process({OPEN: 3, LOAD: 0, WRITE: 18, READ: 1})
    assert [each[0] for each in ran.asked] == [OPEN, LOAD, WRITE, READ, REBOOT]
    opened, loaded, wrote, read, left = ran.asked
    assert ran.text(opened[1], 5) == b"/new\0"
    assert opened[2] == 0, "to be read"
    kernel, initrd_of_it, size, words, flags = loaded[1:]
    assert (kernel, initrd_of_it & 0xFFFF_FFFF, flags) == (3, 0xFFFF_FFFF, 4)
    assert ran.text(words, size) == WORDS.encode() + b"\0", "Linux wants the NUL counted"
    assert ran.text(wrote[2], wrote[3]) == b"tightrope: loaded\n"
    assert (read[1], read[3]) == (0, 1)
    assert left[1:4] == (0xFEE1_DEAD, 672274793, 0x4558_4543)
    assert ran.cpu.reg_read(UC_X86_REG_RIP) > BASE


@pytest.mark.parametrize(("answers", "error"), [({OPEN: -2}, 2), ({OPEN: 3, LOAD: -38}, 38)])
def test_what_fails_ends_it_with_the_errors_number(answers: dict[int, int], error: int) -> None:
    last = Process(answers).asked[-1]
    assert last[:2] == (EXIT, error)


def test_linux_would_unpack_what_it_boots_from() -> None:
    made = initrd(b"a kernel, odd", WORDS)
    found = initrd_contents(made)
    assert (found.flaw, found.untold) == (None, None)
    assert "5 entries" in found.what or "4 entries" in found.what
    assert b"a kernel, odd" in made


@pytest.mark.parametrize("words", ["a" * 2048, "a\0b"])
def test_a_command_line_that_linux_refuses_is_refused(words: str) -> None:
    with pytest.raises(BadInput, match="Linux takes 2047"):
        program(words)


def test_a_refusal_is_told_by_its_errno_and_the_consoles_end() -> None:
    # exitcode is wait's status: the code in bits 15:8 (kernel/exit.c, do_exit).
    text = "a line\nKernel panic: Attempted to kill init! exitcode=0x00002600\n"
    said = _refused(text)
    assert "ENOSYS (built without CONFIG_KEXEC_FILE)" in said
    assert "a line" in said
    assert "does not come up" in _refused("Kernel panic - not syncing: VFS\n")
