"""The way in and the destinations: what a loader hands to a kernel that finds the rest itself.

Rules: the way in comes first (`entering`), because it says what is laid; then the destinations
(`place`, or `taken` of another loader's).  What cannot be asked whatever the image is is refused
before.  No numpy is needed for an image that Linux starts: this is what an initramfs has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tightrope.errors import PlanError
from tightrope.model import Host, Image, Protocol, XenInterface
from tightrope.plan.entering import Way, laid_for, way_in
from tightrope.plan.place import Placed, place
from tightrope.plan.request import Request


@dataclass(frozen=True, kw_only=True, slots=True)
class Destinations:
    """The segments, and what was decided on the way to them."""

    image: Image
    """As it is laid."""
    walked: Host
    """The host as the code sees it that walks."""
    request: Request
    """With what the image carries, or another loader has said."""
    way: Way
    placed: Placed


def destinations(image: Image, host: Host, request: Request) -> Destinations:
    """Where everything goes.  Raises PlanError; nothing is read or written but the arguments."""
    _refuse(host, request)
    walked = host
    if request.xen:
        from tightrope.plan import xen

        walked = xen.as_walked(host, request.xen)
    loaded = request.loaded
    if loaded is not None:
        from tightrope.plan import taken

        request = replace(request, protocol=taken.protocol(image, walked, loaded))
        image, way = _way(image, host, walked, request)
        placed = taken.take(image, loaded, way.entry)
        request = taken.told(placed, _carried(image, request))
    else:
        image, way = _way(image, host, walked, request)
        request = _carried(image, request)
        placed = place(image, host, walked, request, way)
    return Destinations(image=image, walked=walked, request=request, way=way, placed=placed)


def _refuse(host: Host, request: Request) -> None:
    """Raise PlanError for what cannot be asked, whatever the image is."""
    if host.xen is not None and request.xen is None:
        raise PlanError(
            "the host is a hypervisor: say how dom0 asks for the jump, --xen v1 or --xen v2",
            source=host.source,
            field="xen",
        )
    if request.backup and not request.crash:
        raise PlanError(
            "only a crash kexec saves low memory", source="command line", field="backup"
        )
    if request.loaded is not None and (request.xen or request.modules):
        raise PlanError("takes no modules, and no hypervisor", source=request.loaded.source)
    if request.scatter is not None and request.scatter < 0:
        raise PlanError(
            f"{request.scatter} is not a seed: they are whole numbers from 0 up",
            source="command line",
            field="scatter",
            limit=0,
        )


def _way(image: Image, host: Host, walked: Host, request: Request) -> tuple[Image, Way]:
    """The way into the image, and the image as it is laid for that."""
    wanted = request.protocol
    if request.xen:
        from tightrope.plan import xen

        bits = xen.hypervisor(host, request.xen).dom0.bits
        if wanted is None and request.xen is XenInterface.V2 and bits == 32:
            wanted = Protocol.LINUX_32  # a 32-bit kexec-tools loads for EM_386
    image = laid_for(image, wanted)
    way = way_in(image, walked, wanted)
    if request.xen is XenInterface.V2:
        from tightrope.plan import xen

        way = xen.exit_through(way)
    return image, way


def _carried(image: Image, request: Request) -> Request:
    """The request with what the image carries where it asks for nothing of its own."""
    if request.initrd is None and image.initrd is not None:
        request = replace(request, initrd=image.initrd, initrd_source=image.source)
    if not request.command_line and image.command_line is not None:
        request = replace(request, command_line=image.command_line)
    return request
