"""A rehearsal of sound inputs holds, whatever the host; what it cannot tell it does not claim."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.makers import cpio
from tests.makers.hosts import hosts, images, read_image, requests
from tests.rehearse.runs import (
    example_host,
    heard,
    low_memory_host,
    shared,
    shipped_kernel,
    shipped_request,
    sound,
)
from tightrope import image as image_room
from tightrope.check import RULES
from tightrope.deeds.rehearse import build, prepare, rehearse
from tightrope.deeds.unpacking import speaks_for_itself
from tightrope.deeds.until import Spoken
from tightrope.errors import BadInput, HostError, PlanError
from tightrope.machine.port import Ends, Progress
from tightrope.machine.unicorn import Emulator
from tightrope.memory import Extent, MemoryMap, Phys, Region, RegionKind, Virt
from tightrope.model import (
    Console,
    Handover,
    Host,
    Image,
    LowMapping,
    Named,
    Outcome,
    Paging,
    Run,
    Step,
    Stop,
)
from tightrope.plan import Request
from tightrope.sabotage import SABOTAGES

PAGE = 4096
MIB = 1 << 20
GIB = 1 << 30
WALKED = {"plan", "tables", "walk", "check"}


@cache
def thirty_megabytes() -> bytes:
    return cpio.initrd(30 << 20)


@pytest.mark.parametrize("flavour", ["debian_amd64", "debian_cloud"])
@pytest.mark.parametrize("scatter", [None, 5])
def test_a_real_kernel_with_a_large_initrd_holds(
    flavour: str, scatter: int | None, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(flavour)
    got = rehearse(
        image_room.read(path.read_bytes(), path.name),
        example_host(),
        Request(initrd=thirty_megabytes(), command_line="root=/dev/sda1 ro", scatter=scatter),
        machine=Emulator(),
    )
    assert (got.outcome, got.findings) == (Outcome.HOLDS, ())
    assert got.run.stop is Stop.ENTRY
    initrd = next(each for each in got.handover.intent.segments if each.name == "initrd")
    assert bytes(got.run.memory.read(initrd.destination)) == thirty_megabytes()


# ------------------------------------------------------------------------------- whatever the host


def boundary(draw: st.DrawFn, low: int, high: int, step: int) -> int:
    return low + step * draw(st.integers(0, (high - low) // step))


@st.composite
def varied(draw: st.DrawFn) -> Host:
    """The example host with most of its numbers changed, each within what a real one could have."""
    old = example_host()
    high = draw(st.sampled_from([0, 1, 2, 64])) * GIB + draw(st.sampled_from([0, PAGE, 0x1400]))
    regions = [each for each in old.memory if each.extent.start < 4 * GIB]
    if high:
        regions.append(Region(Extent.sized(4 * GIB, high), RegionKind.RAM))
    text = replace(
        old.text,
        virt=Virt(boundary(draw, 0xFFFF_FFFF_8100_0000, 0xFFFF_FFFF_B000_0000, 2 * MIB)),
        phys=Phys(boundary(draw, 0x1000_0000, 0x2E00_0000, 2 * MIB)),
        size=draw(st.sampled_from([2, 16, 46])) * MIB,
    )
    busy = list(old.busy) if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 5))):
        start = boundary(draw, MIB, 0xBF00_0000, PAGE)
        size = draw(st.sampled_from([PAGE, 3 * PAGE + 5, 2 * MIB, 700 * MIB]))
        busy.append(
            Named(extent=Extent(start, min(start + size, 0xBFFD_9000)), what="somebody's memory")
        )
    pge, nx = draw(st.booleans()), draw(st.booleans())
    cpu = replace(
        old.cpu,
        physical_bits=draw(st.sampled_from([38, 39, 46, 52])),
        pge=pge,
        nx=nx,
        gbpages=draw(st.booleans()),
    )
    low = draw(st.lists(st.sampled_from([0x2_0000, 0x9_0000, 0x7_FFFF_F000]), unique=True))
    return replace(
        old,
        cpu=cpu,
        cr4=old.cr4 if pge else old.cr4 & ~0x80,
        efer=old.efer if nx else old.efer & ~0x800,
        memory=MemoryMap(tuple(regions)),
        text=text,
        relocation=Virt(text.virt + boundary(draw, 0, text.size - PAGE, PAGE)),
        private=Extent.sized(boundary(draw, 0x3100_0000, 0x5000_0000, PAGE), 16 * MIB),
        busy=tuple(busy),
        crash_region=draw(st.none() | st.just(Extent.sized(0x7800_0000, 64 * MIB))),
        firmware=old.firmware if draw(st.booleans()) else (),
        low_mappings=tuple(
            LowMapping(
                virt=Virt(virt),
                phys=Phys(draw(st.sampled_from([0x2_0000, 0x1000_0000]))),
                size=PAGE,
                is_global=draw(st.booleans()),
            )
            for virt in low
        ),
    )


def holds_or_is_refused(image: Image, old: Host, request: Request) -> None:
    try:
        got = rehearse(image, old, request, machine=shared())
    except (PlanError, HostError) as err:
        event(f"refused: {type(err).__name__}")
        return
    event("held")
    assert got.findings == ()
    assert got.outcome is Outcome.HOLDS


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(old=varied(), image=images(), request=requests())
def test_the_walk_holds_on_every_host_like_the_example(
    old: Host, image: Image, request: Request
) -> None:
    holds_or_is_refused(image, old, request)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(old=hosts(), image=images(), request=requests())
def test_the_walk_holds_on_small_hosts_full_of_holes(
    old: Host, image: Image, request: Request
) -> None:
    holds_or_is_refused(image, old, request)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    old=varied(), name=st.sampled_from(sorted(SABOTAGES)), scatter=st.none() | st.integers(0, 99)
)
def test_no_sabotage_passes_for_sound_on_any_host(
    old: Host, name: str, scatter: int | None
) -> None:
    """Either it cannot be done to that host, which is said, or it is found."""
    crash = SABOTAGES[name].crash
    try:
        got = rehearse(
            shipped_kernel(),
            old,
            shipped_request(scatter, crash=crash),
            sabotage=SABOTAGES[name],
            machine=shared(),
        )
    except BadInput as err:
        event(f"refused: {type(err).__name__}")
        return
    except PlanError:
        if not crash:
            raise
        event("refused: a crash without a region, or one that is too small")
        return
    event("found")
    assert got.outcome is Outcome.FALLS
    assert SABOTAGES[name].rule in [each.rule for each in got.findings]


def test_example_inputs_are_not_refused() -> None:
    """The properties above would hold if everything were refused."""
    small = read_image()
    for old in (example_host(), replace(example_host(), busy=(), firmware=())):
        assert rehearse(small, old, Request(), machine=shared()).outcome is Outcome.HOLDS


# -------------------------------------------------------------------------------------- the stages


def test_every_stage_is_timed() -> None:
    got = rehearse(shipped_kernel(), example_host(), shipped_request(), machine=shared())
    assert set(got.seconds) == WALKED
    assert all(seconds > 0 for seconds in got.seconds.values())
    assert set(heard().seconds) == WALKED | {"console"}


def test_a_machine_is_made_where_none_is_given() -> None:
    got = rehearse(shipped_kernel(), example_host(), shipped_request())
    assert got.outcome is Outcome.HOLDS
    assert set(got.seconds) == WALKED | {"load the emulator"}


def test_progress_hears_of_every_stage_before_it_begins() -> None:
    said: list[tuple[str, int, int]] = []
    rehearse(
        shipped_kernel(),
        example_host(),
        shipped_request(),
        machine=shared(),
        progress=lambda what, done, total: said.append((what, done, total)),
    )
    assert said == [("plan", 0, 0), ("tables", 1, 0), ("walk", 2, 0), ("check", 3, 0)]


def test_the_same_inputs_give_the_same_walk() -> None:
    one, other = (
        sound(),
        rehearse(shipped_kernel(), example_host(), shipped_request(), machine=shared()),
    )
    assert one.run.trace.tolist() == other.run.trace.tolist()
    assert one.run.registers == other.run.registers
    assert one.handover.intent.control_page == other.handover.intent.control_page


def test_a_sabotage_leaves_the_inputs_as_they_were() -> None:
    for crash in (False, True):
        the_plan = prepare(shipped_kernel(), low_memory_host(), shipped_request(crash=crash))
        before = build(the_plan, design="two-tables")
        for each in SABOTAGES.values():
            if each.crash == crash and Paging.X86_64 in each.modes:
                build(the_plan, design="two-tables", sabotage=each)
        after = build(the_plan, design="two-tables")
        assert [bytes(piece.data) for piece in after.pieces] == [
            bytes(piece.data) for piece in before.pieces
        ]
        assert after.code == before.code


def test_a_design_that_is_none_is_refused() -> None:
    with pytest.raises(BadInput, match="no design 'three-tables'"):
        rehearse(shipped_kernel(), example_host(), shipped_request(), design="three-tables")


# ------------------------------------------------------------------------------------- the console


class Saying:
    """A machine that walks as the emulator does, and then says what it is told to."""

    name = "made"

    def __init__(self, *lines: str) -> None:
        self._lines = lines
        self._emulator = shared()
        self.asked: list[tuple[float, Ends]] = []

    def run(self, handover: Handover) -> Run:
        return self._emulator.run(handover)

    def close(self) -> None:
        pass

    def console(self, *, seconds: float, ends: Ends, progress: Progress) -> Console:
        self.asked.append((seconds, ends))
        return Console(lines=self._lines, seconds=0.5, stopped="made up for a test")


def test_a_kernel_that_stays_silent_leaves_it_open() -> None:
    got = rehearse(
        read_image(),
        example_host(),
        Request(),
        until=Spoken(seconds=0.3),
        machine=Saying(),
    )
    assert (got.outcome, got.findings) == (Outcome.UNKNOWN, ())


def test_a_kernel_that_loops_without_a_word_is_listened_to_until_the_limit() -> None:
    got = rehearse(
        read_image(code64=b"\xeb\xfe"),
        example_host(),
        Request(),
        until=Spoken(seconds=0.3),
        machine=shared(),
    )
    assert got.outcome is Outcome.UNKNOWN
    assert got.console is not None
    assert got.console.lines == ()


def test_a_kernel_that_speaks_holds() -> None:
    machine = Saying("Linux version 6.1.0")
    got = rehearse(read_image(), example_host(), Request(), until=Spoken(), machine=machine)
    assert got.outcome is Outcome.HOLDS
    # Any other Linux than the shipped one is heard up to its banner only.
    [(seconds, ends)] = machine.asked
    assert seconds == 900.0
    assert ends("[    0.000000] Linux version 6.1.0")
    assert not ends("KASLR disabled: 'nokaslr' on cmdline.")


def test_the_shipped_kernel_is_heard_to_its_end() -> None:
    machine = Saying("tightrope: the new kernel stands")
    got = rehearse(
        shipped_kernel(), example_host(), shipped_request(), until=Spoken(), machine=machine
    )
    assert got.outcome is Outcome.HOLDS
    [(seconds, ends)] = machine.asked
    assert seconds == 900.0
    assert not ends("Linux version 6.1.0")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ((), "did not say that it stands: made up for a test"),
        (("tightrope: new kernel entered at 0x1000200",), "did not say that it stands"),
        (
            (
                "tightrope: BAD  cs: 0x8",
                "tightrope: BAD  ds: 0x8",
                "tightrope: the new kernel stands",
            ),
            "tightrope: BAD  cs: 0x8",
        ),
    ],
)
def test_the_shipped_kernels_own_word_is_a_finding_when_it_is_not_good(
    lines: tuple[str, ...], says: str
) -> None:
    got = rehearse(
        shipped_kernel(),
        example_host(),
        shipped_request(),
        until=Spoken(),
        machine=Saying(*lines),
    )
    assert got.outcome is Outcome.FALLS
    [finding] = got.findings
    assert (finding.rule, finding.step) == ("new-kernel-says", Step.COPY)
    assert says in finding.message
    assert list(finding.evidence.values()) == [x for x in lines[1:] if "BAD" in x]


def test_only_the_shipped_kernel_speaks_for_itself() -> None:
    assert speaks_for_itself(shipped_kernel())
    assert not speaks_for_itself(read_image())
    assert not speaks_for_itself(read_image(version=None))


def test_nobody_listens_unless_asked() -> None:
    machine = Saying("never heard")
    got = rehearse(shipped_kernel(), example_host(), shipped_request(), machine=machine)
    assert (got.console, machine.asked) == (None, [])
    assert got.outcome is Outcome.HOLDS


def test_the_verdict_names_every_rule_that_was_asked() -> None:
    assert sound().rules == tuple(rule.id for rule in RULES)
