"""What is done in a crash kernel: the dead kernel's memory saved, its log beside it.

    core       the ELF headers and notes of /proc/vmcore; its pages by physical address
    saving     the bytes of it into a file: sparse, resumable, with their digest
    ring       the buffers that they go through, and the thread that digests them
    compressed the same packed page by page, in makedumpfile's format, where it is asked for
    filtering  the same by makedumpfile, where it is there and asked for
    capture    all of it: room first, the log, the memory, the pgd's verdict

and what is known of one before it is needed, for `deeds.kdump_check`:

    configuration  which crash kernel a machine would load, by kdump-tools' or kdump-utils' files
    witness        what is put into its initramfs to say how far it comes
    target         where it saves its dump, by what those files say

    from tightrope.kdump.capture import Wanted, capture

    print(capture(Wanted(vmcore="/proc/vmcore", folder="/var/crash/now")).sha256)

Rules: a Python and its standard library are enough, and little memory: an initramfs has no more.
What is there is used: numpy for the verdict, makedumpfile for a filter.  Nothing half written has a
final name, and what was saved before an end of any kind is kept for the next try.

May import: abi, errors, memory, model, printk, vmcore
"""
