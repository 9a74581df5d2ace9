"""kexec on bare Linux: what it says, what it would refuse, load, unload, jump.

    state      what the running kernel says of itself
    refusals   what it would answer to a load, and why
    signature  who signed an image, and whether it is still what was signed
    digest     the purgatory's digests, made by its own code
    calls      the two system calls and reboot(2), as a port
    kexec      load, unload and go, in that order of care
    kdump      what brings back a crash image that a failed load has dropped
    kept       what was loaded last, as paths and digests
    readback   what the kernel says after a load, against what was asked for
    lock       one who changes what is loaded at a time

Rules: everything is checked before anything is asked.  Only the standard library.

May import: abi, errors, memory, routines
"""
