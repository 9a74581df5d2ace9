"""Load and jump beside kexec-tools: the same guest and images, in turn, the median of a few rounds.

    load       the command from its start to its end, by the guest's own clock
    stopping   from the start of the command that jumps to "Starting new kernel", by the guest's own clock
    blackout   from "Starting new kernel" to the new kernel's first line, by a timer of the machine's

Rules: the guest's CPU executes an instruction a nanosecond (`Board.counted`), so a second is a thousand
million instructions, and comes out the same on any computer at any load.  A CPU's SHA and AVX instructions
count as one each and so does each word of a copy; caches and slow memory are not in it.  What is hashed
and what is copied is shown in bytes, of kexec-tools as `kexec -d` says it.

`python -m bench.kexec [ROUNDS]` runs this alone.  kexec-tools are this machine's and, where
scripts/fetch-kexec-tools brought it, the newest.
"""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from bench.clock import show
from tests.conftest import debian_kernel
from tests.perform.dom0 import BareLinux, Guest
from tests.perform.services import EfiLinux
from tests.qemu.pcs import QUIET, initramfs
from tightrope import host, image, plan
from tightrope.deeds import old_kernel, performable
from tightrope.model import OnDamage, Plan, SegmentRole
from tightrope.perform import load_file
from tightrope.plan import Request

MEBIBYTES = 640
FLAVOUR = "cloud-amd64"
LINE = "console=ttyS0 earlyprintk=ttyS0,115200 panic=-1 tightrope.token=there"
INSTALLED, NEWEST = Path("/usr/sbin/kexec"), Path(".cache/kernels/kexec-tools-newest/kexec.amd64")
EXEC = "tightrope exec --really"
LEFT, FIRST = "Starting new kernel", "Linux version"
TIMER_HZ, TIMER_BITS = 3_579_545, 24
"""The ACPI PM timer's rate and width (ACPI 6.5, 4.8.3.3)."""
BY_BIOS, BY_OVMF = 0x608, 0xB008
"""Its port, which firmware chooses: SeaBIOS's PORT_ACPI_PM_BASE, OVMF's PcdAcpiPmBaseAddress, and 8."""


@dataclass
class Way:
    """A way to load and to jump, and what it took in each round, in seconds."""

    name: str
    load: str
    program: str = ""
    """kexec itself, where the way is kexec-tools'."""
    jump: str = ""
    """Without it only the load is measured."""
    work: str = ""
    """What is hashed and copied after the jump."""
    loads: list[float] = field(default_factory=list)
    stops: list[float] = field(default_factory=list)
    blackouts: list[float] = field(default_factory=list)


def planned(*, verify: bool, unpack: bool = False) -> Plan:
    """A plan for the guest."""
    path = debian_kernel(FLAVOUR)
    new = image.read(path.read_bytes(), path.name)
    code = old_kernel.read(path.read_bytes(), path.name)
    request = Request(
        initrd=gzip.compress(initramfs("amd64")),
        command_line=LINE,
        verify=OnDamage.HALT if verify else None,
        from_top=True,
    )
    old = code.host(host.read(host.example(pc=MEBIBYTES), "a PC"))
    return plan.prepare(image.unpacked(new) if unpack else new, old, code.request(request))


def work_of(made: Plan) -> str:
    """What is hashed and copied of a plan of ours."""
    hashed = sum(len(e.data) for e in made.segments if e.role is not SegmentRole.PURGATORY)
    hashed *= made.purgatory is not None
    copied = sum(e.destination.size for e in made.segments)
    return f"hashes {hashed:,} bytes, copies at most {copied:,}"


def work_of_tools(said: Sequence[str], *, verify: bool) -> str:
    """The same of a load that `kexec -d` tells: it hashes whole segments, all but its purgatory's."""
    text = "\n".join(said)
    starts, sizes = (
        [int(each, 16) for each in re.findall(rf"^segment\[\d+\]\.{name} += (0x\w+)", text, re.M)]
        for name in ("mem", "memsz")
    )
    (entry,) = [int(each, 16) for each in re.findall(r"entry = (0x\w+)", text)]
    hashed = sum(
        size for start, size in zip(starts, sizes, strict=True) if not start <= entry < start + size
    )
    return f"hashes {hashed * verify:,} bytes, copies at most {sum(sizes):,}"


def libraries(program: Path) -> Iterator[Path]:
    """What the dynamic linker loads for a program: what lies beside it, else this machine's."""
    beside = program.parent / "lib"
    if beside.is_dir():
        yield from beside.glob("libxen*.so.*")
        yield from (beside / "libc.so.6", beside / "ld-linux-x86-64.so.2")
        return
    said = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    for line in said.splitlines():
        yield from (Path(word) for word in line.split() if word.startswith("/"))


def ticks(guest: Guest, port: int) -> int:
    """The machine's timer, as QEMU's monitor reads it."""
    return int(guest.pc.monitor(f"i/w {port:#x}").split("=")[1], 16)


def uptimes(lines: Sequence[str]) -> list[float]:
    """What `cat /proc/uptime` said, in seconds."""
    found = [re.fullmatch(r"(\d+\.\d\d) \d+\.\d\d", each) for each in lines]
    return [float(each[1]) for each in found if each]


def booted(files: tuple[tuple[str, Path], ...]) -> Guest:
    """A guest that has read its files."""
    guest = BareLinux(FLAVOUR, mebibytes=MEBIBYTES, files=files, counted=True).up()
    guest.do(
        "dmesg -n 8; chmod +x kexec* lib*/*; cat k2 initrd.gz verified bare unpacked > /dev/null"
    )
    return guest


def done(guest: Guest, way: Way, command: str) -> list[str]:
    """What a command said that has to end well."""
    status, lines = guest.do(command)
    if status:
        raise SystemExit(f"{way.name}: {lines}")
    return lines


def jump(way: Way, files: tuple[tuple[str, Path], ...]) -> None:
    """One boot, one load, one jump."""
    with booted(files) as guest:
        timed(guest, way, BY_BIOS)


def timed(guest: Guest, way: Way, port: int) -> None:
    """One load and one jump of a guest."""
    done(guest, way, way.load)
    guest.pc.say(f"cat /proc/uptime; {way.jump}\n")
    lines = guest.wait(LEFT)
    left = ticks(guest, port)
    guest.wait(FIRST)
    way.blackouts.append((ticks(guest, port) - left) % (1 << TIMER_BITS) / TIMER_HZ)
    stamp = re.search(r"\[ *(\d+\.\d+)\]", lines[-1])
    assert stamp is not None, lines
    way.stops.append(float(stamp[1]) - uptimes(lines)[0])
    progress(way, f"jump {way.blackouts[-1]:.3f}, its command {way.stops[-1]:.2f}")


def by_systemd(ways: Sequence[Way], files: tuple[tuple[str, Path], ...]) -> None:
    """The same on a machine that OVMF started and systemd runs: `systemctl kexec`, and `exec` by it."""
    inside = {f"home/{name}": path.read_bytes() for name, path in files}
    for way in ways:
        with EfiLinux(
            FLAVOUR, inside, mebibytes=2 * MEBIBYTES, words=QUIET, counted=True
        ).up() as guest:
            guest.do("dmesg -n 8; chmod +x kexec* lib*/*")
            # systemctl comes back at once, and the service that asked is ended.
            timed(guest, replace(way, jump=f"{way.jump}; sleep 600"), BY_OVMF)


def progress(way: Way, figure: str) -> None:
    """One measurement, on stderr: a round takes minutes."""
    print(f"{way.name}: {figure}", file=sys.stderr, flush=True)


def figures(rounds: int) -> list[Way]:
    """Every way, measured in turn."""
    plans = {
        "verified": planned(verify=True),
        "bare": planned(verify=False),
        "unpacked": planned(verify=True, unpack=True),
    }
    ways: list[Way] = []
    files: list[tuple[str, Path]] = [("k2", debian_kernel(FLAVOUR))]
    image_of = f"k2 --initrd=initrd.gz --command-line='{LINE}'"
    programs = [each for each in (INSTALLED, NEWEST) if each.exists()]
    for number, each in enumerate(programs):
        name, folder = f"kexec{number}", f"lib{number}"
        files += [
            (name, each),
            *((f"{folder}/{library.name}", library) for library in libraries(each)),
        ]
        run = f"{folder}/ld-linux-x86-64.so.2 --library-path {folder} ./{name}"
        ways += [
            Way(name, f"{run} -c -l {image_of}", run, f"{run} -e"),
            Way(f"{name} -i", f"{run} -c -i -l {image_of}", run, f"{run} -e"),
            Way(f"{name} -s", f"{run} -s -l {image_of}", run),
        ]
    # By a Python of its own, as on any machine: the guest's `tightrope` is a fork of one that is kept.
    ours = "alone tightrope load {} --really --no-rehearsal"
    ways += [
        Way(
            f"tightrope, a plan, {name}",
            ours.format(name),
            jump=EXEC,
            work=work_of(made),
        )
        for name, made in plans.items()
    ]
    files_of = ours.format(f"k2 --initrd initrd.gz --append '{LINE}' --via {{}}")
    ways += [
        Way("tightrope, files, kexec_load", files_of.format("kexec_load"), jump=EXEC),
        Way("tightrope, files, kexec_file_load", files_of.format("kexec_file_load")),
    ]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "initrd.gz").write_bytes(gzip.compress(initramfs("amd64")))
        for name, made in plans.items():
            (place / name).write_bytes(load_file.write(performable.of(made, "holds")))
        files += [(name, place / name) for name in ("initrd.gz", *plans)]
        given = tuple(files)
        with booted(given) as guest:
            for number in range(len(programs)):
                named_as_it_says(guest, ways, number)
            for _ in range(rounds):
                for way in ways:
                    lines = done(guest, way, f"cat /proc/uptime; {way.load} && cat /proc/uptime")
                    first, last = uptimes(lines)
                    way.loads.append(last - first)
                    progress(way, f"load {way.loads[-1]:.2f}")
        for _ in range(rounds):
            for way in ways:
                if way.jump:
                    jump(way, given)
        with_systemd = [
            Way("kexec-tools and `systemctl kexec`", ways[0].load, jump="systemctl kexec"),
            Way("tightrope and `systemctl kexec`", ways[-2].load, jump=EXEC),
        ]
        by_systemd(with_systemd, given)
    return [*ways, *with_systemd]


def named_as_it_says(guest: Guest, ways: Sequence[Way], number: int) -> None:
    """The ways of a kexec get its version for their name, and what its loads would hash and copy."""
    name = f"kexec{number}"
    for way in ways:
        if way.name.split()[0] == name:
            (version,) = re.findall(
                r"kexec-tools (\S+)", "\n".join(done(guest, way, f"{way.program} -v 2>&1"))
            )
            way.name = way.name.replace(name, f"kexec-tools {version}")
            if way.jump:
                words = way.load.removeprefix(way.program)
                told = done(guest, way, f"{way.program} -d {words} 2>&1")
                way.work = work_of_tools(told, verify=" -i " not in words)


def loads_and_jumps(rounds: int = 5) -> None:
    """The table."""
    ways = figures(rounds)
    tools = ways[0]
    for way in ways:
        if not way.loads:
            continue
        load = median(way.loads)
        beside = f"{tools.name} / this: {median(tools.loads) / load:.2f}"
        show(f"{way.name}: load", f"{load:.2f} s", beside)
    for way in ways:
        if not way.jump:
            continue
        blackout, stop = median(way.blackouts), median(way.stops)
        show(
            f"{way.name}: jump to the first line",
            f"{blackout:.3f} s",
            f"this / {tools.name}: {blackout / median(tools.blackouts):.2f}; {way.work}",
        )
        show(f"{way.name}: its command until the old kernel ends", f"{stop:.2f} s")


if __name__ == "__main__":
    loads_and_jumps(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
