"""What the site does to pages: formulas become MathML, which browsers draw themselves, and links out of docs/ texts."""

from __future__ import annotations

import re
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(r"^```math\n(.*?)\n```$", re.M | re.S)
# Files beside docs/ are in the checkout, not on the site.
_OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+(?:README|benchmarks|examples|CONTRIBUTING|CHANGELOG)[^)]*\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Rewrites one page."""
    markdown = _FORMULA.sub(lambda match: f"<p>{convert(match[1], display='block')}</p>", markdown)
    return _OUTSIDE.sub(r"\1", markdown)
