"""`tightrope contracts`: what relocation code can be held to."""

from __future__ import annotations

from argparse import Namespace

from tightrope.cli.arguments import as_json
from tightrope.cli.command import HOLDS, command
from tightrope.cli.show import show


@command(
    "contracts",
    help="what relocation code of yours can be held to, with `rehearse --relocation`",
    takes=(as_json,),
    examples=(
        "tightrope contracts",
        "tightrope contracts --json",
    ),
)
def contracts(options: Namespace) -> int:
    from tightrope.model import Paging
    from tightrope.participants import from_file
    from tightrope.views.contracts import VIEW

    narrow = from_file.contracts(Paging.PAE)
    wide = from_file.contracts(Paging.X86_64)
    show(options, VIEW, [(each, narrow[name]) for name, each in wide.items()])
    return HOLDS
