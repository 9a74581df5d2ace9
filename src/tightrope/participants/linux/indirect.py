"""Where a 32-bit function makes its last call through a register.

    call *%eax                       as it is patched on CPUs that need no retpoline
    call __x86_indirect_thunk_eax    a retpoline (arch/x86/lib/retpoline.S)

Rules: straight on, no branch is followed; machine_kexec() of Linux 6.1 calls its relocation code
so.
"""

from __future__ import annotations

from collections.abc import Mapping

from tightrope.errors import MissingPart

NAMES = ("eax", "ebx", "ecx", "edx", "esi", "edi", "ebp", "esp")


def last_call(code: bytes, ip: int, thunks: Mapping[int, str]) -> tuple[int, str] | None:
    """The call's address and its register's name; None where there is none.

    `thunks` are addresses of retpolines, each with its register.  Raises MissingPart without
    iced-x86.
    """
    try:
        import iced_x86 as x
    except ImportError as err:
        raise MissingPart("iced-x86 is not installed: install tightrope[rehearse]") from err
    names = {getattr(x.Register, each.upper()): each for each in NAMES}
    found = None
    for each in x.Decoder(32, code, ip=ip):
        if each.mnemonic != x.Mnemonic.CALL:
            continue
        if each.op0_kind == x.OpKind.REGISTER:
            found = (each.ip, names[each.op0_register])
        elif each.near_branch_target in thunks:
            found = (each.ip, thunks[each.near_branch_target])
    return found
