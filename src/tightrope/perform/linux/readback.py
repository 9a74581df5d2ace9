"""What the kernel says after a load, against what was asked for and what it said before.

    (State before, State after, crash?) -> each thing that is not as the load should have left it

Rules: a fact that no file tells disagrees with nothing.  What can be read: whether an image of
each kind is loaded, how much crash memory there is, how many loads are left.  Where the segments
lie no file tells.
"""

from __future__ import annotations

from collections.abc import Iterator

from tightrope.perform.linux.state import State

_KINDS = ("a kexec image", "a crash image")


def disagreements(before: State, after: State, *, crash: bool) -> tuple[str, ...]:
    """What is not so, a clause each; none after a load that did what it should."""
    return tuple(_disagreements(before, after, crash=crash))


def _disagreements(before: State, after: State, *, crash: bool) -> Iterator[str]:
    if (after.crash_loaded if crash else after.loaded) is False:
        yield f"the kernel took the load and says that {_KINDS[crash]} is not loaded"
    was, now = (before.loaded, after.loaded) if crash else (before.crash_loaded, after.crash_loaded)
    if None not in (was, now) and was != now:
        yield f"{_KINDS[not crash]} {'was there and is gone' if was else 'is there and was not'}"
    if crash and after.crash_size is not None and after.crash_regions:
        listed = sum(each.size for each in after.crash_regions)
        if after.crash_size != listed:
            yield (
                f"the kernel keeps {after.crash_size:#x} bytes for a crash,"
                f" and /proc/iomem lists {listed:#x}"
            )
    for name, one, other, loads in (
        ("kexec_load_limit_reboot", before.limits.reboot, after.limits.reboot, not crash),
        ("kexec_load_limit_panic", before.limits.crash, after.limits.crash, crash),
    ):
        if one is not None and other != one - loads:
            yield f"kernel.{name} was {one} and is {other}, not {one - loads}"
