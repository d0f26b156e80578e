"""Results in the layout of open-unlearning's evaluators, so that its scripts read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..atomic_write import replacing
from ..errors import InputError
from .benchmark import Scores


def write_open_unlearning(folder: str | Path, name: str, scores: Scores) -> Path:
    """Writes `NAME_EVAL.json`, with the figure of every record, and `NAME_SUMMARY.json`, with the means.

    Args:
        folder: Where they lie; made where it is missing.
        name: The benchmark's name, "LUME".
        scores: For each metric its mean, and by record its figures.

    Returns:
        The folder.

    Raises:
        InputError: When it cannot be written.
    """
    place = Path(folder).expanduser()
    logs: dict[str, Any] = {
        metric: {"agg_value": mean, **({"value_by_index": dict(values)} if values else {})}
        for metric, (mean, values) in sorted(scores.items())
    }
    summary = {metric: result["agg_value"] for metric, result in logs.items()}
    try:
        place.mkdir(parents=True, exist_ok=True)
        for suffix, content in (("EVAL", logs), ("SUMMARY", summary)):
            with replacing(place / f"{name}_{suffix}.json") as file:
                file.write(json.dumps(content, indent=4).encode())
    except OSError as error:
        raise InputError(f"{place} cannot be written ({error.strerror or error}); name another folder.") from error
    return place
