"""A counterexample, run: the same routine and the same input in the emulator, checked by every
rule.

    counterexample --> handover on an example host --emulator--> findings, beside the shipped code's

Rules: the input is the counterexample's as far as an example host can have it (V, P, tables and
list are that host's, which the counterexample was asked to prefer).  What goes wrong is what the
shipped routine, run on the very same input, does not show.  What an emulator cannot see
(instructions fetched ahead, #CP) is said to be so, not guessed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tightrope import check, handover, host, image, participants, routines, shipped
from tightrope import world as world_room
from tightrope.errors import MachineError
from tightrope.machine.port import Machine
from tightrope.memory import PAGE_SIZE, Phys, Virt
from tightrope.model import (
    Code,
    Finding,
    Handover,
    Host,
    LowMapping,
    Paging,
    Plan,
    Run,
    Stop,
    with_code,
)
from tightrope.plan import Request, prepare
from tightrope.prove.routine.counterexample import Counterexample, Wishes
from tightrope.x86.cpu import RFLAGS_DF, RFLAGS_IF, RFLAGS_NAMES

DESTINATION, INDIRECTION, DONE, SOURCE = 1, 2, 4, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """`says` is one sentence; `wrong` when the routine fell where the shipped one stands."""

    wrong: bool
    says: str


class Stage:
    """An example host with a plan, on which routines of one mode are replayed."""

    def __init__(self, paging: Paging, machine: Machine) -> None:
        self._machine = machine
        self.host = host.read(host.example(paging), f"the example host ({paging.value})")
        self.plan = prepare(image.read(shipped.read(), "shipped"), self.host, Request(scatter=1))
        name = routines.RELOCATE_X86_64 if paging.long_mode else routines.RELOCATE_I386
        self.shipped = routines.read(name)
        self.word = 8 if paging.long_mode else 4
        self._sound = self._built(self.host, self.shipped)

    def _built(self, old: Host, code: Code) -> Handover:
        chain = with_code(participants.chain(self.plan, participants.OURS), code)
        return handover.build(self.plan, world_room.planned(self.plan, code, old), chain)

    def wishes(self) -> Wishes:
        """The values that this stage can play."""
        sound, plan = self._sound, self.plan
        now = sound.registers
        values = {
            "V": plan.relocation,
            "P": plan.control_page,
            "K": sound.world.code_phys,
            "table_a": sound.page_table_a.root,
            "start": plan.entry,
            "head": plan.head,
            "physical": 1 << self.host.cpu.physical_bits,
            "cr0": now.cr0,
            "cr4": now.cr4,
            "cr3": now.cr3,
            "efer": now.efer,
            **now.general,
        }
        if sound.page_table_b:
            values["table_b"] = sound.page_table_b.root
        return Wishes(
            values=values,
            global_frame=self.host.text.phys,
            list_state={"destination": self._pages()[0]},
        )

    def _pages(self) -> tuple[int, int]:
        """A destination and a source of the plan, as addresses: the first page that is copied."""
        plan = self.plan
        moved = (plan.destinations != plan.sources).nonzero()[0]
        at = int(moved[0]) if len(moved) else 0
        return int(plan.destinations[at]) * PAGE_SIZE, int(plan.sources[at]) * PAGE_SIZE

    def replay(self, data: bytes, found: Counterexample) -> Replayed:
        """Run `data` and the shipped routine on the input of a counterexample."""
        old = self.host
        if found.global_at_p is not None and found.global_at_p != found.values["P"]:
            stray = LowMapping(
                virt=Virt(self.plan.control_page),
                phys=Phys(old.text.phys),
                size=PAGE_SIZE,
                is_global=True,
            )
            old = replace(old, low_mappings=(*old.low_mappings, stray))
        try:
            seen = self._findings(old, Code(name="replayed", data=data, symbols={}), found)
            usual = self._findings(old, self.shipped, found)
        except MachineError as err:
            return Replayed(wrong=False, says=f"the emulator cannot play this input: {err}")
        known = {finding.rule for finding in usual}
        fresh = [finding for finding in seen if finding.rule not in known]
        if not fresh:
            return self._at_the_entry(old, data, found)
        first = fresh[0]
        return Replayed(
            wrong=True,
            says=f"in the emulator: {first.rule}, step {int(first.step)}: {first.message}",
        )

    def _at_the_entry(self, old: Host, data: bytes, found: Counterexample) -> Replayed:
        """The states in which the entry stub is entered, ours and theirs:
        it hides some differences.
        """
        states = []
        for code in (self.shipped, Code(name="replayed", data=data, symbols={})):
            built = self._with_input(self._built(old, code), found)
            stub = replace(built, intent=replace(built.intent, kernel_entry=built.intent.entry))
            states.append(_state(self._machine.run(stub)))
        for name, meant in states[0].items():
            if states[1].get(name) != meant:
                seen = states[1].get(name, 0)
                return Replayed(
                    wrong=True,
                    says=f"in the emulator: {name} is {seen:#x} at the entry, not {meant:#x}",
                )
        return Replayed(wrong=False, says="the emulator does not show it")

    def _findings(self, old: Host, code: Code, found: Counterexample) -> tuple[Finding, ...]:
        built = self._with_input(self._built(old, code), found)
        run = self._machine.run(built)
        return (*check.check(built, run), *_stray(built, run))

    def _with_input(self, built: Handover, found: Counterexample) -> Handover:
        """The registers and the list of the counterexample,
        where they are the old kernel's to give.
        """
        now, values = built.registers, found.values
        arguments = {"rdi", "rsi", "rdx", "rcx", "rsp"} | ({"r8"} if self.word == 8 else set())
        general = {
            name: value if name in arguments else values.get(name, value)
            for name, value in now.general.items()
        }
        rflags = now.rflags & ~(RFLAGS_IF | RFLAGS_DF)
        rflags |= RFLAGS_IF if found.flags.get("IF") else 0
        rflags |= RFLAGS_DF if found.flags.get("DF") else 0
        built = replace(
            built,
            registers=replace(
                now, general=general, rflags=rflags, cr0=values["cr0"], cr4=values["cr4"]
            ),
        )
        return built if found.word is None else self._with_list(built, found, found.word)

    def _with_list(self, built: Handover, found: Counterexample, word: int) -> Handover:
        """A short list around one word: its flags are kept, its address is one of this plan's."""
        plan = self.plan
        destination, source = self._pages()
        first, second = _list_frames(plan)
        flags = word & 0xF
        kind = next((bit for bit in (1, 2, 4, 8) if flags & bit), 0)
        where = {1: destination, 2: second, 4: source, 8: source}.get(kind, source)
        if kind == SOURCE and word & -PAGE_SIZE == found.destination:
            where = destination
        rest = [destination | DESTINATION] if kind == INDIRECTION else []
        tail = [*rest, source | SOURCE, DONE]
        words = [destination | DESTINATION, where | flags]
        pages = {first: words, second: tail} if kind == INDIRECTION else {first: words + tail}
        if kind == DONE:
            pages = {first: words}
        now = built.registers
        return replace(
            built,
            page_list={frame: _packed(words, self.word) for frame, words in pages.items()},
            registers=replace(now, general={**now.general, "rdi": first | INDIRECTION}),
        )


def _list_frames(plan: Plan) -> tuple[int, int]:
    """Two frames for a list: the plan's own first one, and one set aside for tables."""
    first = min(plan.list_pages)
    others = [frame for frame in plan.list_pages if frame != first]
    return first, others[0] if others else int(plan.spare[-1].end) - PAGE_SIZE


def _packed(words: list[int], size: int) -> bytes:
    return b"".join(word.to_bytes(size, "little") for word in words).ljust(PAGE_SIZE, b"\0")


def _state(run: Run) -> dict[str, int]:
    """What the contract fixes at the entry, by name; nothing where it did not arrive."""
    if run.stop is not Stop.ENTRY:
        return {}
    now = run.registers
    flags = {f"RFLAGS.{name}": now.rflags & bit for name, bit in RFLAGS_NAMES.items()}
    arithmetic = {f"RFLAGS.{name}" for name in ("CF", "PF", "AF", "ZF", "SF", "OF", "RF")}
    return {
        **now.general,
        **{name: value for name, value in flags.items() if name not in arithmetic},
        "cr0": now.cr0,
        "cr3": now.cr3,
        "cr4": now.cr4,
        **now.segments,
        "idt limit": now.idt[1],
    }


def _stray(_built: Handover, run: Run) -> tuple[Finding, ...]:
    """A run that neither arrives nor faults has gone wrong as well."""
    if run.stop in (Stop.HALT, Stop.LIMIT):
        step = run.step_starts[-1][1]
        return (
            Finding(
                rule="arrives",
                step=step,
                message="it does not come to the entry",
                evidence={},
                mend="",
            ),
        )
    return ()
