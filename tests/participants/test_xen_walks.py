"""Xen's own kexec_reloc, out of Debian's images: it holds where it holds, and what is weak is advice.

The way to a 32-bit image loads an idt whose base is six bytes of data and four of whatever follows: a base
that is not canonical with 4 levels.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from tests.conftest import debian_kernel
from tests.history.rebuilt import asked_of, with_back_entry
from tests.rehearse.runs import shipped_kernel
from tests.xen.runs import KINDS, NEW_WAYS, V1, Way, hypervisor, identifier, request, shared
from tightrope import host
from tightrope.cli import main
from tightrope.deeds import old_kernel
from tightrope.deeds.old_kernel import OldHypervisor
from tightrope.deeds.rehearse import build, prepare, rehearse
from tightrope.errors import BadInput, DesignError, ImageError
from tightrope.memory import Virt
from tightrope.model import Outcome, Participant, Stop, Verdict, XenCrash
from tightrope.model.vmlinux import LinkedSegment
from tightrope.participants import xen
from tightrope.plan import Request

VERSIONS = ("xen-amd64", "xen-amd64-4.20")
WIDE, LEGACY = NEW_WAYS
ADVICE = ["idt-gone", "pge-before-identity"]


@cache
def code(version: str) -> OldHypervisor:
    found = old_kernel.code_of(debian_kernel(version).read_bytes(), version)
    assert isinstance(found, OldHypervisor)
    return found


def walked(
    version: str,
    way: Way,
    kind: XenCrash | None = None,
    *,
    la57: bool = False,
    participant: Participant | None = None,
) -> Verdict:
    old = hypervisor(way)
    old = replace(old, cpu=replace(old.cpu, la57=la57))
    return rehearse(
        shipped_kernel(),
        code(version).host(old),
        code(version).request(request(way, kind)),
        design=participant or code(version).participant,
        machine=shared(),
    )


@pytest.mark.parametrize("kind", KINDS, ids=identifier)
@pytest.mark.parametrize("version", VERSIONS)
def test_what_debian_ships_holds_into_a_64_bit_image(version: str, kind: XenCrash | None) -> None:
    verdict = walked(version, WIDE, kind)
    assert verdict.findings == ()
    assert (verdict.outcome, verdict.run.stop) == (Outcome.HOLDS, Stop.ENTRY)
    assert [each.rule for each in verdict.advice] == ADVICE
    assert verdict.handover.relocation_code.image == version
    assert bool(len(verdict.run.copies)) == (kind is None)


@pytest.mark.parametrize("version", VERSIONS)
def test_its_way_to_32_bits_loads_an_idt_with_a_base_that_4_levels_do_not_have(
    version: str,
) -> None:
    verdict = walked(version, LEGACY)
    assert [each.rule for each in verdict.findings] == ["legal-writes"]
    assert "lidt" in verdict.findings[0].message
    assert "is not canonical" in verdict.findings[0].message
    # A CPU that can do 5 levels takes 57 bits, whatever it runs with.
    wide = walked(version, LEGACY, la57=True)
    assert wide.findings == ()
    assert wide.run.registers.cr4 == 0
    assert {each.rule for each in wide.advice} == {"fault-window", "pge-before-identity"}


@pytest.mark.parametrize(
    ("was", "becomes", "rule"),
    [
        ("b820000000", "b8a0000000", "pge-before-identity"),
        ("0f22de", "0f1fc0", "access-mapped"),
        ("4889cd488da7", "4889c5488da7", "arrived"),
        ("b900020000", "b9ff010000", "destinations-complete"),
    ],
)
def test_one_wrong_instruction_falls(was: str, becomes: str, rule: str) -> None:
    own = code(VERSIONS[0]).participant
    before, after = bytes.fromhex(was), bytes.fromhex(becomes)
    assert before in own.code.data[: own.contract.same]
    data = own.code.data.replace(before, after, 1)
    verdict = walked(VERSIONS[0], WIDE, participant=replace(own, code=replace(own.code, data=data)))
    told = [each.rule for each in (*verdict.findings, *verdict.advice)]
    assert rule in told or verdict.outcome is Outcome.FALLS
    assert verdict.outcome is Outcome.FALLS


@pytest.mark.parametrize("version", VERSIONS)
def test_its_call_leaves_an_address_where_kexec_tools_purgatory_looks(version: str) -> None:
    """B02 of docs/history.md, in the very bytes: until 8b7a72f4d3 the image is called and not jumped to."""
    plan = prepare(shipped_kernel(), hypervisor(WIDE), request(WIDE))
    built = with_back_entry(build(plan, design=code(version).participant))
    found = asked_of(built)
    assert "command-line-as-given" in [each.rule for each in found] or (
        "destinations-complete" in [each.rule for each in found]
    )


# ------------------------------------------------------------------------------------ what it is not for


def test_it_is_called_by_a_hypervisor_alone_and_through_v2_alone() -> None:
    theirs = code(VERSIONS[0])
    bare = host.read(host.example(), "a host")
    with pytest.raises(BadInput, match="is a hypervisor, and a host describes none"):
        theirs.host(bare)
    with pytest.raises(BadInput, match="called through interface v2"):
        theirs.request(replace(request(WIDE), xen=V1))
    with pytest.raises(DesignError, match="is called by a hypervisor"):
        build(prepare(shipped_kernel(), bare, Request()), design=theirs.participant)


@pytest.mark.parametrize("times", [0, 2])
def test_a_hypervisor_whose_code_is_not_known_is_an_error(times: int) -> None:
    page = code(VERSIONS[0]).participant.code.data
    segments = [LinkedSegment(virt=Virt(0x20_0000), data=memoryview(page * times or bytes(4096)))]
    with pytest.raises(ImageError, match="stand nowhere" if not times else "stand in 2 places"):
        xen.find(segments, "a file")


def test_a_stack_outside_its_page_is_an_error() -> None:
    page = bytearray(code(VERSIONS[0]).participant.code.data)
    page[6:10] = (0x1234).to_bytes(4, "little")
    with pytest.raises(ImageError, match="its stack ends at 0x1234, outside its page"):
        xen.find([LinkedSegment(virt=Virt(0x20_0000), data=memoryview(bytes(page)))], "a file")


def test_the_command_says_whose_code_was_walked(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(debian_kernel(VERSIONS[0]))
    assert main(["rehearse", "--shipped", "--xen", "v2", "--from", path]) == 0
    assert "Xen's own kexec_reloc" in capsys.readouterr().out
    assert main(["rehearse", "--shipped", "--from", path]) == 2
    said = capsys.readouterr()
    assert (said.out, len(said.err.splitlines())) == ("", 1)
    assert "--xen v2" in said.err
