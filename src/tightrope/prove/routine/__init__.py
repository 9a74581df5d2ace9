"""Theorem 5: relocation code, on its bytes, for every V, P, list and old TLB.

    bytes --isa--> states at cutpoints and obligations
          --decide--> holds | counterexample --replay--> the same fall in the emulator
    mutants: the same bytes with a mistake; foreign: somebody else's file

Rules: what a routine may rely on and what it owes is its `contract`; how instructions behave is
`isa`'s.  Modules that need z3 are imported inside functions; mutations and foreign do without.

May import: abi, check, deeds, errors, handover, host, image, machine, memory, model,
participants, plan, prove.isa, routines, shipped, world, x86
"""
