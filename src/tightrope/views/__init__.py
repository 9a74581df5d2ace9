"""Each command's result as a sheet for people and as plain facts for programs.

    a value -- view.sheet --> Sheet -- report.text --> what is printed
            `- view.facts --> a TypedDict -- report.json --> what --json prints

    view              what a view is
    words             how numbers and places are written, for all of them
    every             the shapes of all documents, by the name in their `schema`

    rehearsal         a verdict
    rehearsal_facts   the same as facts
    steps             the six steps, and how each went
    registers         a CPU's registers
    xen               the jump through a hypervisor
    segments          whose segments and purgatory were walked
    pictures          the memory of both kernels to scale
    hops              several jumps, a row each
    plan              where every byte goes
    planned           the same with its blackout budget
    blackout          how long nobody answers
    trees             what a handover's page tables map
    entries           in which pages of table a range's entries lie
    inspection        what an image is
    inspection_facts  the same as facts
    host              what an old kernel's machine is, and what each field rests on
    captured          what a capture has put on the disk
    comparison        which designs hold
    matrix            which modes and splits hold
    pairs             which old kernel gets into which new one
    sweep             which of many hosts hold
    agreement         whether the machines agree
    proofs            which goals hold, which mutants are killed
    pgd               whether a crashed kernel's tables are whole
    dump_info         what a dump says of the kernel that died
    crash_boot        what a crash kernel did when it was tried
    watched           what was seen of a kexec in a guest
    explanation       how a failed kexec ended, by its log
    handler           what an old kernel's own handlers print of a fault
    linux_says        what Linux says of kexec: status, refusals, load, exec, unload
    xen_says          what a Xen says of itself
    rules             the rules, and the sabotages that break them
    contracts         what relocation code is held to
    glossary          what the words of reports mean
    health            what this computer has, and what each missing part costs

Rules: nothing here decides, measures or prints.  What a reader of a report needs to know is said
in the report itself; words come from what a thing is, and no program may go by them.

May import: abi, errors, kdump, memory, model, printk, x86
"""
