"""`tightrope host`: old kernels described, from an example, this machine, or what a Xen says."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tightrope.cli import files, outputs
from tightrope.cli.arguments import force, interfaces, modes, shown
from tightrope.cli.command import HOLDS, command
from tightrope.cli.show import ready, show
from tightrope.cli.values import number, path, region
from tightrope.errors import BadInput

if TYPE_CHECKING:
    from tightrope.memory import Extent


def example_of(parser: ArgumentParser) -> None:
    """Which example."""
    parser.add_argument(
        "--mode",
        choices=modes(),
        default="x86_64",
        help="the old kernel's page-table format (%(default)s)",
    )
    parser.add_argument(
        "--split",
        type=number,
        metavar="PAGE_OFFSET",
        help="the memory split of a 32-bit kernel, such as 0xc0000000; 0x02000000 is 4G/4G, with V in"
        " a fixmap",
    )
    parser.add_argument(
        "--crash",
        type=region,
        metavar="SIZE|START+SIZE",
        help="a crash region: 256M, where crashkernel=256M would be put, or 0x33000000+0x10000000",
    )
    parser.add_argument(
        "--pc",
        type=int,
        metavar="MIB",
        help="with the memory of QEMU's pc that has so many MiB, for --on qemu",
    )
    parser.add_argument(
        "--xen", choices=interfaces(), help="a hypervisor with a dom0 that knows this interface"
    )
    parser.add_argument(
        "--dom0", type=int, choices=[32, 64], help="with --xen: dom0's width (the hypervisor's)"
    )


@command(
    "host example",
    help="print a host, a commented TOML document",
    takes=(example_of,),
    examples=(
        "tightrope host example > old.toml",
        "tightrope host example --mode pae --crash 256M",
    ),
)
def example(options: Namespace) -> int:
    if options.xen is not None and options.split is not None:
        raise BadInput("a hypervisor has no memory split", source="--split")
    print(_example(options, _crash_region(options)), end="")
    return HOLDS


def _example(options: Namespace, crash: Extent | None) -> str:
    from tightrope import host
    from tightrope.model import Paging, XenInterface

    paging = Paging(options.mode)
    if options.xen is None:
        return host.example(paging, options.split, crash, options.pc)
    interface = XenInterface(options.xen)
    return host.xen_example(paging, interface, dom0_bits=options.dom0, crash=crash)


def _crash_region(options: Namespace) -> Extent | None:
    """The crash region that is asked for; a size alone is put where that kernel would have it."""
    from tightrope import host
    from tightrope.deeds import defaults
    from tightrope.memory import Extent

    if not isinstance(options.crash, int):
        return Extent.sized(*options.crash) if options.crash else None
    without = host.read(_example(options, None), "the example")
    return defaults.with_crash_region(without, options.crash).crash_region


def captured(parser: ArgumentParser) -> None:
    """Which machine, and where to."""
    parser.add_argument(
        "--from",
        dest="tree",
        metavar="DIR",
        help="another machine: a directory with copies of its /proc and /sys, as sosreport makes",
    )
    parser.add_argument(
        "-o", "--output", type=path, metavar="FILE", help="write the host file there"
    )
    force(parser)


@command(
    "host capture",
    help="describe this machine, changing nothing",
    takes=(captured,),
    examples=(
        "tightrope host capture -o this.toml",
        "tightrope host capture --from sosreport-web1/",
    ),
)
def capture(options: Namespace) -> int:
    from tightrope import host

    if options.output:
        outputs.check(options.output, force=options.force)
    if options.tree:
        found = host.capture(host.read_copy(options.tree), options.tree)
    else:
        found = host.capture(host.read_tree())
    if options.output:
        outputs.write(options.output, found.toml.encode())
    else:
        print(found.toml, end="")
    for note in found.notes:  # they also stand at the head of the document
        print(f"tightrope: {note}", file=sys.stderr)
    return HOLDS


def checked(parser: ArgumentParser) -> None:
    """Which file."""
    parser.add_argument("host", metavar="FILE", help="a host file")
    shown(parser)


@command(
    "host check",
    help="read a host file and say what it rests on",
    takes=(checked,),
    examples=(
        "tightrope host check old.toml",
        "tightrope host check old.toml -q",
    ),
)
def check(options: Namespace) -> int:
    from tightrope.views.host import VIEW

    ready(options, [options.host])
    show(options, VIEW, files.host_file(options.host))
    return HOLDS


@command(
    "host schema",
    help="print what a host file may be, as JSON Schema, for editors",
    examples=(
        "tightrope host schema",
        "tightrope host schema > host.schema.json",
    ),
)
def schema(_options: Namespace) -> int:
    import json

    from tightrope import host

    print(json.dumps(host.schema(), indent=2))
    return HOLDS


def facts(parser: ArgumentParser) -> None:
    """What a Xen says."""
    parser.add_argument(
        "facts", metavar="FACTS", help="what `tightrope perform xen --json` printed in its dom0"
    )


@command(
    "host xen",
    help="describe a Xen from what it says of itself",
    takes=(facts,),
    examples=(
        "tightrope host xen facts.json",
        "tightrope host xen facts.json > xen.toml",
    ),
)
def xen(options: Namespace) -> int:
    import json

    from tightrope import host

    try:
        said = json.loads(bytes(files.read(options.facts)))
    except (ValueError, RecursionError) as err:
        raise BadInput(f"is not JSON: {err}", source=options.facts) from err
    if not isinstance(said, dict):
        raise BadInput("is not a JSON object", source=options.facts)
    print(host.xen_file(said, options.facts), end="")
    return HOLDS
