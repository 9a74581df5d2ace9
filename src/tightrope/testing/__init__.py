"""For kernel developers' tests: a kernel is booted in QEMU, leaves by kexec, and is watched.

    plugin   what pytest is given: the option --tightrope and the fixture
    leave    one guest that does nothing but leave
    initrd   what it boots: a process of a hundred bytes, and the kernel to leave for

Rules: without --tightrope nothing here is imported but `plugin`, which imports pytest alone.

May import: abi, deeds, errors, image, machine, memory, model, report, routines, views
"""
