"""What an old kernel's own handlers print of a fault: Linux 7.x brings 16 along.

    Exc:000000000000000e        the vector, the error code, rip, rsp, the registers, CR2
    Err:0000000000000002
    ...

They print only where the old kernel was told of a serial port (earlyprintk=serial), and then
halt; after a breakpoint they go on.

Source: arch/x86/kernel/relocate_kernel_64.S of Linux 7.3, exc_handler, read as machine code;
Debian's 7.2 and 7.3 have the same.

Rules: only a fault that was delivered through the gates of the contract is printed by them.
"""

from __future__ import annotations

from tightrope.model import Verdict

NAMES = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", *(f"r{number}" for number in range(8, 16)))


def printed(verdict: Verdict) -> tuple[str, ...]:
    """The lines; none where the machine would reset, or the old kernel has no such handlers."""
    run, code = verdict.run, verdict.handover.relocation_code
    gates, fault = code.contract.gates, run.fault
    if gates is None or fault is None or fault.triple or fault.vector >= gates.count:
        return ()
    offset = code.code.symbols.get(gates.idt)
    if offset is None or run.registers.idt[0] != verdict.handover.intent.control_page + offset:
        return ()
    general = run.registers.general
    cr2 = run.registers.cr2 if fault.address is None else fault.address
    rows = (
        ("Exc", fault.vector),
        ("Err", fault.error_code or 0),
        ("rip", int(fault.rip)),
        ("rsp", general["rsp"]),
        *((name, general[name]) for name in NAMES),
        ("cr2", cr2),
    )
    return tuple(f"{name:<3}:{value:016x}" for name, value in rows)
