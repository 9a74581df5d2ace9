"""Single bits flipped in a sound handover: what holds must change nothing, and what changes is
told.

    subjects   what can be flipped
    in_memory  how: memory alone
    planned    how: plan and memory alike
    at_call    how: what the CPU holds at the call
    wanted     why a rule tells what changes nothing that was promised
    bases      sound handovers to begin with, from a seed
    ends       what the new kernel finds at its first instruction, and what is left of the old one
    deed       flip, walk on our emulator with all rules, and on machines that know none of them

Rules: the oracles are Unicorn by itself and, where there is one, this computer's CPU; a flip is
*unseen* where we say that it holds and an oracle ends otherwise than it does without the flip.

May import: abi, check, deeds.agree, errors, handover, host, machine, memory, model, observe,
participants, plan, x86
"""

from tightrope.deeds.flips.deed import Fate, Flipped, Trial, Walkers, walkers

__all__ = ["Fate", "Flipped", "Trial", "Walkers", "walkers"]
