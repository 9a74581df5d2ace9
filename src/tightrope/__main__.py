"""`python -m tightrope`.  There is nothing interesting here."""

import sys

from tightrope.cli import program

if __name__ == "__main__":
    sys.exit(program())
