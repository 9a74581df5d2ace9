"""`tightrope schema`: the shape of what `--json` prints, as JSON Schema."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from tightrope.cli.command import HOLDS, command
from tightrope.errors import BadInput, near


def document(parser: ArgumentParser) -> None:
    """Which document."""
    parser.add_argument(
        "document",
        metavar="COMMAND",
        nargs="*",
        help="the command whose JSON it is, such as plan, or error; without one all their names",
    )


@command(
    "schema",
    help="the shape of what --json prints, as JSON Schema",
    takes=(document,),
    examples=(
        "tightrope schema",
        "tightrope schema plan",
    ),
)
def schema(options: Namespace) -> int:
    import json

    from tightrope.report import json as documents
    from tightrope.report.schema import schema as made
    from tightrope.views.every import SHAPES

    shapes = {**SHAPES, documents.ERROR: (documents.VERSION, documents.FailureFacts)}
    name = " ".join(options.document)
    if not name:
        print("\n".join(shapes))
        return HOLDS
    if name not in shapes:
        hint = near(name, shapes, lists="tightrope schema")
        raise BadInput(f"{name!r} has no schema{hint}", source="command line")
    version, shape = shapes[name]
    print(json.dumps(made(name, version, shape), indent=2))
    return HOLDS
