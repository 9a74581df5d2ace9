"""Sound handovers to flip bits in: every mode, plain and for a crash, through Xen, and Linux's own
code.

    bare      random old kernels in little memory, this project's designs
    xen       v1 and v2 of its interface, with each width of dom0 that there was
    linux     random old kernels that jump with the relocation code of a real kernel's image

Rules: from a seed and a number alone; what cannot go together is drawn again.  Small images: what
a flip does in the first page that is copied it does in the thousandth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from random import Random

from tightrope import host
from tightrope.abi import boot
from tightrope.deeds.agree.cases import made_image, made_request
from tightrope.deeds.agree.hosts import random_host
from tightrope.deeds.old_kernel import OldKernel
from tightrope.deeds.rehearse import build
from tightrope.errors import BadInput, TightropeError
from tightrope.memory import Extent
from tightrope.model import Handover, Host, Image, Paging, Participant, Plan, XenCrash, XenInterface
from tightrope.participants import DESIGNS, OURS
from tightrope.participants.linux import Convention
from tightrope.plan import prepare

ATTEMPTS = 50
PAGES = 12
"""Pages of an image at most, with what it clears."""
INITRD = 9_000
XLOADFLAGS = 0x236
"""Offset of the field (boot.rst)."""
REGION = Extent.sized(0x4000_1000, 0x1000_0000)
"""The crash region of the example hypervisors."""
V1_DESIGNS = ("two-tables", "damm-v4")
"""Those whose pages interface v1 has slots for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Who jumps, in which mode, and whether it is for a crash."""

    paging: Paging
    crash: bool = False
    xen: XenInterface | None = None
    dom0_bits: int | None = None
    linux: Convention | None = None
    """With the relocation code of a real kernel, which whoever asks has to bring."""

    @property
    def says(self) -> str:
        """In a few words."""
        under = f", Xen {self.xen.value} with a {self.dom0_bits}-bit dom0" if self.xen else ""
        under += f", {self.linux}" if self.linux else ""
        return f"{self.paging.value}{under}{', crash' if self.crash else ''}"


BARE = tuple(Way(paging=paging, crash=crash) for paging, crash in product(Paging, (False, True)))
XEN = tuple(
    Way(paging=paging, xen=interface, dom0_bits=bits, crash=crash)
    for (paging, interface, bits), crash in product(
        (
            (Paging.I386, XenInterface.V1, 32),
            (Paging.PAE, XenInterface.V1, 32),
            (Paging.X86_64, XenInterface.V1, 64),
            (Paging.X86_64, XenInterface.V1, 32),
            (Paging.X86_64, XenInterface.V2, 64),
            (Paging.X86_64, XenInterface.V2, 32),
        ),
        (False, True),
    )
)
LINUX = tuple(
    Way(paging=paging, linux=convention, crash=crash)
    for (paging, convention), crash in product(
        (
            (Paging.X86_64, Convention.LINUX_6),
            (Paging.X86_64, Convention.LINUX_7),
            (Paging.LA57, Convention.LINUX_7),
            (Paging.I386, Convention.LINUX_I386),
            (Paging.PAE, Convention.LINUX_I386),
        ),
        (False, True),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A plan, its design and the handover that they make."""

    says: str
    plan: Plan
    design: str | Participant
    handover: Handover

    def build(self, plan: Plan) -> Handover:
        """The handover of another plan, in the same design."""
        return build(plan, design=self.design)


def base(seed: int, number: int, way: Way, old: OldKernel | None = None) -> Base:
    """The handover `number` of a seed that goes a way; `old` is the kernel of a `linux` one.

    Raises BadInput where nothing can be made of it.
    """
    random = Random(f"{seed}:{number}:{way.says}")
    for _ in range(ATTEMPTS):
        try:
            design, plan = _planned(random, way, old)
            handover = build(plan, design=design)
        except (TightropeError, ValueError):
            continue  # host, image and request cannot go together
        name = design if isinstance(design, str) else design.name
        return Base(says=f"{way.says}, {name}", plan=plan, design=design, handover=handover)
    raise BadInput(f"nothing can be made of base {number}", source="flips")


def _planned(random: Random, way: Way, old: OldKernel | None) -> tuple[str | Participant, Plan]:
    design: str | Participant = random.choice([*DESIGNS, OURS, OURS])
    request = made_request(random, crash=way.crash, initrd=INITRD)
    if way.xen is not None:
        described = _hypervisor(way.paging, way.xen, way.dom0_bits)
        design = random.choice(V1_DESIGNS) if way.xen is XenInterface.V1 else OURS
        crashed = random.choice([*XenCrash])
        request = replace(request, xen=way.xen, crashed=crashed)
    else:
        described = random_host(random, way.paging)
    if way.linux is not None:
        if old is None or old.found.convention is not way.linux:
            raise BadInput(f"the relocation code of {way.linux} is not given", source="flips")
        described, design = old.host(described), old.participant
        request = old.request(request)
    image = made_image(random, pages=PAGES)
    if random.random() < 0.7:
        image = _with_five_levels(image)
    return design, prepare(image, described, request)


def _with_five_levels(image: Image) -> Image:
    """The image with XLF_5LEVEL, which the 64-bit entry has to have where the old kernel runs
    so."""
    flags = image.xloadflags | boot.XLoadFlags.XLF_5LEVEL
    header, at = bytearray(image.setup_header), XLOADFLAGS - boot.SETUP_HEADER
    header[at : at + 2] = flags.to_bytes(2, "little")
    return replace(image, xloadflags=flags, setup_header=bytes(header))


@cache
def _hypervisor(paging: Paging, interface: XenInterface, bits: int | None) -> Host:
    text = host.xen_example(paging, interface, dom0_bits=bits, crash=REGION)
    return host.read(text, "an example hypervisor")
