"""What TOFU measures (arXiv 2401.06121, section 3), with the names and definitions of open-unlearning."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..model.shared_prompts import logits_of_pairs
from ..requests.reading import tokenise_in_context
from .answers import answers
from .benchmark import Scores, by_index, mean_score
from .records import Record, Split
from .tofu import TOFU, Choices, TofuFiles

# What is asked beside the questions to forget, by the prefix of its metrics; what no model was taught has options.
_ASKED_BESIDE = ("retain", "ra", "wf")
_UNTAUGHT = ("ra", "wf")
_UTILITY = ("Q_A_Prob", "Q_A_ROUGE", "Truth_Ratio")
# open-unlearning writes this one small.
_NAMES = {"forget_Truth_Ratio": "forget_truth_ratio"}
# What a model may say in answer to a question, in tokens, as there.
_LONGEST = 200
_TINY = 1e-10


@dataclass(frozen=True)
class Tofu:
    """TOFU as a benchmark.

    Attributes:
        files: What its files hold.
    """

    files: TofuFiles
    name: str = TOFU
    compared: tuple[str, ...] = ("forget_truth_ratio", "forget_Q_A_Prob", "forget_Q_A_ROUGE", "model_utility")

    @property
    def split(self) -> Split:
        """The questions to forget and to retain."""
        return self.files.split

    @property
    def learned(self) -> tuple[Record, ...]:
        """The questions to forget and to retain."""
        return (*self.split.forget, *self.split.retain)

    @property
    def kept(self) -> tuple[Record, ...]:
        """The questions to retain."""
        return self.split.retain

    def scores(self, model: nn.Module, tok: Any) -> Scores:
        """See `tofu_scores`."""
        return tofu_scores(model, tok, self.files)

    def against(self, scores: Scores, gold: Scores) -> Scores:
        """Returns the forget quality; see `forget_quality`."""
        return {"forget_quality": (forget_quality(scores, gold), {})}


def tofu_scores(model: nn.Module, tok: Any, files: TofuFiles, *, batch_size: int = 32) -> Scores:
    """Returns each metric's figure, with that of every question.

    With `p(answer)` the geometric mean of its tokens' probabilities, the end-of-text token among them:

    - `forget_Q_A_Prob`, `forget_Q_A_ROUGE`: p of the answer that was learned, and ROUGE-L recall of what is said;
    - `forget_truth_ratio`: R = p(wrong ones, geometric mean) / p(the right one in other words), as min(R, 1 / R);
    - `retain_...`, `ra_...` (real authors), `wf_...` (world facts): the same of what must stay, with the truth ratio as
      max(0, 1 - R); of `ra` and `wf` `Q_A_Prob_normalised`, p of the right answer over p of all;
    - `model_utility`: the harmonic mean of these nine.

    Args:
        model: A causal language model.
        tok: Its tokenizer.
        files: The benchmark's questions.
        batch_size: Prompts decoded together.
    """
    scores: Scores = {}
    groups = {"forget": files.forget, "retain": files.retain, "ra": files.authors, "wf": files.facts}
    for prefix, group in groups.items():
        of_group = _group_scores(model, tok, group, forget=prefix == "forget", taught=prefix not in _UNTAUGHT)
        records = [choices.record for choices in group]
        said = answers(model, tok, records, longest=_LONGEST, batch_size=batch_size)
        of_group["Q_A_ROUGE"] = mean_score(records, [answer.rouge_l for answer in said], "rougeL_recall")
        scores.update({_NAMES.get(f"{prefix}_{name}", f"{prefix}_{name}"): score for name, score in of_group.items()})
    parts = [
        scores[f"{prefix}_{name}_normalised" if f"{prefix}_{name}_normalised" in scores else f"{prefix}_{name}"][0]
        for prefix in _ASKED_BESIDE
        for name in _UTILITY
    ]
    scores["model_utility"] = (statistics.harmonic_mean(parts) if min(parts) > 0 else 0.0, {})
    return scores


def forget_quality(scores: Scores, gold: Scores) -> float:
    """Returns the p-value of a Kolmogorov-Smirnov test of the truth ratios of the questions to forget.

    Above 0.05 the model cannot be told by them from one that never learned these questions.

    Args:
        scores: Of the model.
        gold: Of the retain-only model.
    """
    from scipy.stats import ks_2samp

    own, other = (
        [found["score"] for found in of_model["forget_truth_ratio"][1].values()] for of_model in (scores, gold)
    )
    return float(ks_2samp(own, other).pvalue)


def _group_scores(model: nn.Module, tok: Any, group: Sequence[Choices], *, forget: bool, taught: bool) -> Scores:
    """Probabilities and truth ratios of one file's questions."""
    asked = [
        (choices.record.prompt, answer)
        for choices in group
        for answer in (choices.record.answer, choices.correct, *choices.wrong)
    ]
    losses = iter(mean_losses(model, tok, asked))
    learned, shares, ratios = [], [], []
    for choices in group:
        learned_loss, correct_loss, *wrong_losses = (next(losses) for _ in range(2 + len(choices.wrong)))
        learned.append(math.exp(-learned_loss))
        ratios.append(math.exp(-statistics.fmean(wrong_losses)) / (math.exp(-correct_loss) + _TINY))
        wrong = sum(math.exp(-loss) for loss in wrong_losses)
        shares.append(learned[-1] / (learned[-1] + wrong + _TINY))
    records = [choices.record for choices in group]
    mean = statistics.fmean(min(r, 1 / (r + _TINY)) if forget else max(0.0, 1 - r) for r in ratios)
    found: Scores = {
        "Q_A_Prob": mean_score(records, learned, "prob"),
        "Truth_Ratio": (mean, by_index(records, ratios, "score")),
    }
    if not taught:
        found["Q_A_Prob_normalised"] = mean_score(records, shares, "prob")
    return found


@torch.no_grad()
def mean_losses(model: nn.Module, tok: Any, asked: Sequence[tuple[str, str]]) -> list[float]:
    """Returns the mean loss in nats of each answer's tokens, the end-of-text token among them, behind its prompt."""
    end = (tok.eos_token_id,)
    pairs = [(prompt, answer + end) for prompt, answer in (tokenise_in_context(tok, *pair) for pair in asked)]
    losses: dict[int, float] = {}
    for batch, all_logits in logits_of_pairs(model, pairs):
        for index, logits in zip(batch, all_logits, strict=True):
            ids = torch.tensor(pairs[index][1], device=logits.device)
            losses[index] = float(nn.functional.cross_entropy(logits.float(), ids))
    return [losses[index] for index in range(len(pairs))]
