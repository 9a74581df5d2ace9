"""The load hypercall's argument, byte for byte, as dom0 hands it over.

    v1   one structure; dom0 fills the even slots of page_list, the hypervisor the odd ones
    v2   one structure, and an array of segments; those without a buffer are only mapped

Rules: where the buffers lie in dom0's memory is the caller's to say: this file puts numbers into
the structures of `abi.xen`, and issues nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from tightrope.abi import xen as abi
from tightrope.errors import PlanError
from tightrope.model import Bare, PageList, Plan, UnderXen, XenCompat, XenV1, XenV2


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadCall:
    """`kexec_op(command, argument)`; `segments` is what the argument points to, empty under v1."""

    command: abi.KexecCommand
    argument: bytes
    segments: bytes


def load_call(plan: Plan, *, buffers: Sequence[int] = (), segments_at: int = 0) -> LoadCall:
    """The hypercall that loads a plan.

    `buffers` are dom0's linear addresses of the plan's segments, in their order, and `segments_at`
    that of the array, for v2.  Raises PlanError for a plan that asks no hypervisor.
    """
    match plan.through:
        case Bare():
            raise PlanError("the plan asks no hypervisor", source=plan.host.source, field="xen")
        case XenV1() | XenCompat():
            argument = _v1(plan, plan.through)
            return LoadCall(command=abi.KexecCommand.LOAD_V1, argument=argument, segments=b"")
        case XenV2():
            return _v2(plan, plan.through, buffers, segments_at)
        case _:
            assert_never(plan.through)


def _v2(plan: Plan, load: XenV2, buffers: Sequence[int], segments_at: int) -> LoadCall:
    assert len(buffers) == len(plan.segments)
    rows = [
        abi.KEXEC_SEGMENT.pack(
            buf=at,
            buf_size=len(each.data),
            dest_maddr=each.destination.start,
            dest_size=each.destination.size,
        )
        for at, each in zip(buffers, plan.segments, strict=True)
    ]
    rows += [
        abi.KEXEC_SEGMENT.pack(dest_maddr=each.extent.start, dest_size=each.extent.size)
        for each in load.mapped
    ]
    argument = abi.KEXEC_LOAD.pack(
        type=_kind(load),
        arch=abi.EM_386 if load.legacy_exit else abi.EM_X86_64,
        nr_segments=len(rows),
        segments=segments_at,
        entry_maddr=plan.entry,
    )
    return LoadCall(command=abi.KexecCommand.LOAD, argument=argument, segments=b"".join(rows))


def _kind(load: UnderXen) -> abi.KexecType:
    return abi.KexecType.DEFAULT if load.crash is None else abi.KexecType.CRASH


def _v1(plan: Plan, load: PageList) -> bytes:
    slots = [0] * abi.NO_PAGES
    for each in load.pages:
        slots[each.slot] = each.machine
    layout = abi.KEXEC_LOAD_V1 if plan.paging.long_mode else abi.KEXEC_LOAD_V1_I386
    return layout.pack(
        type=_kind(load),
        page_list=tuple(slots),
        indirection_page=plan.head,
        start_address=plan.entry,
    )
