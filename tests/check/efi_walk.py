"""A walk on an EFI machine into a kernel that takes EFI, for rules about what it is told."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from tests.makers.bzimage import bzimage, put
from tests.makers.efi import EFI
from tests.makers.hosts import small_host
from tightrope import image
from tightrope.deeds.rehearse import build
from tightrope.machine.unicorn import Emulator
from tightrope.model import Efi, Handover, Host, Run
from tightrope.participants import OURS
from tightrope.plan import Request, prepare

XLOADFLAGS = 0b1_0011
"""XLF_KERNEL_64, XLF_CAN_BE_LOADED_ABOVE_4G, XLF_EFI_KEXEC."""
KERNEL = put(bzimage(), "xloadflags", XLOADFLAGS)


def with_efi(efi: Efi | None) -> Host:
    return replace(small_host(), efi=efi)


def handover(host: Host, kernel: bytes = KERNEL) -> Handover:
    read = image.read(kernel, "bzImage")
    return build(prepare(read, host, Request(command_line="ro")), design=OURS)


def walked(host: Host, kernel: bytes = KERNEL) -> tuple[Handover, Run]:
    made = handover(host, kernel)
    return made, Emulator().run(made)


@cache
def sound() -> tuple[Handover, Run]:
    return walked(with_efi(EFI))
