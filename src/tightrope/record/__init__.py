"""A command's kexec system calls, held before the kernel sees them: what it would have loaded.

    command --tracer--> stopped at its call --held--> what the call hands over --file--> a segments file

Nothing is changed on the machine, so this is no part of `perform`: what stands there in the way of
a change by mistake, a word that asks for it, has no place here, and the locks that stand here (the
call is taken away, the capability is gone before the command begins) would be wrong there.

    tracer   ptrace: a command and all its children, stopped at each system call
    held     the calls that load, read out of the process that makes them
    fence    what it would have others do, refused
    shown    another machine's files in place of this one's
    file     a segments file, written and read

Rules: nothing can be loaded, unloaded or jumped to, on any machine.  Nothing but the standard
library: a rescue system can record.

May import: abi, errors, memory, model
"""
