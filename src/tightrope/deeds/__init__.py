"""The deeds: what library users call and the command line offers, each a composition of rooms.

    rehearse     plan, build, walk, check: the verdict of one jump
    unpacking    payload and initrd, unpacked beside the walk
    beside       work in a thread of its own
    spoken       whose words a console has, and what they mean
    old_kernel   the relocation code of an old kernel's image, and the host that has it
    booted       a rehearsal from a real old kernel that QEMU has booted
    compare      rival designs on one host
    matrix       every mode, split and way through Xen, one table
    sweep        many hosts, one rehearsal for all that are alike
    agree        random handovers on several machines, compared
    flips        single bits changed, and what sees them
    machines     the machines that this computer has, by name
    doctor       what this computer has of what is used, and what is missing
    defaults     what is taken where nobody says
    performable  what a rehearsal leaves behind for `perform`
    surveyed     a load for the machine that is asked: surveyed, planned, rehearsed
    unrehearsed  the same without a walk, and without what only a walk asks
    loading      what a file holds, ready for this Linux to load
    segments     somebody else's segments: recorded, or as Linux would place them
    kexec_tools  kexec-tools asked where it would put a kernel on a described machine
    kdump_check  a crash kernel tried in its region, with its initrd
    watch        a running guest's own kexec: checked before it is let go, and followed
    explain      what a log of a failed kexec comes to, beside a rehearsal
    record       what a command would load, into a file, with nothing loaded
    until        how far a rehearsal goes, and what is heard on the way
    blackout     how long nobody answers, and how fast a CPU is taken to be
    hops         several jumps, each out of what the one before handed over
    pairs        every old kernel's own code into every new kernel
    file_load    kexec_file_load as an old kernel would do it
    loaders      who is asked to place the segments of a deed that walks many jumps

Rules: a deed prints nothing; it decides what the command line must not.  None opens a file but
`loading`, whose files are handed to the kernel by their descriptors, `kexec_tools`, which shows
files to a program, and `sweep`, each of whose workers opens them.

May import: abi, check, corpse, errors, handover, host, image, kdump, machine, memory, model,
observe, participants, perform, plan, printk, record, sabotage, shipped, vmcore, world, x86
"""
