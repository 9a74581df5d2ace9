"""Theorem 5: relocation code, on its bytes, for every V, P, list and old TLB.

    bytes --isa--> states at cutpoints and obligations
          --decide--> holds | counterexample --replay--> the same fall in the emulator
    mutants: the same bytes with a mistake; foreign: somebody else's file

    contract        what a routine may rely on, and what it owes
    promises        what is owed at each cutpoint: loop head, one way round, entry
    cutpoints       from one cutpoint to the next
    decide          whether an obligation holds: z3 is asked, each formula once
    counterexample  a solver's model, as an input that a person can read
    told            a failure: which instruction, which obligation, on what input
    replay          whether a counterexample falls in the emulator too
    mutations       what becomes of a mistake in a routine's bytes
    equivalence     whether two routines do the same
    goals           theorem 5 as goals and mutants
    verify          whether one image does what its contract wants
    foreign         somebody else's code, and whether it looks like ours
    source_lines    in which line of a source an instruction stands
    linux           Linux's own code under theorem 5
    linux_6         the same up to Linux 6.12, where a page and its source change places
    stubs           the entry stubs, from the first byte to the new kernel's
    stub_walk       a walk through one width of a stub
    stub_goals      the stubs' theorem as goals, and their mutants

Rules: what a routine may rely on and what it owes is its `contract`; how instructions behave is
`isa`'s.  Modules that need z3 are imported inside functions; mutations and foreign do without.

May import: abi, check, deeds, errors, handover, host, image, machine, memory, model,
participants, plan, prove.isa, routines, shipped, world, x86
"""
