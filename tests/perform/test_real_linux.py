"""Debian's Linux in QEMU: what it answers to a load is what was told beforehand, row by row.

here   ->  the guest's console: a kernel, and questions (asked_linux.py)
guest  ->  here: (what was asked, the kernel's errno, the errnos that were told)
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import debian_kernel
from tests.perform import asked_linux
from tests.perform.dom0 import BareLinux


@pytest.mark.parametrize("crash", ["128M", ""])
def test_every_refusal_is_told_beforehand(crash: str) -> None:
    with BareLinux(crash=crash).up() as guest:
        guest.put(asked_linux.KERNEL, debian_kernel("cloud-amd64").read_bytes())
        guest.put("asked_linux.py", Path(asked_linux.__file__).read_bytes())
        status, lines = guest.do("python asked_linux.py")
    assert status == 0, "\n".join(lines)
    rows: list[tuple[str, int, list[int | None]]] = json.loads(lines[-1])
    wrong = [
        (name, got, told)
        for name, got, told in rows
        if (got not in told if got else [each for each in told if each is not None])
    ]
    assert not wrong
    assert {0, 1, 22, 99} <= {got for _, got, _ in rows}
