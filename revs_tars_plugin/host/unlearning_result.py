"""What `UnlearnEditor.unlearn` gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from ..edits.edit_set import EditSet
from ..evaluation import UnlearningReport


@dataclass(frozen=True, kw_only=True)
class UnlearningResult:
    """What `UnlearnEditor.unlearn` did and found.

    Attributes:
        metrics: The host's own metrics, one dictionary a secret, with our figures in `["post"]["unlearning"]`.
        summary: Our figures over all secrets, and the means of the host's accuracies before and after.
        report: The whole report.
        model: The edited model with `keep=True`, else the model as it was.
        edits: What REVS, TARS or FT-L-delete changed, to be undone or applied again; empty for other methods.
        seconds: Time within the method, the host's and our evaluation not counted.
        peak_mib: The most memory that the method held beyond what was held before, in MiB.
        n_changed: How many numbers of the model differ; None with `keep=True`.
    """

    metrics: list[dict[str, Any]]
    summary: Mapping[str, float]
    report: UnlearningReport
    model: nn.Module
    edits: tuple[EditSet, ...]
    seconds: float
    peak_mib: float
    n_changed: int | None


def host_means(metrics: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns means of the host's accuracies, before and after; for a replacement they say whether it was written."""
    means = {}
    for phase in ("pre", "post"):
        for name in ("rewrite_acc", "rephrase_acc"):
            values = [float(np.mean(metric[phase][name])) for metric in metrics if name in metric.get(phase, {})]
            if values:
                means[f"{phase}, {name}"] = sum(values) / len(values)
        locality = [
            float(np.mean(value))
            for metric in metrics
            for key, value in (metric.get(phase, {}).get("locality") or {}).items()
            if key.endswith("_acc")
        ]
        if locality:
            means[f"{phase}, locality"] = sum(locality) / len(locality)
    return means
