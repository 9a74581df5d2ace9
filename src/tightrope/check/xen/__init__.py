"""What a jump through a hypervisor adds to the rules.

    numbers      the right kind of address wherever a CPU looks
    hypervisor   the hypervisor's own V, its tables, what it calls
    way_out      long mode left on the way to a 32-bit dom0's code
    page_list    v1's array of addresses, two slots a page

Rules: asked of every handover, and silent where there is no Xen.

May import: abi, check, memory, model, x86
"""
