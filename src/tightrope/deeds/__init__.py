"""The deeds: what library users call and the command line offers, each a composition of rooms.

    rehearse   plan, build, walk, check: the verdict of one jump
    unpacking  payload and initrd, unpacked beside the walk
    booted     the same from a real old kernel that QEMU has booted
    compare    rival designs on one host
    matrix     every mode, split and way through Xen, one table
    agree      random handovers on several machines, compared
    machines   the machines that this computer has, by name
    defaults   what is taken where nobody says
    performable  what a rehearsal leaves behind for `perform`

Rules: a deed opens no file and prints nothing; it decides what the command line must not.

May import: check, errors, handover, host, image, machine, memory, model, observe, participants, perform,
plan, sabotage, shipped, vmcore, world, x86
"""
