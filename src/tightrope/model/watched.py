"""A kexec that was watched in a running guest.

Rules: frozen, keyword-only, slotted; nouns only, see the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tightrope.memory import Extent, Virt
    from tightrope.model.verdict import Verdict
    from tightrope.model.walk import Step


@dataclass(frozen=True, kw_only=True, slots=True)
class Passed:
    """A place that the guest came to."""

    name: str
    step: Step | None
    """Of the walk; None behind the entry."""
    rip: int
    cr3: int
    seconds: float
    """Since the call, while the guest ran."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Apart:
    """What a guest has twice in its memory, written by two programs apart from each other."""

    kernels: bytes
    """relocate_kernel in the kernel's own text."""
    laid: bytes
    """The control page."""
    filled: tuple[Extent, ...]
    """Offsets in both that are filled in when an image is loaded."""
    labels: Mapping[str, int]
    """Name -> offset in both."""
    segments: tuple[Extent, ...]
    """Where struct kimage says that they go."""
    destinations: NDArray[np.int64]
    sources: NDArray[np.int64]
    """Frame numbers, as the page list has them."""
    broken: str | None
    """What is wrong with the list, None when it ends as it should."""
    routine: str = "relocate_kernel"
    """What the kernel calls its relocation code."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """The new kernel's first line on the guest's console."""

    line: str
    seconds: float
    """Since the call, while the guest ran."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Watched:
    """What was said of it before it was let go, and what was seen then."""

    verdict: Verdict
    kernel: str
    """What it is: Linux, Xen."""
    version: str | None
    """What the old kernel's banner says."""
    text: Virt
    """Where KASLR has put it."""
    passed: tuple[Passed, ...]
    ended: str | None
    """Why it did not come to the last place, None where it did, or was not let go."""
    heard: Heard | None
    """Its first line; None where no console is read, or it said none."""
    standing: bool
    """It was left standing at the call, for its owner to look at."""
