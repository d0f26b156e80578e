"""Results as pages that people look at."""

from .html import write_report

__all__ = ["write_report"]
