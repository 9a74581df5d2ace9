"""A case: one random handover, made from a seed and a number and nothing else.

What is broken, where something is: one of the sabotages, one bit of one present entry of the
handover's page tables, or one bit of a constant that the relocation code writes to CR0 or CR4.

Rules: the same seed and number give the same case on every machine and in every version of Python
that has the same `random.Random`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import Any

import numpy as np

from tightrope import image, shipped
from tightrope.deeds.agree.hosts import random_host
from tightrope.deeds.rehearse import build
from tightrope.errors import BadInput, TightropeError
from tightrope.memory import PAGE_SIZE, Phys
from tightrope.model import Code, Handover, Image, Paging, Part, Protocol, Step
from tightrope.participants import DESIGNS, OURS
from tightrope.plan import Request, prepare
from tightrope.sabotage import SABOTAGES, Sabotage
from tightrope.sabotage.edits import with_tables

ATTEMPTS = 50
"""How often a case that cannot go together is drawn again."""
CONSTANTS = {"CR0": bytes.fromhex("b833000080"), "CR4": bytes.fromhex("2520100000")}
"""mov $CR0_KNOWN, %eax and and $CR4_KEPT, %eax of the 64-bit code: an opcode, then the constant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A handover and what it is."""

    seed: int
    number: int
    says: str
    """Mode, design and what is broken, in a few words."""
    handover: Handover


@cache
def _shipped() -> Image:
    return image.read(shipped.read(), "the shipped kernel")


def make(seed: int, number: int) -> Case:
    """The case `number` of a seed.  Raises BadInput where nothing can be made of it."""
    random = Random(f"{seed}:{number}")
    paging = random.choice([*Paging, Paging.X86_64])
    for _ in range(ATTEMPTS):
        try:
            says, handover = _draw(random, paging)
        except (TightropeError, ValueError):
            continue  # host, image and request cannot go together, or there is nothing to break
        return Case(seed=seed, number=number, says=f"{paging.value}, {says}", handover=handover)
    raise BadInput(f"nothing can be made of case {number}", source="--seed")


def _draw(random: Random, paging: Paging) -> tuple[str, Handover]:
    old = random_host(random, paging)
    crash = random.random() < 0.2
    the_plan = prepare(made_image(random), old, made_request(random, crash=crash))
    design = random.choice([*DESIGNS, OURS, OURS])
    broken = random.random()
    sabotage: Sabotage | None = None
    if broken > 0.9:
        sabotage = _constant(random)
    elif broken > 0.6:
        sabotage = _entry(random)
    elif broken > 0.4:
        sabotage = random.choice(
            [each for each in SABOTAGES.values() if paging in each.modes and each.crash <= crash]
        )
    says = sabotage.name if sabotage else "sound"
    return f"{design}, {says}", build(the_plan, design=design, sabotage=sabotage)


def made_image(random: Random, *, pages: int = 64) -> Image:
    """The shipped kernel's header over other bytes, of another size, for another place.

    `pages` is how large it may be once it runs.
    """
    real = _shipped()
    size = random.randint(0x300, 0x6000)
    init_size = max(size, random.randint(3, pages) * PAGE_SIZE)
    return replace(
        real,
        source="made",
        parts=(Part(offset=0, data=memoryview(random.randbytes(size)), size=init_size),),
        relocatable=random.random() < 0.8,
        pref_address=Phys(random.randint(7, 19) * 0x20_0000),
        init_size=init_size,
    )


def made_request(random: Random, *, crash: bool, initrd: int = 40_000) -> Request:
    """An initrd of at most so many bytes, or none, and a command line."""
    given = random.randbytes(random.randint(1, initrd)) if random.random() < 0.5 else None
    return Request(
        initrd=given,
        command_line="x" * random.randint(0, 200),
        scatter=random.choice([None, random.randrange(1 << 32)]),
        protocol=random.choice([None, None, Protocol.LINUX_32]),
        crash=crash,
    )


def _entry(random: Random) -> Sabotage:
    """One bit of one present entry of page_table_a or page_table_b."""
    turn, bit = random.random(), random.randrange(64)
    first = random.random() < 0.5

    def flip(handover: Handover) -> Handover:
        size = 4 if handover.host.paging is Paging.I386 else 8
        tables = handover.page_table_a if first else handover.page_table_b
        tables = tables or handover.page_table_a
        places = []
        for frame in sorted(tables.pages):
            entries = np.frombuffer(tables.pages[frame], f"<u{size}")
            places += [(frame, at) for at in np.nonzero(entries & 1)[0].tolist()]
        frame, at = places[int(turn * len(places))]
        page = bytearray(tables.pages[frame])
        entry = int.from_bytes(page[at * size : at * size + size], "little")
        entry ^= 1 << bit % (8 * size)
        page[at * size : at * size + size] = entry.to_bytes(size, "little")
        return with_tables(handover, frame, bytes(page))

    return _broken(f"bit {bit} of a page_table_{'a' if first else 'b'} entry", handover=flip)


def _constant(random: Random) -> Sabotage:
    """One bit of what the relocation code writes to a control register."""
    name, bit = random.choice(list(CONSTANTS)), random.randrange(32)
    instruction = CONSTANTS[name]

    def change(code: Code) -> Code:
        at = code.data.find(instruction)
        if at < 0:
            raise BadInput("no such constant in this code", source="--seed")
        data = bytearray(code.data)
        data[at + 1 + bit // 8] ^= 1 << bit % 8
        return replace(code, data=bytes(data))

    return _broken(f"bit {bit} of the constant for {name}", code=change)


def _broken(says: str, **changes: Any) -> Sabotage:
    """A sabotage that no rule is named for: what finds it is what the machines are compared in."""
    return Sabotage(name=says, says=says, rule="", step=Step.PREPARE, **changes)
