"""`tightrope record`: what a command would hand to the kernel, as a file that a rehearsal takes."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tightrope.cli import outputs
from tightrope.cli.arguments import force
from tightrope.cli.command import HOLDS, command
from tightrope.cli.values import path
from tightrope.errors import BadInput

if TYPE_CHECKING:
    from tightrope.model.recording import Recording


def what(parser: ArgumentParser) -> None:
    """Where it goes, and the command."""
    parser.add_argument(
        "-o", "--output", type=path, required=True, metavar="FILE", help="the segments file"
    )
    force(parser)
    parser.add_argument(
        "words",
        nargs=argparse.REMAINDER,
        metavar="-- COMMAND",
        help="what loads a kernel: kexec -l, a script, systemctl",
    )


@command(
    "record",
    help="what a command would load, as a file for `rehearse --segments`; nothing is loaded",
    description="Run a command that loads a kernel, take each of its kexec system calls away before the"
    " kernel sees it, tell the command that it went well, and keep what the last one would have loaded."
    "  The command has no right to load anything (CAP_SYS_BOOT is dropped before it begins).",
    takes=(what,),
    examples=(
        "tightrope record -o mine.segments -- kexec -l /boot/vmlinuz --reuse-cmdline",
        'tightrope record -o mine.segments -- sh -c "kexec -p /boot/vmlinuz"',
    ),
    status="0 recorded, 2 the command loads nothing, or cannot be traced",
)
def record(options: Namespace) -> int:
    from tightrope.cli import files
    from tightrope.deeds.record import record as deed
    from tightrope.record import file

    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    if not words:
        raise BadInput("names no command to run", source="command line", field="--")
    outputs.check(options.output, force=options.force, inputs=words)
    with outputs.writing(options.output) as out:
        done = deed(words, out)
    print("\n".join(_told(file.read(files.read(str(options.output)), str(options.output)))))
    for count, said in (
        (done.loads - 1, "earlier loads left out"),
        (done.unloads, "unloads taken away"),
        (done.jumps, "jumps refused"),
        (done.asked, "calls to other processes, such as init, refused"),
    ):
        if count > 0:
            print(f"{said}: {count}")
    if done.status:
        print(f"the command ended with status {done.status}")
    return HOLDS


def _told(recording: Recording) -> Iterator[str]:
    """What was recorded, a line a part."""
    from tightrope.errors import visible
    from tightrope.model.recording import SegmentsCall

    kind = "a crash kernel" if recording.crash else "a kernel"
    call = recording.call
    if isinstance(call, SegmentsCall):
        yield (
            f"{recording.loader} would load {kind} by kexec_load, {len(call.segments)} segments,"
            f" entered at {call.entry:#x}"
        )
        for each in call.segments:
            yield f"  {each.destination} {len(each.data):#x} bytes"
        return
    yield f"{recording.loader} would have Linux load {kind} by kexec_file_load"
    for file in (call.kernel, call.initrd):
        if file is not None:
            yield f"  {visible(file.path)} {len(file.data):#x} bytes"
    yield f"  command line {visible(call.command_line.decode('latin-1'))!r}"
