"""Xen's own relocation code, kexec_reloc: found in a hypervisor's image, with the contract of
interface v2.

    found    where a hypervisor has kexec_reloc, and what that is handed, touches and promises

Rules: the bytes are the user's hypervisor's and never shipped; what is not known for certain is an
ImageError.

May import: errors, memory, model
"""

from tightrope.participants.xen.found import find, participant

__all__ = ["find", "participant"]
