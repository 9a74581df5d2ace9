"""The instruction model: what each instruction does, over numbers or over a solver's terms.

    bytes --decode--> Instruction --instructions over an Algebra--> the next State
    algebra      words of bits: many numbers at once
    terms        the same over z3
    semantics    operands, flags, the stack; the port to the rest of a machine
    symbolic     a state made of terms, and what has to hold on the way
    machine      a machine made of terms, instruction by instruction
    memory       its memory, layer over layer
    privileged   its control registers, EFER and segments
    decode       which instruction some bytes are
    instructions what each instruction does
    state        what a CPU holds, as words of an algebra
    copying      what REP MOVS does to one page
    fetching     what the fetch of an instruction owes
    legality     which writes of control registers the CPU refuses
    old_stack    where code may use the old kernel's stack

Rules: the model is the project's own, from the manual, and is compared with two CPUs by a test; it
refuses what it does not know.  It knows no contract, no goal and no theorem.

May import: memory, x86
"""
