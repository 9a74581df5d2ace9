"""`tightrope inspect`: what a kernel image is."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tightrope.cli import files
from tightrope.cli.arguments import FORMATS, flat, shown
from tightrope.cli.command import FINDING, HOLDS, UNKNOWN, command
from tightrope.cli.show import ready, show
from tightrope.errors import ImageError, MissingPart

if TYPE_CHECKING:
    from tightrope.errors import TightropeError


def kernel(parser: ArgumentParser) -> None:
    """The image."""
    one = parser.add_mutually_exclusive_group(required=True)
    one.add_argument("kernel", metavar="KERNEL", nargs="?", help=FORMATS)
    one.add_argument(
        "--shipped", action="store_true", help="the small kernel that comes with tightrope"
    )


@command(
    "inspect",
    help="what a kernel image is, what it asks of memory, what entry points it has",
    takes=(kernel, flat, shown),
    examples=(
        "tightrope inspect /boot/vmlinuz",
        "tightrope inspect --shipped --json",
    ),
)
def inspect(options: Namespace) -> int:
    from tightrope import image
    from tightrope.deeds import defaults
    from tightrope.views.inspection import VIEW, Inspected

    ready(options, [options.kernel])
    if options.shipped:
        read, _, _ = defaults.shipped(None, "")
    else:
        read = files.kernel_image(options, options.kernel)
    unpacked: bytes | TightropeError | None
    try:
        unpacked = image.unpack(read) if read.payload else None
    except (ImageError, MissingPart) as err:
        unpacked = err
    show(options, VIEW, Inspected(read, unpacked))
    if isinstance(unpacked, MissingPart):
        return UNKNOWN
    return FINDING if isinstance(unpacked, ImageError) else HOLDS
