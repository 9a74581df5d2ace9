"""What each subcommand does: one call of a deed, one report, one exit status.

Rules: packages are imported inside the function that needs them; nothing is decided here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tightrope.cli import files, performing
from tightrope.errors import BadInput, ImageError, MissingPart, TightropeError

if TYPE_CHECKING:
    from tightrope.model import Verdict
    from tightrope.sabotage import Sabotage

HOLDS, FINDING, UNKNOWN = 0, 1, 2
STATUS = {"holds": HOLDS, "falls": FINDING, "unknown": UNKNOWN}
"""Verdict -> exit status."""


def _rehearse(options: argparse.Namespace) -> int:
    if options.sabotage == "list":
        return _sabotages()
    performing.refuse_write(options)
    if options.old_kernel:
        return _rehearse_booted(options)
    from tightrope import sabotage
    from tightrope.deeds import machines
    from tightrope.deeds.rehearse import CONSOLE_WORDS, is_linux, rehearse, speaks_for_itself

    trace = files.open_trace(options.trace) if options.trace else None
    broken: Sabotage | None = sabotage.named(options.sabotage) if options.sabotage else None
    image, old, request = files.inputs(options)
    console = options.until == "console"
    asks = is_linux(image) and not speaks_for_itself(image)
    if console and asks and "earlyprintk" not in request.command_line:
        from dataclasses import replace

        words = f"{request.command_line} {CONSOLE_WORDS}".strip()
        print(f"tightrope: the command line is {words!r}, so that it can be heard", file=sys.stderr)
        request = replace(request, command_line=words)
    token: str | None = None
    if options.until == "userspace":
        token, request = files.with_token(request)
    from tightrope.report.progress import Bar

    with machines.opened(options.on) as machine:
        bar = Bar()
        try:
            verdict = rehearse(
                image,
                old,
                request,
                design=options.design,
                sabotage=broken,
                console=console,
                token=token,
                console_seconds=options.limit,
                machine=machine,
                progress=bar,
            )
        finally:
            bar.close()
        if trace:
            files.write_trace(trace, verdict)
        performing.write_load(options.write, verdict)
        _print_verdict(options, verdict)
    return STATUS[verdict.outcome.value]


def _rehearse_booted(options: argparse.Namespace) -> int:
    if options.on != "qemu" or options.host or options.sabotage or options.trace:
        raise BadInput(
            "needs --on qemu, and goes with none of --host, --sabotage and --trace",
            source="command line",
            field="--old-kernel",
        )
    from tightrope.deeds.booted import OldKernel, rehearse_booted
    from tightrope.report.progress import Bar

    image, _, request = files.inputs(options)
    token, request = files.with_token(request)
    old = OldKernel(
        kernel=files.read(options.old_kernel),
        initrd=files.read(options.old_initrd) if options.old_initrd else b"",
        mebibytes=options.old_memory,
        reserve=f"{options.old_memory // (2 if options.crash else 4)}M",
    )
    bar = Bar()
    try:
        verdict = rehearse_booted(
            old,
            image,
            request,
            token=token,
            design=options.design,
            seconds=options.limit,
            progress=bar,
        )
    finally:
        bar.close()
    _print_verdict(options, verdict)
    return STATUS[verdict.outcome.value]


def _print_verdict(options: argparse.Namespace, verdict: Verdict) -> None:
    if options.json:
        from tightrope.report.document import verdict_document

        files.print_json(verdict_document(verdict))
    else:
        from tightrope.report import terminal

        print(terminal.text(verdict, colour=files.colour()))


def _inspect(options: argparse.Namespace) -> int:
    from tightrope import image
    from tightrope.report import inspect

    read = files.kernel_image(options, options.kernel)
    unpacked: bytes | TightropeError | None
    try:
        unpacked = image.unpack(read) if read.payload else None
    except (ImageError, MissingPart) as err:
        unpacked = err
    if options.json:
        files.print_json(inspect.inspect_json(read, unpacked))
    else:
        print(inspect.inspect_text(read, unpacked))
    if isinstance(unpacked, MissingPart):
        return UNKNOWN
    return FINDING if isinstance(unpacked, ImageError) else HOLDS


def _plan(options: argparse.Namespace) -> int:
    from tightrope.deeds.rehearse import prepare

    image, old, request = files.inputs(options)
    the_plan = prepare(image, old, request)
    if options.json:
        from tightrope.report.document import plan_document

        files.print_json(plan_document(the_plan))
    else:
        from tightrope.report import planned

        print(planned.text(the_plan))
    return HOLDS


def _host_example(options: argparse.Namespace) -> int:
    from tightrope import host
    from tightrope.memory import Extent
    from tightrope.model import Paging, XenInterface

    crash = Extent.sized(*options.crash) if options.crash else None
    if options.xen:
        if options.split is not None:
            raise BadInput("a hypervisor has no memory split", source="--split")
        interface = XenInterface(options.xen)
        paging = Paging(options.mode)
        print(host.xen_example(paging, interface, dom0_bits=options.dom0, crash=crash), end="")
        return HOLDS
    print(host.example(Paging(options.mode), options.split, crash, options.pc), end="")
    return HOLDS


def _host_capture(_options: argparse.Namespace) -> int:
    from tightrope import host

    captured = host.capture(host.read_tree())
    print(captured.toml, end="")
    for note in captured.notes:  # they also stand at the head of the document
        print(f"tightrope: {note}", file=sys.stderr)
    return HOLDS


def _compare(options: argparse.Namespace) -> int:
    from tightrope.deeds.compare import OURS, compare
    from tightrope.model import Outcome
    from tightrope.report import compare as report
    from tightrope.report.progress import Bar

    image, old, request = files.inputs(options)
    bar = Bar()
    try:
        rows = compare(image, old, request, progress=bar)
    finally:
        bar.close()
    if options.json:
        files.print_json(report.document(rows))
    else:
        print(report.text(rows))
    ours = next(row for row in rows if row.design == OURS)
    return HOLDS if ours.outcome is Outcome.HOLDS else FINDING


def _matrix(options: argparse.Namespace) -> int:
    from contextlib import ExitStack

    from tightrope import image, shipped
    from tightrope.deeds import machines
    from tightrope.deeds.matrix import matrix
    from tightrope.model import Outcome
    from tightrope.report import matrix as report
    from tightrope.report.progress import Bar

    kernels = [image.read(files.read(path), path) for path in options.kernels]
    with ExitStack() as stack:
        on = [stack.enter_context(machines.opened(name)) for name in options.on]
        bar = Bar()
        stack.callback(bar.close)
        kernels = kernels or [image.read(shipped.read(), files.SHIPPED)]
        cells = matrix(kernels, on=on, progress=bar)
    if options.json:
        files.print_json(report.document(cells))
    else:
        print(report.text(cells))
    outcomes = {cell.outcome for cell in cells} - {None}
    return HOLDS if outcomes == {Outcome.HOLDS} else FINDING


def _agree(options: argparse.Namespace) -> int:
    from contextlib import ExitStack

    from tightrope.deeds import machines
    from tightrope.deeds.agree import agree
    from tightrope.report import agree as report
    from tightrope.report.progress import Bar

    numbers = range(options.count) if options.only is None else [options.only]
    with ExitStack() as stack:
        if options.on is None:
            on = stack.enter_context(machines.present())
        else:
            on = [stack.enter_context(machines.opened(name)) for name in options.on]
        if len(on) < 2:
            raise BadInput("it takes two machines to agree", source="--on")
        bar = Bar()
        stack.callback(bar.close)
        got = agree(on, seed=options.seed, numbers=numbers, total=len(numbers), progress=bar)
    if options.json:
        files.print_json(report.document(got))
    else:
        print(report.text(got))
    if not any(got.compared.values()):
        return UNKNOWN
    return FINDING if got.unexplained else HOLDS


def _pgd(options: argparse.Namespace) -> int:
    from tightrope import vmcore
    from tightrope.model import Paging
    from tightrope.report import pgd as report

    paging = Paging(options.mode) if options.mode else None

    def found(path: str) -> vmcore.Pgd:
        return vmcore.pgd(
            vmcore.read(path), cr3=options.cr3, paging=paging, physical_bits=options.physical_bits
        )

    one = found(options.vmcore)
    ranges = vmcore.merged(one.found) if options.print else None
    changes = vmcore.difference(one.found, found(options.diff).found) if options.diff else None
    other = options.diff or ""
    if options.json:
        files.print_json(report.document(one, ranges=ranges, changes=changes, other=other))
    else:
        print(report.text(one, ranges=ranges, changes=changes, other=other))
    return HOLDS if one.whole and not changes else FINDING


def _prove(options: argparse.Namespace) -> int:
    from tightrope.cli import proving

    return proving.prove(options)


def _rules(_options: argparse.Namespace) -> int:
    from tightrope.check import RULES

    for rule in RULES:
        print(f"{rule.id:<24} step {int(rule.step)}  {rule.says}")
        print(f"{'':<24}         {rule.source}")
    return HOLDS


def _sabotages() -> int:
    from tightrope.sabotage import ENTRY_SABOTAGES, SABOTAGES, XEN_SABOTAGES

    for each in (*SABOTAGES.values(), *ENTRY_SABOTAGES.values(), *XEN_SABOTAGES.values()):
        where = f"step {int(each.step)}" if each.step else "before"
        print(f"{each.name:<26} {each.says}")
        print(f"{'':<26} found by {each.rule}, {where}")
    return HOLDS


DEEDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "rehearse": _rehearse,
    "inspect": _inspect,
    "plan": _plan,
    "host example": _host_example,
    "host capture": _host_capture,
    "host xen": performing.host_xen,
    "perform xen": performing.perform_xen,
    "compare": _compare,
    "matrix": _matrix,
    "agree": _agree,
    "pgd": _pgd,
    "prove": _prove,
    "rules": _rules,
}
"""The parser's word for a deed -> what does it."""
