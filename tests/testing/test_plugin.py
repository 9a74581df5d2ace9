"""`pytest --tightrope`: a kernel that leaves as it should passes, one whose control page was written over
fails with the finding; and nobody who does not ask pays for it."""

from __future__ import annotations

import shutil
import tomllib

import pytest

from tests.conftest import REPOSITORY, debian_kernel, lacking
from tightrope.testing import plugin

pytest_plugins = ["pytester"]
ONLY = ("-p", "no:tightrope", "-p", "tightrope.testing.plugin")
"""By its module's name, whether or not the environment was set up since it has an entry point."""
SOUND = """
def test_kexec(tightrope_kexec):
    watched = tightrope_kexec({kernel!r}, limit=1200, walk=False, append="cryptomgr.notests")
    assert "Linux version 7.3" in watched.heard.line
"""
SABOTAGE = """
from tightrope.deeds.watch import deed
from tightrope.deeds.watch.observed import control_page

real = deed.arrive

def arrive(guest, **options):
    call = real(guest, **options)
    at = control_page(call.memory, call.kernel, call.registers) + call.kernel.found.symbols["identity_mapped"]
    guest.read(at, 1)
    assert guest.gdb(b"M%x,2:0f0b" % at) == b"OK"
    call.memory.forget()
    return call

def test_broken(tightrope_kexec, monkeypatch):
    monkeypatch.setattr(deed, "arrive", arrive)
    tightrope_kexec({kernel!r}, limit=1200, walk=False, append="cryptomgr.notests")
"""


def test_it_is_registered() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"tightrope": plugin.__name__}


def test_without_the_option_nothing_is_run_and_nothing_heavy_imported(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        """
        def test_kexec(tightrope_kexec):
            raise AssertionError("it was run")

        def test_imports():
            import sys
            heavy = {"numpy", "unicorn", "tightrope.deeds", "tightrope.model"}
            assert not heavy & set(sys.modules)
        """
    )
    done = pytester.runpytest_subprocess(*ONLY, "-rs")
    done.assert_outcomes(passed=1, skipped=1)
    done.stdout.fnmatch_lines(["*needs QEMU and minutes: pytest --tightrope"])


def test_a_kernel_that_is_none_fails_in_one_line(pytester: pytest.Pytester) -> None:
    pytester.makepyfile('def test_kexec(tightrope_kexec):\n    tightrope_kexec("no-such-file")\n')
    done = pytester.runpytest_subprocess(*ONLY, "--tightrope")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["tightrope: no-such-file: cannot be read: No such file*"])


def test_a_sound_kernel_passes_and_a_sabotaged_one_fails_with_the_finding(
    pytester: pytest.Pytester,
) -> None:
    if shutil.which("qemu-system-x86_64") is None:
        lacking("no qemu-system-x86_64 here: run scripts/system-packages")
    kernel = str(debian_kernel("cloud-amd64-7.3"))
    pytester.makepyfile(test_it=SOUND.format(kernel=kernel) + SABOTAGE.format(kernel=kernel))
    done = pytester.runpytest_subprocess(*ONLY, "--tightrope")
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(
        ["It falls at step 1: the guest's Linux 7.3*", "*control-page-is-the-kernels*"]
    )
