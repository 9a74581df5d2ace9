"""Xen 4.17 with Debian's dom0 in QEMU: asked, loaded, and left for bare Linux, as the new kernel tells.

    facts    dom0 -> here: what Xen says of itself becomes a host file
    here     the kexec is planned and rehearsed on that host, and written
    disk     here -> dom0: `tightrope perform xen` takes it

Each boot ends in one jump; what Xen refuses is asked for in the same boots.
"""

from __future__ import annotations

import json

import pytest

from tests.conftest import debian_kernel
from tests.perform.dom0 import Dom0
from tests.qemu.pcs import QUIET, initramfs, qemu, token
from tightrope import host, image
from tightrope.model import Host, Outcome, Plan, XenInterface
from tightrope.perform import load_file
from tightrope.plan import Request
from tightrope.rehearse import rehearse


def facts(dom0: Dom0) -> dict[str, object]:
    """What `tightrope perform xen --json` says in there."""
    status, lines = dom0.do("tightrope perform xen --json")
    assert status == 0, lines
    said: dict[str, object] = json.loads("\n".join(lines))
    return said


def old_kernel(said: dict[str, object]) -> Host:
    """The Xen in the guest as a host here."""
    return host.read(host.xen_file(said, "the guest"), "the guest")


def rehearsed(old: Host, words: str, *, crash: bool = False) -> tuple[Plan, bytes]:
    """Debian's cloud kernel on that Xen: rehearsed here, and what is carried into the guest."""
    path = debian_kernel("cloud-amd64")
    got = rehearse(
        image.read(path.read_bytes(), path.name),
        old,
        Request(
            initrd=initramfs("amd64"),
            command_line=f"{QUIET} {words}",
            crash=crash,
            xen=XenInterface.V2,
        ),
    )
    assert got.outcome is Outcome.HOLDS, got.findings
    plan = got.handover.plan
    return plan, load_file.write(load_file.of(plan, got.outcome.value))


@pytest.mark.slow
def test_from_xen_to_bare_linux() -> None:
    qemu().close()
    word = token()
    with Dom0() as dom0:
        said = facts(dom0)
        assert said["version"] == "4.17"
        assert said["loaded"] == {"DEFAULT": False, "CRASH": False}
        _plan, load = rehearsed(old_kernel(said), f"tightrope.token={word}")
        path = dom0.put("load", load)
        status, lines = dom0.do(f"tightrope perform xen {path}")
        assert (status, lines[-1]) == (
            0,
            "tightrope: would load it and jump; say --really to do it",
        )
        status, lines = dom0.do(f"tightrope perform xen {path} --stay --really")
        assert (status, lines[-1]) == (0, "loaded")
        assert facts(dom0)["loaded"] == {"DEFAULT": True, "CRASH": False}
        dom0.pc.say(f"tightrope perform xen {path} --really\n")
        lines = dom0.wait(f"tightrope: userspace {word} ")
    release = debian_kernel("cloud-amd64").name.removeprefix("vmlinuz-")
    assert lines[-1] == f"tightrope: userspace {word} {release} x86_64"
