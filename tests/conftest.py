"""What all tests share: the real kernels, and how Hypothesis runs.

Rules: only fixtures that several rooms' tests need live here; a test that needs a part which this
machine lacks skips on a laptop with the command that gets it, and fails where CI is set.  Hardware is the one
exception: a test that needs a CPU's feature or /dev/kvm skips wherever it is not, with the reason.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tightrope.machine.kvm import Kvm, Pace

REPOSITORY = Path(__file__).resolve().parent.parent
IN_CI = "CI" in os.environ

# A run in the background or under nohup ignores these, and so would whatever it starts: tests of
# Ctrl-C would fail.  What is caught is as it always was in a process that is started.
for _each in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_each) is signal.SIG_IGN:
        signal.signal(_each, lambda _number, _frame: None)

# Emulated CPUs and busy machines make single examples slow: the time limit is pytest-timeout's.
settings.register_profile("laptop", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if IN_CI else "laptop")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark as slow what tests/slow.txt lists; `make quick` leaves it out.

    Workers that share the files begin with those that take longest, by the seconds that are listed, so
    that none of them is left alone with one at the end.
    """
    listed = (REPOSITORY / "tests" / "slow.txt").read_text(encoding="utf-8").splitlines()
    slow: set[str] = set()
    seconds: Counter[str] = Counter()
    for line in listed:
        name, _, told = line.partition(" ")
        slow.add(name)
        seconds[name.partition("::")[0]] += int(told or 0)
    for item in items:
        if item.nodeid.partition("[")[0] in slow:
            item.add_marker(pytest.mark.slow)
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: -seconds[item.nodeid.partition("::")[0]])


def lacking(what: str) -> NoReturn:
    """Skip on a laptop, fail in CI; `what` says what is lacking and how to get it."""
    if IN_CI:
        pytest.fail(what)
    pytest.skip(f"{what} (set CI=1 to fail instead)")


def without_hardware(why: str) -> NoReturn:
    """Skip, in CI too: hardware, unlike a package, cannot be installed; `why` says what is missing."""
    pytest.skip(f"hardware: {why}")


def fetched_kexec(name: str) -> Path:
    """A kexec that scripts/fetch-kexec-tools put there: `kexec-tools-newest`, `kexec-tools-i386`."""
    path = REPOSITORY / ".cache/kernels" / name / "kexec"
    if not path.exists():
        lacking(f"no {name} here: run scripts/fetch-kexec-tools")
    return path


def debian_kernel(flavour: str) -> Path:
    """The vmlinuz that scripts/fetch-kernels recorded for a flavour."""
    kernels = REPOSITORY / ".cache" / "kernels" / "kernels.txt"
    rows = kernels.read_text().splitlines() if kernels.exists() else []
    for row in rows:
        name, path = row.split(maxsplit=1)
        if name == flavour and (REPOSITORY / path).is_file():
            return REPOSITORY / path
    lacking(f"no Debian {flavour} kernel here: run scripts/fetch-kernels")


@pytest.fixture(scope="session", autouse=True)
def large_files_are_unpacked_once() -> Iterator[None]:
    """What rehearsals unpack beside the walk is remembered for the whole run."""
    from tests.unpacked_once import unpacked_once

    with unpacked_once():
        yield


@pytest.fixture(scope="session")
def kvm() -> Iterator[Kvm]:
    """This computer's KVM, stepping, for old kernels in long mode."""
    from tightrope.machine.kvm import Pace

    yield from _kvm(Pace.STEPPING)


@pytest.fixture(scope="session")
def kvm_free() -> Iterator[Kvm]:
    """This computer's KVM at full speed."""
    from tightrope.machine.kvm import Pace

    yield from _kvm(Pace.FREE)


def _kvm(pace: Pace) -> Iterator[Kvm]:
    from tightrope.errors import MissingPart
    from tightrope.machine.kvm import Kvm
    from tightrope.machine.kvm.capability import capability
    from tightrope.model import Paging

    try:
        machine = Kvm(pace)
        missing = capability().missing
    except MissingPart as err:
        without_hardware(str(err))
    if Paging.X86_64 in missing:
        machine.close()
        without_hardware(f"this computer's KVM has no long mode: {missing[Paging.X86_64]}")
    yield machine
    machine.close()


@pytest.fixture(scope="session")
def debian_amd64() -> Path:
    """Debian's newest amd64 kernel, an xz bzImage."""
    return debian_kernel("amd64")


@pytest.fixture(scope="session")
def debian_cloud() -> Path:
    """Debian's newest cloud-amd64 kernel, an lz4 bzImage."""
    return debian_kernel("cloud-amd64")


@pytest.fixture(scope="session")
def debian_686() -> Path:
    """Debian's newest kernel for i386 without PAE, an xz bzImage with one entry, the 32-bit one."""
    return debian_kernel("686")


@pytest.fixture(scope="session")
def debian_686_pae() -> Path:
    """Debian's newest kernel for i386 with PAE, an xz bzImage with one entry, the 32-bit one."""
    return debian_kernel("686-pae")


@pytest.fixture(scope="session")
def xen_hypervisor() -> Path:
    """Debian's Xen, a gzip file that holds a 32-bit ELF file with both Multiboot headers."""
    return debian_kernel("xen-amd64")
