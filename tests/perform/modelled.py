"""The model's hypervisor as a port: `tests.stand_ins.hypervisor.Hypervisor` behind `perform.privcmd.Hypercalls`.

Rules: only kexec_op; the model is handed each structure's bytes and its answer is copied back.
"""

from __future__ import annotations

from tests.perform.fake import Memory
from tests.stand_ins.hypervisor import Hypervisor
from tightrope.model import Host
from tightrope.perform.privcmd import HypercallFailed

SIZES = {0: 4, 1: 160, 2: 160, 3: 24, 4: 24, 5: 1, 6: 1}
"""Bytes of each command's structure (xen/include/public/kexec.h)."""


class Modelled:
    """Answers as the model of a host's hypervisor does."""

    def __init__(self, host: Host) -> None:
        self._memory: list[Memory] = []
        self._hypervisor = Hypervisor(host, self._read)

    def _read(self, address: int, size: int) -> bytes | None:
        for each in self._memory:
            at = address - each.address
            if at >= 0 and at + size <= len(each.data):
                return bytes(each.data[at : at + size])
        return None

    def buffer(self, size: int) -> Memory:
        """Kept for good."""
        self._memory.append(Memory((1 + len(self._memory)) << 32, size))
        return self._memory[-1]

    def call(self, number: int, *arguments: int) -> int:
        """One kexec_op."""
        assert number == 37
        command, address = arguments
        memory = next(each for each in self._memory if each.address == address)
        size = SIZES.get(command, len(memory.data))
        argument = bytearray(memory.view[:size])
        got = self._hypervisor.kexec_op(command, argument)
        memory.view[:size] = argument
        if got < 0:
            raise HypercallFailed(-got)
        return got
