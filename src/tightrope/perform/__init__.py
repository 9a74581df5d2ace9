"""Doing it: the only place in the house that changes a real machine.

    load_file   what was rehearsed, as an ELF file that any machine can carry away
    privcmd     hypercalls of a dom0's processes, by Linux's device for them
    xen         Xen's kexec operations, and what they refuse
    linux       bare Linux's two system calls, and what they refuse

Rules: everything is checked before anything is loaded, and a refusal is one line that says what was
refused, by whom and why.  Nothing is loaded or jumped to unless the caller says so in a word of its
own; without it this package only tells what it would do.  What is performed was rehearsed, unless
the caller says otherwise.  The machine is reached through a port, so that tests can stand in for
it.  Nothing here imports more than the standard library: a dom0 needs a Python and nothing else.

May import: abi, errors, memory, model, routines
"""
