"""The parts of a split dump as one core.

    part 1   |=== its frames ===|
    part 2                      |=== its frames ===|
    data     | pages of part 1  | pages of part 2  |

Source: makedumpfile(8), --split: each file has the same header and bitmaps, and the descriptors and
pages of its own stretch of memory (struct kdump_sub_header, start_pfn_64 and end_pfn_64).

Rules: parts are of one dump, or they are refused; whether one is missing shows as memory left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tightrope.errors import CoreError
from tightrope.model.dump import Core, Data, Pieces


class Joined:
    """Data one behind the other; see `model.dump.Data`."""

    def __init__(self, parts: Sequence[Data]) -> None:
        self._parts = tuple(parts)
        self.begins = np.concatenate([[0], np.cumsum([each.size for each in parts])])
        """Where each part's first byte is, and the end of the last."""
        self.size = int(self.begins[-1])
        """Bytes of all."""

    def read(self, offset: int, size: int) -> bytes:
        """These of them, which may lie in several."""
        out, number = b"", int(np.searchsorted(self.begins, offset, side="right")) - 1
        while size > len(out):
            into = offset + len(out) - int(self.begins[number])
            part = self._parts[number]
            out += part.read(into, min(size - len(out), part.size - into))
            number += 1
        return out


def join(cores: Sequence[Core]) -> Core:
    """All parts together.  Raises CoreError for what are no parts of one dump."""
    first = cores[0]
    for each in cores:
        if each.container.part is None:
            raise CoreError(
                "is not a part of a split dump, and others were named", source=each.source
            )
        same = (each.machine, each.bits, each.container.written, dict(each.notes.vmcoreinfo))
        if same != (
            first.machine,
            first.bits,
            first.container.written,
            dict(first.notes.vmcoreinfo),
        ):
            raise CoreError(f"is of another dump than {first.source}", source=each.source)
    data = Joined([each.data for each in cores])
    starts = np.concatenate([each.held.starts for each in cores])
    ends = np.concatenate([each.held.ends for each in cores])
    moved = [
        each.offsets + np.uint64(at) for each, at in zip(cores, data.begins.tolist(), strict=False)
    ]
    if not len(starts):
        raise CoreError(
            "no page of its memory is in the files", source=first.source, field="bitmap"
        )
    order = np.argsort(starts, kind="stable")
    starts, ends, offsets = starts[order], ends[order], np.concatenate(moved)[order]
    if (starts[1:] < ends[:-1]).any():
        raise CoreError(
            "two parts have the same page", source=" ".join(each.source for each in cores)
        )
    packed = sorted({how for each in cores for how in each.container.compression})
    told = tuple(dict.fromkeys(each for core in cores for each in core.unused))
    return replace(
        first,
        source=f"{first.source} and {len(cores) - 1} more",
        container=replace(first.container, part=None, compression=tuple(packed)),
        data=data,
        held=Pieces(starts=starts, ends=ends),
        offsets=offsets,
        unused=told,
    )
