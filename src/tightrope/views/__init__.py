"""Each command's result as a sheet for people and as plain facts for programs.

    a value -- view.sheet --> Sheet -- report.text --> what is printed
            `- view.facts --> a TypedDict -- report.json --> what --json prints

    rehearsal, rehearsal_facts, steps, registers, xen      a verdict
    plan, inspection, comparison, matrix, agreement, proofs, pgd, rules      one file a command
    words      how numbers and places are written, for all of them
    view       what a view is

Rules: nothing here decides, measures or prints.  What a reader of a report needs to know is said
in the report itself; words come from what a thing is, and no program may go by them.

May import: abi, errors, kdump, memory, model, printk, x86
"""
