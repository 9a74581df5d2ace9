"""Machines that a handover can be walked on, behind one small port.

    port          what a machine does: `run` to the new kernel's first instruction, then `console`
    physical      physical memory as the host's map has it, shared with Python at no copy
    layout        a handover's bytes laid into that memory
    mmu           the MMU that every machine here is watched by: our walker, and the worst-case TLB
    delivery      how far an exception gets on its way to a handler
    decode        what an instruction is about to do
    observed      what a watcher needs of a CPU
    watch         what happens before each instruction of a watched walk
    steps         which of the six steps an instruction belongs to
    known_code    instructions that were decoded once
    privileged    the checks of control registers, EFER, segments and descriptor tables
    record        a watched walk written down as a `Run`
    lookout       the watch of a CPU that tells nothing while it executes
    post_mortem   an exception inferred from where a CPU stands
    kvm           this computer's own CPU, through /dev/kvm
    emulator      Unicorn; its MMU is `mmu`
    wire          the gdb protocol and QMP, without a socket
    qemu          QEMU as a whole PC, to the new kernel's userspace
    fake          the contract in plain Python, for tests: no machine code runs

Importing this package imports no engine: name the machine's own module for that.

May import: abi, errors, memory, model, routines, x86
"""
