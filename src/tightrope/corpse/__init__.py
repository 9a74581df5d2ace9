"""What a log says of a kexec that failed: one reader for each kind of log.

    log        bytes, lines and their numbers, the last place of a word
    qemu       `-d int,cpu_reset`: exceptions up to the triple fault
    handler    the lines that the control page's own handlers print (Linux 6.15 and later)
    kvm        kvm_exit in a trace of the host's
    words      what kernels, stubs, purgatories and hypervisors say on a console: a table
    console    a console that ends: those words, each where it stands last
    read       all of them, in the order of the log

Rules: bytes in, `Remains` out; nothing is judged and nothing guessed, and no reader raises for
bytes that it does not know.  Each looks for its words from the end, so that 100 MB of log cost
what a search for a dozen words costs.

May import: errors, model, x86
"""

from tightrope.corpse.read import read

__all__ = ["read"]
