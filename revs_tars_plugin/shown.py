"""Figures as people read them."""

from __future__ import annotations

from typing import Any


def shown(value: Any, digits: int = 3) -> str:
    """Returns a figure with few digits, yes or no for a truth value, and nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
