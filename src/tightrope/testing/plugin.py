"""pytest's plugin: --tightrope, and a fixture that has a kernel leave by kexec under watch.

    def test_kexec(tightrope_kexec):
        tightrope_kexec("arch/x86/boot/bzImage")

Rules: registered with every pytest of an environment that has tightrope, so that it imports
nothing but pytest until the fixture is used; without --tightrope tests that ask for it are skipped,
with the word to say.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tightrope.model.watched import Watched


class Kexec:
    """What the fixture gives: call it with a kernel."""

    def __call__(
        self,
        kernel: str | Path,
        *,
        new: str | Path | None = None,
        append: str = "",
        memory: int = 512,
        qemu: tuple[str, ...] = ("-cpu", "qemu64"),
        limit: float = 600.0,
        walk: bool = True,
    ) -> Watched:
        """Boot `kernel` in QEMU, have it load `new` (itself, where none is given) by
        kexec_file_load(2) and leave for it, and watch that.

        `memory` in MiB, `limit` in seconds for each wait, `append` for both kernels.  The test
        fails with the finding, with where the guest came no further, or with what kept it from
        leaving.
        """
        __tracebackhide__ = True
        from tightrope.errors import TightropeError
        from tightrope.report.text import text
        from tightrope.testing.leave import Leaving, leave
        from tightrope.views.watched import VIEW

        how = Leaving(memory=memory, qemu=qemu, append=append, limit=limit, walk=walk)
        try:
            done = leave(Path(kernel), Path(new or kernel), how)
        except TightropeError as err:
            pytest.fail(f"tightrope: {err}", pytrace=False)
        if done.verdict.findings or done.ended:
            pytest.fail(text(VIEW.sheet(done), detail=False), pytrace=False)
        return done


def pytest_addoption(parser: pytest.Parser) -> None:
    """--tightrope."""
    parser.getgroup("tightrope").addoption(
        "--tightrope",
        action="store_true",
        help="run the tests that have a kernel leave by kexec, in QEMU and under watch",
    )


@pytest.fixture
def tightrope_kexec(request: pytest.FixtureRequest) -> Kexec:
    """Boot a kernel, kexec it under `tightrope watch`, fail with the finding."""
    if not request.config.getoption("--tightrope"):
        pytest.skip("needs QEMU and minutes: pytest --tightrope")
    return Kexec()
