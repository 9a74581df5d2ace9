"""A machine's /proc and /sys as a host file: this machine's, or a copy of another's.

    tree       which files are read; the only file here that opens any
    iomem      /proc/iomem, /sys/firmware/memmap
    zero_page  /sys/kernel/boot_params
    kernel     /proc/kallsyms, /proc/kcore, the version
    cpuinfo    /proc/cpuinfo, /proc/meminfo, the control registers that follow
    kexec      /sys/kernel/kexec, vmcoreinfo, crash notes
    efi        /sys/firmware/efi
    under_xen  whether this Linux runs under Xen, and as what

    sources    all of them, each parsed once
    origins    where each field comes from
    limits     mem= and memmap=, where /proc/iomem does not tell what they left
    crashkernel    its regions, where /proc/iomem does not tell them
    places     where things lie in memory
    describe   the host file
    collect    what is done where nothing is installed: print the files as they are
    firmware   what the firmware left: RSDP, EFI, what new kernels read early

Rules: it runs where nothing is installed: the standard library and no more.

May import: abi, errors, host.schema, memory, model, x86
"""

from tightrope.host.capture.describe import Captured, capture
from tightrope.host.capture.tree import read_copy, read_tree

__all__ = ["Captured", "capture", "read_copy", "read_tree"]
