"""Whose dump it is: what VMCOREINFO, the CPUs' notes, the log and the symbols in memory say.

    VMCOREINFO   OSRELEASE, CRASHTIME          NT_PRSTATUS   a CPU's registers
    the log      the line of the panic         kallsyms      where a CPU stood, tainted_mask

Sources: Linux Documentation/admin-guide/kdump/vmcoreinfo.rst (the keys), kernel/panic.c ("Kernel
panic - not syncing", tainted_mask), arch/x86/kernel/dumpstack.c (what an oops begins with).

Rules: each answer stands alone: what one teller has lost is said in `untold`, and the others speak.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType

from tightrope.abi.elf_notes import PRSTATUS
from tightrope.errors import CoreError
from tightrope.memory import Extent, subtract
from tightrope.model.dead import Belonging, Dead, Match, Stopped
from tightrope.model.dump import Core
from tightrope.model.host import Host
from tightrope.model.notes import EM_X86_64
from tightrope.printk import PANIC, NoLog, Record, log
from tightrope.vmcore.dead import memory_of
from tightrope.vmcore.root import find_root
from tightrope.vmcore.symbols import Symbols, symbols

OOPS = (
    "BUG: ",
    "Oops: ",
    "general protection fault",
    "kernel BUG at",
    "Unable to handle",
    "sysrq: ",
)
"""How a line begins that says why, before the panic's own, which may say "Fatal exception"."""
_USER = 3
"""The privilege level in a code segment selector."""


def information(core: Core, host: Host | None = None) -> Dead:
    """What a dump says of its kernel, held against a host file where there is one."""
    untold: list[str] = []
    names: Symbols | None = None
    records: tuple[Record, ...] = ()
    tainted = None
    try:
        memory = memory_of(core, find_root(core))
    except CoreError as err:
        untold.append(f"the log, symbols: {err.problem}")
    else:
        try:
            records = tuple(log(memory))
        except NoLog as err:
            untold.append(f"the log: {err}")
        names = symbols(memory)
        if names is None:
            untold.append("where CPUs stood, taint: no symbols of the kernel's own in the dump")
        elif (at := names.address("tainted_mask")) is not None:
            tainted = int.from_bytes(memory.bytes(at, memory.word) or b"", "little")
    return Dead(
        core=core,
        release=core.notes.vmcoreinfo.get("OSRELEASE"),
        crashed=core.notes.number("CRASHTIME"),
        panic=_panic(records),
        cpus=tuple(_stopped(core, names)),
        tainted=tainted,
        log=records,
        held=sum(each.size for each in core.extents),
        described=sum(each.size for each in core.described.extents),
        untold=tuple(untold),
        match=None if host is None else _match(core, host),
    )


def _panic(records: Iterable[Record]) -> str | None:
    """The last panic's line; what was wrong before it, where it only says that something was."""
    reason = why = None
    for record in records:
        line = record.text.split("\n", 1)[0]
        if line.startswith(OOPS):
            reason = line
        if line.startswith(PANIC):
            why = line
            if "Fatal exception" in line and reason is not None:
                why = f"{line}; {reason}"
    return why or reason


def _stopped(core: Core, names: Symbols | None) -> Iterable[Stopped]:
    layout = PRSTATUS[8 if core.machine == EM_X86_64 else 4]
    for note in core.notes.prstatus:
        end = layout.registers + len(layout.names) * layout.word
        raw = note[layout.registers : end] if len(note) >= end else b""
        words = [
            int.from_bytes(raw[at : at + layout.word], "little")
            for at in range(0, len(raw), layout.word)
        ]
        found = dict(zip(layout.names, words, strict=False)) if any(words) else {}
        at = found.get("rip", found.get("eip", 0))
        user = found.get("cs", 0) & _USER == _USER
        yield Stopped(
            pid=int.from_bytes(note[layout.pid : layout.pid + 4], "little"),
            registers=MappingProxyType(found),
            at=at,
            user=user,
            place=names.place(at) if names is not None and found and not user else None,
        )


def _match(core: Core, host: Host) -> Match:
    """Held against a host file: where the text was, how tables are, which memory there is.

    The text's place is another at each boot where KASLR is on, so that it tells boots apart.
    """
    agree: list[str] = []
    differ: list[str] = []

    def held(same: bool, what: str, here: str, there: str) -> None:
        if same:
            agree.append(f"{what}: {here}")
        else:
            differ.append(f"{what}: {here} in the dump, {there} in {host.source}")

    try:
        root = find_root(core)
    except CoreError:
        root = None
    if root is not None:
        held(root.paging is host.paging, "page tables", root.paging.value, host.paging.value)
        text = next((each for each in root.anchors if each.name == "_stext"), None)
        if text is not None:
            into = text.virt - host.text.virt
            same = 0 <= into < host.text.size and text.phys == host.text.phys + into
            there = f"{host.text.virt:#x} at {host.text.phys:#x}"
            held(same, "the kernel's text", f"{text.virt:#x} at {text.phys:#x}", there)
    beyond = subtract(core.described.extents, _ram(host))
    held(
        not beyond,
        "memory",
        "all of it is RAM of the host's" if not beyond else str(beyond[0]),
        "no RAM there",
    )
    if differ:
        belonging = Belonging.APART
    else:
        told = any(each.startswith("the kernel's text") for each in agree)
        belonging = Belonging.TOGETHER if told else Belonging.UNTOLD
    return Match(belonging=belonging, source=host.source, agree=tuple(agree), differ=tuple(differ))


def _ram(host: Host) -> tuple[Extent, ...]:
    """A host's RAM, in whole pages and with what firmware keeps."""
    kept = (*host.memory.ram, *(each.extent for each in host.firmware))
    return tuple(Extent(each.start & -4096, -(-each.end // 4096) * 4096) for each in kept)
