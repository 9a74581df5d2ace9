"""Tightrope takes a machine from one kernel to the next without falling.

`plan` says where every byte goes, `rehearse` walks the handover on a watched CPU.  The names in
`__all__` are stable: they are imported from their rooms when they are first asked for, and
importing this package imports nothing else.

    from tightrope import Request, rehearse, read_image, read_host, example_host

    errors         what an exception says, and how a user's mistake is worded
    choices        which words of the command line stand for a value of the hall
    memory         what an address, an extent and a map of memory are
    lzo            how LZO1X is unpacked
    abi/           what other people's layouts are: boot protocols, ELF, Xen, KVM
    x86/           what the CPU does: bits, legal writes, page tables, the walk
    model/         what the finished values are that flow between rooms
    routines/      what the assembled code is
    observe/       what is seen of a walk, whoever executes it
    image/         what a kernel file is, and what it asks for
    host/          what the old kernel's machine is
    world/         what lies in that machine's memory at the call
    plan/          where every byte goes
    participants/  which programs run on the way, and by which contract
    handover/      which page tables and page list are built
    machine/       who executes a walk
    check/         what must hold, a rule each
    sabotage/      how each rule is broken on purpose
    vmcore/        what a dead kernel's page tables say
    kdump/         how a crash kernel saves the dead one's memory
    printk/        what a dead kernel's log says
    corpse/        what a log says of a kexec that failed
    record/        what a command would have loaded
    views/         what a command shows
    report/        how that is written: text, HTML, JSON
    shipped/       what the small kernel is that comes with us
    deeds/         what library users call, and what is taken where nobody says
    prove/         what holds for every memory map
    perform/       what is done on a real machine, and what it refuses
    cli/           which words there are, and the exit status
    testing/       what pytest is given

May import: deeds, errors, host, image, model, plan, vmcore
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tightrope.deeds.agree import agree as agree
    from tightrope.deeds.compare import compare as compare
    from tightrope.deeds.defaults import example as example_host
    from tightrope.deeds.defaults import shipped as shipped_kernel
    from tightrope.deeds.machines import opened as opened
    from tightrope.deeds.matrix import matrix as matrix
    from tightrope.deeds.rehearse import prepare as prepare
    from tightrope.deeds.rehearse import rehearse as rehearse
    from tightrope.errors import TightropeError as TightropeError
    from tightrope.host import read as read_host
    from tightrope.image import read as read_image
    from tightrope.model import Host as Host
    from tightrope.model import Image as Image
    from tightrope.model import Outcome as Outcome
    from tightrope.model import Paging as Paging
    from tightrope.model import Plan as Plan
    from tightrope.model import Verdict as Verdict
    from tightrope.plan import Request as Request
    from tightrope.vmcore import pgd as pgd
    from tightrope.vmcore import read as read_core

__version__ = "0.1.0"

_HOMES = {
    "Host": "model",
    "Image": "model",
    "Outcome": "model",
    "Paging": "model",
    "Plan": "model",
    "Request": "plan",
    "TightropeError": "errors",
    "Verdict": "model",
    "agree": "deeds.agree",
    "compare": "deeds.compare",
    "matrix": "deeds.matrix",
    "opened": "deeds.machines",
    "pgd": "vmcore",
    "prepare": "deeds.rehearse",
    "rehearse": "deeds.rehearse",
}
_RENAMED = {
    "example_host": ("deeds.defaults", "example"),
    "read_core": ("vmcore", "read"),
    "read_host": ("host", "read"),
    "read_image": ("image", "read"),
    "shipped_kernel": ("deeds.defaults", "shipped"),
}
"""Names that say in their room what they say here with a noun."""

__all__ = [
    "Host",
    "Image",
    "Outcome",
    "Paging",
    "Plan",
    "Request",
    "TightropeError",
    "Verdict",
    "__version__",
    "agree",
    "compare",
    "example_host",
    "matrix",
    "opened",
    "pgd",
    "prepare",
    "read_core",
    "read_host",
    "read_image",
    "rehearse",
    "shipped_kernel",
]


def __getattr__(name: str) -> object:
    """A stable name, from the room that has it."""
    room, there = _RENAMED.get(name, (_HOMES.get(name), name))
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{room}"), there)


def __dir__() -> list[str]:
    """What there is, imported or not."""
    return sorted({*globals(), *__all__})
