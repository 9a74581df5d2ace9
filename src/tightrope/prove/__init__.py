"""The thread's last claim, for all memory maps, or the counterexample.

    run        all theorems, and putting a goal to the test
    says       the theorems by their words
    goal       the vocabulary: goals, limits, mutants, SMT-LIB scripts
    solver     the door to z3, and formulas written for any other solver
    theorems/  1 to 4: page tables, designs, the order of the switch, the copy
    routine/   5: the relocation code and the entry stubs, on their bytes
    isa/       the model of the CPU's instructions that 5 runs on

    goal, solver <- theorems          isa <- routine -> goal, solver

Rules: what is proved is what ships: the builder's own functions and the routines' own bytes.  z3 is
known here and nowhere else.  A module of theorems exposes `goals(...)`, an iterator of `goal.Goal`;
making a goal costs nothing, deciding it may.  A goal whose solver is missing raises MissingPart and
is printed as not decided.

May import: abi, check, deeds, errors, handover, host, image, machine, memory, model,
participants, plan, routines, shipped, world, x86
"""
