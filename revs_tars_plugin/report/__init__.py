"""What people are shown: results on disk, the page that is drawn from them, model cards, and masked texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .html import write_report

__all__ = ["write_report"]


def __getattr__(name: str) -> Any:
    """Imports the page's module when it is first asked for: it takes torch, which masking texts does not need."""
    if name != "write_report":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .html import write_report

    return write_report
