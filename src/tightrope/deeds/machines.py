"""The machines that a handover can be walked on, by the names of the command line.

    with machines.opened("kvm") as machine:
        rehearse(image, host, request, machine=machine)

Rules: a machine is imported only when it is asked for, because engines take longer to load than
most commands run.  A machine holds processes, devices and memory: whoever makes one closes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from tightrope.errors import BadInput, MissingPart

if TYPE_CHECKING:
    from tightrope.machine.port import Machine


def emulator() -> Machine:
    """Unicorn, watched by our own MMU: it sees everything that a rule asks for."""
    from tightrope.machine.unicorn import Emulator

    return Emulator()


def kvm() -> Machine:
    """This computer's own CPU, instruction by instruction."""
    from tightrope.machine.kvm import Kvm

    return Kvm()


def kvm_free() -> Machine:
    """This computer's own CPU at full speed: only where the walk ends is seen."""
    from tightrope.machine.kvm import Kvm, Pace

    return Kvm(Pace.FREE)


def qemu() -> Machine:
    """A whole PC: seen at a few places only, and it goes on to the new kernel's userspace."""
    from tightrope.machine.qemu import Qemu

    return Qemu()


def qemu_kvm() -> Machine:
    """A whole PC whose CPU is this computer's own, where a probe shows that it boots."""
    from tightrope.machine.kvm.capability import capability
    from tightrope.machine.kvm.device import Device
    from tightrope.machine.kvm.kvm import lacks
    from tightrope.machine.qemu import Qemu, acceleration

    Device().close()  # what stands in the way of any use of KVM is said before a PC is tried
    return Qemu(
        acceleration=acceleration.kvm(), lacks=lambda handover: lacks(capability(), handover)
    )


def unicorn() -> Machine:
    """Unicorn by itself, with its own MMU and no checks: what the emulator is compared with."""
    from tightrope.machine.unicorn.alone import Alone

    return Alone()


MACHINES: Mapping[str, Callable[[], Machine]] = {
    "emulator": emulator,
    "unicorn": unicorn,
    "kvm": kvm,
    "kvm-free": kvm_free,
    "qemu": qemu,
    "qemu-kvm": qemu_kvm,
}
"""Name -> what makes one.  It raises MissingPart for what has to be installed on this computer."""


def named(name: str) -> Machine:
    """A new machine.  Raises BadInput for an unknown name, MissingPart for one that this computer
    cannot run."""
    make = MACHINES.get(name)
    if make is None:
        raise BadInput(f"{name!r} is none of {', '.join(MACHINES)}", source="--on")
    return make()


@contextmanager
def opened(name: str) -> Iterator[Machine]:
    """A new machine, closed afterwards, also when the work inside was interrupted."""
    machine = named(name)
    try:
        yield machine
    finally:
        machine.close()


@contextmanager
def present() -> Iterator[list[Machine]]:
    """The quick machines available here: the emulator, unicorn, and kvm-free where there is a
    KVM."""
    with ExitStack() as stack:
        made = [stack.enter_context(opened(name)) for name in ("emulator", "unicorn")]
        with suppress(MissingPart):
            made.append(stack.enter_context(opened("kvm-free")))
        yield made
