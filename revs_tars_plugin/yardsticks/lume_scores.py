"""What LUME measures (arXiv 2502.15097, section 4, and the task's published evaluation), for one model."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..evaluation.likelihood import likelihoods
from ..evaluation.membership import area_under_curve
from .answers import Answer, answers
from .benchmark import Scores, mean_score
from .lume import LUME
from .records import Record, Split


@dataclass(frozen=True)
class Lume:
    """LUME as a benchmark.

    Attributes:
        split: Its records.
    """

    split: Split
    name: str = LUME
    # The others are made of these.
    compared: tuple[str, ...] = (
        "forget_regurgitation",
        "forget_knowledge",
        "retain_regurgitation",
        "retain_knowledge",
        "membership",
    )

    @property
    def learned(self) -> tuple[Record, ...]:
        """The records to forget and to retain."""
        return (*self.split.forget, *self.split.retain)

    @property
    def kept(self) -> tuple[Record, ...]:
        """The records to retain."""
        return self.split.retain

    def scores(self, model: nn.Module, tok: Any) -> Scores:
        """See `lume_scores`."""
        return lume_scores(model, tok, self.split)

    def against(self, scores: Scores, gold: Scores) -> Scores:
        """No metric of LUME compares two models."""
        return {}


def lume_scores(model: nn.Module, tok: Any, split: Split, *, batch_size: int = 32) -> Scores:
    """Returns each metric's mean, with the figure of every record.

    - `forget_regurgitation`, `retain_regurgitation`: ROUGE-L recall of completions;
      `forget_knowledge`, `retain_knowledge`: share of questions that are answered word for word.
    - `task_aggregate`: harmonic mean of what is not said of the forget set and what is said of the retain set, over
      completions and questions of each task; 0 where one of them is 0.
    - `membership`: area under the curve of telling records to forget from unseen ones by their loss (0.5: nobody can
      tell; 1: known; 0: avoided), and `membership_score`, `1 - |2 area - 1|`; both only with unseen records.

    Args:
        model: A causal language model.
        tok: Its tokenizer.
        split: The benchmark's records.
        batch_size: Prompts decoded together.
    """
    scores: Scores = {}
    parts: list[float] = []
    for part, records in (("forget", split.forget), ("retain", split.retain)):
        said = dict(zip(records, answers(model, tok, records, batch_size=batch_size), strict=True))
        for name, kind in (("regurgitation", "completion"), ("knowledge", "question")):
            of_kind = {record: answer for record, answer in said.items() if record.kind == kind}
            if not of_kind:
                continue
            scores[f"{part}_{name}"] = mean_score(
                list(of_kind), [_score(kind, answer) for answer in of_kind.values()], "score"
            )
            for task in sorted({record.task for record in of_kind}):
                mean = statistics.fmean(
                    _score(kind, answer) for record, answer in of_kind.items() if record.task == task
                )
                parts.append(1 - mean if part == "forget" else mean)
    scores["task_aggregate"] = (statistics.harmonic_mean(parts) if min(parts) > 0 else 0.0, {})
    if split.unseen:
        losses = {part: _losses(model, tok, records) for part, records in (("f", split.forget), ("u", split.unseen))}
        # An attacker takes what has the lower loss for learned.
        area = area_under_curve([-loss for loss in losses["f"].values()], [-loss for loss in losses["u"].values()])
        scores["membership"] = (area, {name: {"loss": loss} for name, loss in losses["f"].items()})
        scores["membership_score"] = (1 - abs(2 * area - 1), {})
    return scores


def _score(kind: str, answer: Answer) -> float:
    return answer.rouge_l if kind == "completion" else float(answer.exact)


def _losses(model: nn.Module, tok: Any, records: Sequence[Record]) -> dict[str, float]:
    """The mean loss of a token of each answer, nats."""
    found = likelihoods(model, tok, [record.prompt for record in records], [record.answer for record in records])
    return {
        record.identifier: -statistics.fmean(likelihood.log_probabilities)
        for record, likelihood in zip(records, found, strict=True)
    }
