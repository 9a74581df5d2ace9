"""Other people's layouts: numbers only, each with its source named.  No I/O, no deeds.

A file here is one interface that Tightrope meets but does not own.  A layout is declared once, as
data, and checked to add up when it is imported.  Nothing here decides anything: what a value means
for a kexec is said in the room that uses it.

    boot       where the fields of the Linux boot protocol are
    kexec      the numbers of Linux's two system calls, and what sysfs says of them
    elf        the headers of ELF, and its numbers
    elf_notes  how the notes of an ELF core lie
    efi        what a kernel that kexec starts is told of EFI
    multiboot  what Multiboot 1 and 2 ask for and hand over
    pvh        what Xen's direct boot hands over
    xen        Xen's kexec hypercalls, structures and crash notes
    kvm        the numbers and structures of /dev/kvm
    asking     the system calls by which one process has another do something
    newc       how an archive for an initramfs is written

May import: memory
"""
