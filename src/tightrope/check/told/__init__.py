"""What the new kernel is told, read back from memory as it will read it, and held against the
facts.

    memory        reading memory as the new kernel will, and what it can find there
    boot_params   the zero page, its setup_data and its command line
    information   what Multiboot or PVH hands over
    reading       whichever of the two a protocol has
    page          the zero page at the entry
    linux         the same, field by field
    efi           what hangs on it of EFI
    inputs        the kernel, its initrd or modules, its command line: as they were given
    core_header   the ELF header of a crash kernel's dump
    dump          what of the old kernel that can still read
    limits        what its command line makes of the memory map
    leads         words of it that lead to memory which nobody filled
    memory_map    the map that it is told, against the memory that there is
    handed_on     of several hops: what it is told, against what the kernel before it was

Rules: the code that made all this is not asked, nor its constants: layouts are written here once
more, from the kernel's own headers and the specifications.

May import: abi, check, errors, memory, model
"""
