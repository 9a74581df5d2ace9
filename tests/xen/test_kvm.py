"""The jump through a hypervisor on this computer's own CPU: it says what the emulator says."""

from __future__ import annotations

import pytest

from tests.rehearse.runs import shipped_kernel
from tests.xen.runs import KINDS, OUT, WAYS, Way, hypervisor, identifier, request, shared, walked
from tightrope import check
from tightrope.deeds.rehearse import build
from tightrope.errors import CannotBe
from tightrope.machine.kvm import Kvm
from tightrope.machine.kvm.capability import capability
from tightrope.model import Handover, Paging, XenCrash
from tightrope.plan import prepare
from tightrope.sabotage import XEN_SABOTAGES

LONG_MODE = [way for way in WAYS if walked(way).long_mode]
"""A KVM of today may have no paging but this; the other modes are the emulator's."""


def built(way: Way, kind: XenCrash | None, sabotage: str | None = None) -> Handover:
    plan = prepare(shipped_kernel(), hypervisor(way), request(way, kind))
    return build(plan, design="two-tables", sabotage=XEN_SABOTAGES[sabotage] if sabotage else None)


@pytest.mark.parametrize("way", LONG_MODE, ids=identifier)
@pytest.mark.parametrize("kind", KINDS, ids=identifier)
def test_it_is_told_alike(way: Way, kind: XenCrash | None, kvm: Kvm, kvm_free: Kvm) -> None:
    handover = built(way, kind)
    ours = shared().run(handover)
    segments = [each for each in handover.intent.segments if each.name != "entry stub"]
    wanted = [bytes(ours.memory.read(each.destination)) for each in segments]
    for machine in (kvm, kvm_free):
        theirs = machine.run(handover)
        assert [each.message for each in check.check(handover, theirs)] == []
        assert [bytes(theirs.memory.read(each.destination)) for each in segments] == wanted
        assert theirs.registers.general == ours.registers.general
        if machine is kvm:
            assert (theirs.copies[:, 1:] == ours.copies[:, 1:]).all()


def test_leaving_long_mode_needs_a_kvm_that_has_pae(kvm: Kvm) -> None:
    handover = built(OUT, None)
    if Paging.PAE in capability().missing:
        with pytest.raises(CannotBe, match="has no pae paging"):
            kvm.run(handover)
    else:
        assert check.check(handover, kvm.run(handover)) == ()


@pytest.mark.parametrize(
    "name",
    ["xen-pseudo-cr3", "xen-pseudo-entry", "xen-fixmap-nx", "xen-no-overwrite", "xen-bare-v"],
)
def test_what_falls_in_the_model_falls_on_a_cpu(name: str, kvm: Kvm) -> None:
    handover = built(LONG_MODE[0], None, name)
    run = kvm.run(handover)
    first = check.check(handover, run)[0]
    assert (first.rule, first.step) == (XEN_SABOTAGES[name].rule, XEN_SABOTAGES[name].step)
    assert run.stop == shared().run(handover).stop
