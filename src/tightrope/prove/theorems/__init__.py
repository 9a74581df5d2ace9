"""Theorems 1 to 4: the tables, the designs, the order of the switch, the copy.

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
    hypotheses   what the theorems take for granted, on one plan
    builder_mutants   mistakes in the builder, made by rule
    exchange          the same for code that lets pages change places   (theorem 4)
    pages             the list of copies, as functions of their number  (theorem 4)

Rules: z3 is imported inside functions; theorem 1's enumeration and theorem 3 do without.  Nothing
here knows the instruction model or a routine's contract.

May import: check, errors, handover, memory, model, plan, routines, x86
"""
