"""What a sabotage is: a way to break a handover, and the finding that has to come of it.

Rules: a sabotage is a value; each of its functions gives a changed value and leaves the old one
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType

from tightrope.errors import BadInput
from tightrope.model import (
    Code,
    Handover,
    Host,
    Paging,
    Participant,
    Plan,
    Protocol,
    Step,
    relocation_code,
    with_code,
)

EVERY_MODE = tuple(Paging)
LONG_MODES = tuple(each for each in Paging if each.long_mode)
XEN_MODES = (Paging.I386, Paging.PAE, Paging.X86_64)
WIDE_ENTRIES = (Paging.PAE, *LONG_MODES)


def _same_host(host: Host, _plan: Plan) -> Host:
    return host


def _same_plan(plan: Plan) -> Plan:
    return plan


def _same_code(code: Code) -> Code:
    return code


def _same_handover(handover: Handover) -> Handover:
    return handover


@dataclass(frozen=True, slots=True, kw_only=True)
class Sabotage:
    """One way to fall: `rule` and `step` are those of the first finding that has to come of it."""

    name: str
    says: str
    rule: str
    step: Step
    plan: Callable[[Plan], Plan] = _same_plan
    host: Callable[[Host, Plan], Host] = _same_host
    code: Callable[[Code], Code] = _same_code
    handover: Callable[[Handover], Handover] = _same_handover
    crash: bool = False
    """It breaks a crash kexec and no other."""
    backup: bool = False
    """It breaks a crash kexec that saves low memory and no other."""
    modes: tuple[Paging, ...] = EVERY_MODE
    """The old kernels that have what it breaks."""
    entry: Protocol | None = None
    """The entry that it breaks; through another it raises BadInput.  None: any."""

    def chain(self, chain: tuple[Participant, ...]) -> tuple[Participant, ...]:
        """The programs with the relocation code's bytes changed."""
        return with_code(chain, self.code(relocation_code(chain).code))

    def refuse(self, paging: Paging) -> None:
        """Raises BadInput for a walk that does not have what this breaks."""
        if paging not in self.modes:
            has = ", ".join(each.value for each in self.modes)
            raise BadInput(
                f"{self.name} does not exist with {paging.value} paging, only with {has}",
                source="--sabotage",
            )


Break = Callable[[Handover], Handover]


def sabotage(
    name: str,
    step: Step,
    *,
    breaks: str,
    modes: tuple[Paging, ...] = EVERY_MODE,
    plan: Callable[[Plan], Plan] = _same_plan,
    host: Callable[[Host, Plan], Host] = _same_host,
    crash: bool = False,
    backup: bool = False,
    entry: Protocol | None = None,
) -> Callable[[Break], Sabotage]:
    """Make a sabotage of the function below, which breaks a handover; see `Sabotage`.

    What it does is said by the first sentence of the function's docstring, `breaks` is the rule.
    """

    def made(handover: Break) -> Sabotage:
        sentence = (handover.__doc__ or name).split(".\n")[0].strip().rstrip(".")
        return Sabotage(
            name=name,
            says=sentence[0].lower() + sentence[1:],
            rule=breaks,
            step=step,
            plan=plan,
            host=host,
            handover=handover,
            crash=crash,
            backup=backup,
            modes=modes,
            entry=entry,
        )

    return made


def sabotages_of(*modules: ModuleType) -> Mapping[str, Sabotage]:
    """The sabotages that modules define, as they stand there."""
    found = (
        each for module in modules for each in vars(module).values() if isinstance(each, Sabotage)
    )
    return {each.name: each for each in found}
