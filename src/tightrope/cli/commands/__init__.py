# ruff: noqa: I001 - the order of `--help`
"""The commands, one file each; importing this package registers them in the order of `--help`.

Rules: a file has a command's arguments beside the function that does it: one call of a deed, one
report, one exit status.  Packages are imported inside the function that needs them.

May import: abi, check, deeds, errors, handover, host, image, memory, model, participants,
perform, plan, prove, record, report, sabotage, shipped, views, vmcore
"""

from tightrope.cli.commands import rehearse as rehearse
from tightrope.cli.commands import inspect as inspect
from tightrope.cli.commands import plan as plan
from tightrope.cli.commands import tables as tables
from tightrope.cli.commands import compare as compare
from tightrope.cli.commands import matrix as matrix
from tightrope.cli.commands import pairs as pairs
from tightrope.cli.commands import agree as agree
from tightrope.cli.commands import host as host
from tightrope.cli.commands import pgd as pgd
from tightrope.cli.commands import prove as prove
from tightrope.cli.commands import record as record
from tightrope.cli.commands import load as load
from tightrope.cli.commands import loaded as loaded
from tightrope.cli.commands import perform as perform
from tightrope.cli.commands import rules as rules
from tightrope.cli.commands import glossary as glossary
from tightrope.cli.commands import doctor as doctor
from tightrope.cli.commands import contracts as contracts
from tightrope.cli.commands import schema as schema
