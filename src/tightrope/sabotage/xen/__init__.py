"""Sabotages of a handover through Xen, which break it and no other.

    asked     what dom0 hands over and what the hypervisor makes of it
    way_out   long mode left on the way to a 32-bit dom0's code

May import: abi, errors, memory, model, routines, sabotage, x86
"""
