"""The docs site: `make docs`, out of docs/*.md and the docstrings, without a network.

Rules: what is linked is checked (`-W`: a warning is an error); nothing is fetched, neither here nor by
who reads it.
"""

from __future__ import annotations

import re
from typing import Any

from tightrope import __version__

project = "Tightrope"
version = release = __version__
copyright = "Tightrope founders; GPL-2.0-only"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
root_doc = "index"
CHANGES = "../CHANGELOG.md"
"""A page of the repository that the site has under another name; others out there it has not."""

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
myst_links_external_new_tab = False
suppress_warnings = ["myst.header", "toc.not_included"]

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"Tightrope {__version__}"
html_copy_source = False
html_show_sphinx = False


def setup(app: Any) -> None:
    """A link out of docs/ leads to the page of the site that includes it, or is its words alone."""

    def inside(_app: Any, _name: str, source: list[str]) -> None:
        text = source[0].replace(f"]({CHANGES})", "](changelog.md)")
        source[0] = re.sub(r"\[([^\]]+)\]\(\.\./[^)]*\)", r"\1", text)

    app.connect("source-read", inside)
