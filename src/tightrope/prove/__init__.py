"""The thread's last claim, for all memory maps, or the counterexample.

    theorem      the vocabulary: goals, limits, mutants, SMT-LIB scripts
    run          all theorems, and putting a goal to the test
    modes        the paging modes, a third set of constants
    opaque       addresses that allow nothing but equality
    enumerate    a filler on every way in which indices coincide
    symbolic     numbers that only a solver knows, path by path
    tables       page_table_a, by enumeration and by z3            (theorem 1)
    tables_by_z3 its second half
    designs      when damm-v4, one-table and in-place are right    (theorem 2)
    splits       the same for memory splits and Xen layouts        (theorem 2)
    switch       every order of the switch, under the maximal TLB  (theorem 3)
    order        the order that a routine's bytes have
    copying      the copy, for lists of any length                 (theorem 4)
    code         the relocation code, on its bytes                 (theorem 5)
    hypotheses   what the theorems take for granted, on one plan
    builder_mutants   mistakes in the builder, made by rule

Rules: what is proved is what ships: the builder's own functions and the routines' own bytes.  z3 is
imported inside functions, here and nowhere else; theorem 1's enumeration and theorem 3 do without.
A module of theorems exposes `goals(...)`, an iterator of `theorem.Goal`; making a goal costs nothing,
deciding it may.  A goal whose solver is missing raises MissingPart and is printed as not decided.

May import: abi, check, deeds, errors, handover, host, image, machine, memory, model, plan,
routines, shipped, world, x86
"""
