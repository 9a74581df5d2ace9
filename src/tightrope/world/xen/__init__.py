"""A hypervisor's world, in machine addresses: dom0's tables and code, the load hypercall, the way
out.

    world     Host with a dom0 + Plan -> World
    notes     what Xen leaves for a crash kernel
    leave     how a 64-bit hypervisor leaves long mode for a 32-bit dom0's code

May import: abi, errors, memory, model, routines, x86
"""
