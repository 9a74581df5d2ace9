"""The theorems by the words of the command line, and what each says.

Rules: words alone, since `tightrope prove --help` shows them; what proves them stands in `run`.
"""

from __future__ import annotations

from collections.abc import Mapping

SAYS: Mapping[str, str] = {
    "tables": "page_table_a maps V and P and nothing else, for all V and P",
    "designs": "exactly when the rival designs are right",
    "split": "on which memory splits and Xen layouts they always are",
    "switch": "which orders of the table switch are safe, and that ours is",
    "copy": "the page list does what the plan wants, for lists of any length",
    "code": "the relocation code, on its bytes, for all V, P and lists; or somebody else's",
}
"""The word on the command line -> what the theorem says, as `--help` shows it."""
