"""What is seen of a walk, whoever executes it: one watch over a CPU that somebody else runs.

    physical      physical memory as the host's map has it, shared with Python at no copy
    mmu           the MMU that every machine is watched by: our walker, and the worst-case TLB
    expectations  what is known of a walk before it begins
    delivery      how far an exception gets on its way to a handler
    decode        what an instruction is about to do
    known_code    instructions that were decoded once
    observed      what a watcher needs of a CPU
    steps         which of the six steps an instruction belongs to
    read_ahead    pages that an engine looks into too early
    at_call       states that no CPU can be in
    privileged    the checks of control registers, EFER, segments and descriptor tables
    touches       the memory that an instruction is about to touch
    loops         what one turn of a copy loop does, read from its instructions
    bulk          many turns of such a loop done at once, recorded as if one by one
    pages         many page copies, done in few
    trouble       what a walk was stopped by
    watch         what happens before each instruction of a watched walk
    interrupted   the old kernel's handlers, and what an exception pushed for them
    lookout       the watch of a CPU that reports nothing while it runs
    post_mortem   an exception inferred from where a CPU stands
    record        a watched walk written down as a `Run`
    columns       pages of many turns, with the lowest and the highest of them
    series        what the terms of a loop are, turn by turn
    digest        SHA-256 of much memory, done in one step
    familiar      plain instructions that were met before
    settled       whether a loader's program goes round and round
    unseen        what may run unseen then, at full speed

Nothing here executes an instruction, and nothing here knows a machine.

May import: errors, memory, model, x86
"""
