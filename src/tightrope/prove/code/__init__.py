"""Theorem 5: relocation code, on its bytes, for every V, P, list and old TLB.

    bytes --decode--> instructions --model, over terms--> states at cutpoints and obligations
          --decide--> holds | counterexample --replay--> the same fall in the emulator
    mutants: the same bytes with a mistake; foreign: somebody else's file

Rules: the instruction model is the project's own (`instructions`, over an `algebra`) and is compared
with a CPU by a test; it refuses what it does not know.  Modules that need z3 are imported inside
functions; decode, algebra, instructions, mutations and foreign do without.

May import: check, deeds, errors, handover, host, image, machine, memory, model, plan, routines,
shipped, world, x86
"""
