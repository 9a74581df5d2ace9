"""`tightrope sweep`: many hosts against new kernels, one rehearsal for all that are alike."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from tightrope.cli import files, outputs, values
from tightrope.cli.arguments import FORMATS, interfaces, shown
from tightrope.cli.command import FINDING, HOLDS, command
from tightrope.cli.show import ready, show
from tightrope.cli.values import count, line
from tightrope.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

    from tightrope.deeds.sweep.cargo import Cargo
    from tightrope.deeds.sweep.work import HostText
    from tightrope.model import XenInterface
    from tightrope.model.sweep import Sweep, Swept

SOME_UNTOLD = 3
"""The exit status where nothing falls and something cannot be told."""


def fleet(parser: ArgumentParser) -> None:
    """Which hosts, into which kernels."""
    parser.add_argument(
        "--hosts",
        nargs="+",
        required=True,
        metavar="PATH",
        help="host files (`tightrope host capture`), folders of them, or patterns",
    )
    parser.add_argument(
        "--kernel",
        dest="news",
        nargs="+",
        required=True,
        metavar="NEW",
        help=f"new kernels: {FORMATS}",
    )
    parser.add_argument(
        "--from", dest="old_code", metavar="OLD", help="walk this old kernel's own relocation code"
    )
    parser.add_argument("--initrd", metavar="FILE", help="the initrd of all of them")
    parser.add_argument(
        "--append", type=line, default="", metavar="WORDS", help="their command line"
    )
    parser.add_argument("--crash", action="store_true", help="a crash kexec, not a kexec")
    parser.add_argument(
        "--xen", choices=interfaces(), help="the hosts are hypervisors; how dom0 asks"
    )


def run(parser: ArgumentParser) -> None:
    """Where it runs and what is kept."""
    parser.add_argument(
        "--on",
        default="processes",
        metavar="WHERE",
        help="`processes` on this computer, `dask` for a local cluster, or `dask://HOST:PORT`"
        " (%(default)s)",
    )
    parser.add_argument(
        "--workers", type=count, metavar="N", help="how many; without it one for each core"
    )
    parser.add_argument(
        "--out",
        type=values.path,
        metavar="FILE",
        help="a JSON line for each host, written as it is told",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from what --out has, and add to it"
    )
    parser.add_argument(
        "--parquet",
        type=values.path,
        metavar="FILE",
        help="the same rows as a Parquet file, at the end",
    )


@command(
    "sweep",
    help="rehearse many captured hosts into new kernels, one rehearsal for all that are alike",
    description="Hosts with equal decisive facts are a class, and one of them is rehearsed.",
    takes=(fleet, run, shown),
    examples=(
        "tightrope sweep --hosts captured/ --kernel /boot/vmlinuz-new",
        "tightrope sweep --hosts captured/ --kernel /boot/vmlinuz-new --out rows.jsonl --resume",
    ),
    status="0 all hold, 1 some fall, 2 the sweep could not be done, 3 none falls and some cannot be"
    " told",
)
def sweep(options: Namespace) -> int:
    from tightrope.deeds.sweep import cargo as room
    from tightrope.views.sweep import VIEW

    inputs = [*options.news, *([options.initrd] if options.initrd else [])]
    ready(options, inputs)
    if options.resume and options.out is None:
        raise BadInput("goes on from the file of --out", source="--resume")
    if options.out is not None and not options.resume:
        outputs.check(options.out, force=options.force, inputs=inputs)
    if options.parquet is not None:
        outputs.check(options.parquet, force=options.force, inputs=inputs)
        from tightrope.report import parquet

        parquet.ready()
    cargo = room.Cargo(
        news=tuple(room.parcel(each) for each in dict.fromkeys(options.news)),
        initrd=room.parcel(options.initrd) if options.initrd else None,
        old=room.parcel(files.old_image(options)) if options.old_code else None,
        command_line=options.append,
        xen=_interface(options.xen),
        kinds=(options.crash,),
    )
    found = _swept(options, cargo)
    if options.parquet is not None:
        from tightrope.deeds.sweep import journal
        from tightrope.report import parquet

        with outputs.writing(options.parquet) as out:
            parquet.write(out, map(journal.facts, found.rows), journal.COLUMNS)
    show(options, VIEW, found)
    return _status(found)


def _interface(name: str | None) -> XenInterface | None:
    from tightrope.model import XenInterface

    return XenInterface(name) if name else None


def _swept(options: Namespace, cargo: Cargo) -> Sweep:
    from tightrope.deeds.sweep import journal, pools
    from tightrope.deeds.sweep.sweep import sweep as deed
    from tightrope.report.progress import Bar

    paths = list(_paths(options.hosts))
    known: list[Swept] = []
    with ExitStack() as stack:
        kept = None
        if options.out is not None:
            known = _known(options.out, cargo) if options.resume else []
            kept = stack.enter_context(outputs.growing(options.out, whole=not known))
            if not known:
                kept(journal.header(cargo))
        pool = stack.enter_context(pools.opened(options.on, cargo, options.workers))
        bar = stack.enter_context(closing(Bar()))
        return deed(
            _hosts(paths),
            cargo,
            pool,
            row=(lambda row: kept(journal.line(row))) if kept else lambda _row: None,
            known=known,
            total=len(paths),
            progress=bar,
        )


def _known(path: Path, cargo: Cargo) -> list[Swept]:
    """What a run that ended early has told."""
    from tightrope.deeds.sweep import journal

    with outputs.told(path):
        if not path.exists() or path.stat().st_size == 0:
            return []
        with path.open(encoding="utf-8", errors="replace", newline="\n") as lines:
            return list(journal.rows(lines, cargo, str(path)))


def _paths(named: Iterable[str]) -> Iterator[str]:
    """Every file that is meant, each once, in order.  Raises BadInput where there is none."""
    seen: set[str] = set()
    for name in named:
        found = sorted(_meant(name))
        if not found:
            raise BadInput("no host file is there", source=name)
        for path in found:
            if path not in seen:
                seen.add(path)
                yield path


def _meant(name: str) -> Iterator[str]:
    import glob
    import os

    if os.path.isdir(name):
        for folder, folders, names in os.walk(name):
            folders[:] = [each for each in folders if not each.startswith(".")]
            yield from (os.path.join(folder, each) for each in names if not each.startswith("."))
    elif os.path.lexists(name):
        yield name
    else:
        yield from (each for each in glob.iglob(name, recursive=True) if not os.path.isdir(each))


def _hosts(paths: Iterable[str]) -> Iterator[HostText | Swept]:
    """The files' bytes; what cannot be read is a row."""
    from tightrope.deeds.sweep.work import HostText
    from tightrope.model.sweep import Answer, Swept

    for path in paths:
        try:
            text = bytes(files.read(path, most=files.MOST_TEXT))
        except BadInput as err:
            yield Swept(
                host=path,
                digest="",
                new="",
                crash=False,
                group=None,
                walked=False,
                assumed=(),
                answer=Answer(outcome=None, detail=str(err)),
            )
        else:
            import hashlib

            yield HostText(name=path, digest=hashlib.sha256(text).hexdigest(), text=text)


def _status(found: Sweep) -> int:
    """What falls counts before what cannot be told."""
    from tightrope.model import Outcome

    outcomes = {row.answer.outcome for row in found.rows}
    if Outcome.FALLS in outcomes:
        return FINDING
    return SOME_UNTOLD if None in outcomes else HOLDS
