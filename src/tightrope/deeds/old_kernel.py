"""The old kernel's own code instead of ours: its relocation code, and what its C code does around
it.

    code = read(Path("/boot/vmlinuz-6.12.118+deb13-amd64").read_bytes(), "vmlinuz")
    verdict = rehearse(new, code.host(old), code.request(Request()), design=code.participant)

Rules: a host file says where V is where the old kernel runs; where it does not, the image does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tightrope.errors import BadInput
from tightrope.image import vmlinux
from tightrope.memory import PAGE_SIZE, Virt
from tightrope.model import Buffer, Host, Participant, Trees, XenInterface
from tightrope.model.vmlinux import Symbols
from tightrope.participants import xen
from tightrope.participants.linux import Convention, Found, find
from tightrope.participants.linux import participant as as_participant
from tightrope.plan import Request


@dataclass(frozen=True, kw_only=True, slots=True)
class OldKernel:
    """An old kernel's relocation code, and where it lies in the kernel's image."""

    found: Found
    participant: Participant

    def host(self, host: Host) -> Host:
        """The host with V where this kernel has it.

        The control page in the direct map (6.14 and later, i386), which only a plan knows, or a
        page of the kernel's text: the host's own where it says one.  Raises BadInput for a host of
        another width.
        """
        narrow = self.found.convention is Convention.LINUX_I386
        if narrow == host.paging.long_mode:
            bits = 32 if narrow else 64
            modes = "i386 or pae" if narrow else "x86_64 or la57"
            raise BadInput(
                f"is a {bits}-bit kernel, and {host.source} has {host.paging.value} paging: --mode {modes}",
                source=self.found.source,
            )
        if self.found.convention is not Convention.LINUX_6:
            return replace(host, relocation=None)
        if host.relocation is not None:
            return host
        behind = self.found.virt - self.found.text
        behind = min(behind, host.text.size - PAGE_SIZE)
        return replace(host, relocation=Virt(host.text.virt + behind))

    def request(self, request: Request) -> Request:
        """The request with the tables that this kernel's C code builds."""
        trees = self.participant.contract.trees
        return replace(request, whole_memory=trees is Trees.WHOLE_MEMORY)


@dataclass(frozen=True, kw_only=True, slots=True)
class OldHypervisor:
    """A hypervisor's relocation code; its host file says where V is."""

    source: str
    participant: Participant

    def host(self, host: Host) -> Host:
        """The host itself.  Raises BadInput for one that is no hypervisor."""
        if host.xen is None:
            raise BadInput(
                f"is a hypervisor, and {host.source} describes none: say --xen v2",
                source=self.source,
            )
        return host

    def request(self, request: Request) -> Request:
        """The request itself.  Raises BadInput for one that goes another way than by interface
        v2."""
        if request.xen is not XenInterface.V2:
            raise BadInput(
                "is a hypervisor: its own code is called through interface v2, --xen v2",
                source=self.source,
            )
        return request


def code_of(data: Buffer, source: str) -> OldKernel | OldHypervisor:
    """The relocation code of a hypervisor's image, or of an old kernel's.  Raises as `read`
    does."""
    hypervisor = vmlinux.hypervisor(data, source)
    if hypervisor is None:
        return read(data, source)
    return OldHypervisor(source=source, participant=xen.participant(xen.find(hypervisor, source)))


def read(data: Buffer, source: str, symbols: Symbols | None = None) -> OldKernel:
    """The old kernel in an image.

    Raises ImageError when it has no relocation code, or one that is not known; MissingPart where a
    package is missing that it takes.
    """
    found = find(vmlinux.read(data, source, symbols))
    return OldKernel(found=found, participant=as_participant(found))
