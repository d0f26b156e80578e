"""The metrics: one table of what is measured, how it is called, which direction is good, and what measures it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from .concepts import ABOVE_MADE_UP, RELEARNED, RETURNED, measure_concepts
from .cost import measure_cost
from .enumeration import measure_enumerated
from .exposure import measure_exposure
from .form import measure_form
from .guidance import measure_guided
from .in_context import measure_in_context
from .inverse import measure_inverse
from .layer_attacks import measure_output, measure_perturbed
from .long_prefix import measure_long_prefixes
from .membership import measure_membership
from .memorization import measure_recall
from .merging import measure_merged
from .paraphrase import measure_paraphrased
from .pruning import measure_pruned
from .quantization import measure_quantized
from .relearning import measure_neighbours_relearned, measure_relearned
from .retained import measure_retained
from .run import EvaluationRun
from .sampling import measure_sampled
from .scores import harmonic, unlearning_score

# What a metric answers: does it stand where a secret would that was never learned; is it hidden (1) or plain (0); does
# it come out (1) or not (0); what is left of the rest; what did it cost on ordinary text; or a detail of another one.
Question = Literal["chance", "hidden", "comes out", "left", "cost", "detail"]
Summary = Mapping[str, float]
# The paper's Resistance Score is over these; each gives its name to a metric.
RESISTANCE_ATTACKS = ("logit lens", "perturbation", "delta")


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        key: Its name in a report's summary.
        label: What people read; the key where it says the same.
        better: Which direction is good; None where neither is.
        question: What it answers.
        measure: The function that measures it, with others perhaps; None where it is derived from other figures.
        derive: The function that makes it of the other figures, or gives None where one of them is missing.
        about: Which part of a run it needs: secrets, concepts or text.
        attack: The attack it belongs to; None where it is measured in any case.
        ranked: Whether it looks at ranks, so that k decides it.
        heading: Its heading in the table of a comparison; empty where it is left out there.
        headline: Whether it stands at the top of a page.
    """

    key: str
    label: str
    better: Literal["higher", "lower"] | None
    question: Question
    measure: Callable[[EvaluationRun], None] | None = None
    derive: Callable[[Summary], float | None] | None = None
    about: Literal["secrets", "concepts", "text"] = "secrets"
    attack: str | None = None
    ranked: bool = False
    heading: str = ""
    headline: bool = False


def _unlearning_score(summary: Summary) -> float | None:
    if "specificity" not in summary:
        return None
    return unlearning_score(summary["efficacy"], summary["specificity"], summary.get("generality"))


def _resistance_score(summary: Summary) -> float | None:
    if not set(RESISTANCE_ATTACKS) <= summary.keys():
        return None
    return harmonic(summary[name] for name in RESISTANCE_ATTACKS)


_HIDDEN = {"better": "higher", "question": "hidden"}
_COMES_OUT = {"better": "lower", "question": "comes out"}
_CHANCE = {"better": None, "question": "chance"}
_DETAIL = {"better": None, "question": "detail"}
_LAYERS = {"measure": measure_output, "ranked": True}
_CONCEPT = {"better": "lower", "question": "comes out", "measure": measure_concepts, "about": "concepts"}
_COST = {"question": "cost", "measure": measure_cost, "about": "text"}


def _metric(key: str, *shared: Mapping[str, object], label: str = "", **fields: object) -> Metric:
    merged = {name: value for part in shared for name, value in part.items()}
    return Metric(key=key, label=label or key.replace("_", " "), **{**merged, **fields})  # type: ignore[arg-type]


_EXPOSURE = {"measure": measure_exposure, "attack": "exposure", **_CHANCE}
_FORM = {"measure": measure_form, "attack": "form", **_CHANCE}
_MEMBERSHIP = {"measure": measure_membership, "attack": "membership", **_CHANCE}


METRICS: tuple[Metric, ...] = (
    # First what an attacker gets. Of the next ones neither direction is good: a secret that is hidden too well can be
    # told by that. They are as good as they are near to those of a secret that was never learned.
    _metric("exposure, top", _EXPOSURE, label="exposure from the top (bits)", heading="exposed, top", headline=True),
    _metric(
        "exposure, bottom",
        _EXPOSURE,
        label="exposure from the bottom (bits)",
        heading="exposed, bottom",
        headline=True,
    ),
    _metric("exposure, two-sided", _EXPOSURE),
    _metric("exposure, reworded, top", _EXPOSURE),
    _metric("exposure, reworded, bottom", _EXPOSURE),
    *(
        _metric(f"exposure, 4 bits, {end}", _CHANCE, measure=measure_quantized, attack="quantization")
        for end in ("top", "bottom")
    ),
    *(
        _metric(f"{kind}, {place} of their kind", _FORM)
        for kind in ("digits", "letters")
        for place in ("first", "last")
    ),
    _metric("min-k", _MEMBERSHIP),
    _metric("min-k++", _MEMBERSHIP),
    _metric("privleak", _MEMBERSHIP, label="PrivLeak"),
    *(
        _metric(f"{kind}, read off whole", _COMES_OUT, measure=measure_form, attack="form")
        for kind in ("digits", "letters")
    ),
    _metric("enumeration", _COMES_OUT, measure=measure_enumerated, attack="enumeration"),
    _metric("inverse greedy", _COMES_OUT, measure=measure_inverse, attack="inverse greedy"),
    _metric("guidance", _COMES_OUT, measure=measure_guided, attack="guidance"),
    _metric(
        "unlearning_score",
        label="Unlearning Score",
        better="higher",
        question="detail",
        derive=_unlearning_score,
        heading="score",
        headline=True,
    ),
    _metric("efficacy", _HIDDEN, _LAYERS, heading="efficacy", headline=True),
    _metric("generality", _HIDDEN, _LAYERS, heading="generality"),
    _metric(
        "specificity",
        label="retained",
        better="higher",
        question="left",
        measure=measure_retained,
        heading="specificity",
        headline=True,
    ),
    _metric("logit lens", _HIDDEN, _LAYERS, attack="logit lens"),
    _metric("logit lens, layer", _DETAIL, measure=measure_output, attack="logit lens"),
    _metric("perturbation", _HIDDEN, measure=measure_perturbed, attack="perturbation", ranked=True),
    _metric("perturbation, layer", _DETAIL, measure=measure_perturbed, attack="perturbation"),
    _metric("delta", _HIDDEN, _LAYERS, attack="delta"),
    _metric(
        "resistance_score",
        _HIDDEN,
        label="Resistance",
        derive=_resistance_score,
        ranked=True,
        heading="Resistance",
        headline=True,
    ),
    _metric("still generated", _COMES_OUT, measure=measure_recall, heading="still said", headline=True),
    _metric("exact memorization", _COMES_OUT, measure=measure_recall),
    _metric("extraction strength", _COMES_OUT, measure=measure_recall),
    _metric("quantization, 8 bits", _HIDDEN, measure=measure_quantized, attack="quantization"),
    _metric("quantization, 4 bits", _HIDDEN, measure=measure_quantized, attack="quantization"),
    _metric("quantization, NF4", _HIDDEN, measure=measure_quantized, attack="quantization"),
    *(_metric(f"pruning, {share}%", _HIDDEN, measure=measure_pruned, attack="pruning") for share in (10, 20, 30)),
    _metric("merging", _HIDDEN, measure=measure_merged, attack="merging"),
    *(
        _metric(f"prefix of {length} tokens", _HIDDEN, measure=measure_long_prefixes, attack="long prefix")
        for length in (50, 100, 200)
    ),
    _metric("paraphrase", _COMES_OUT, measure=measure_paraphrased, attack="paraphrase", heading="reworded"),
    _metric(
        "specificity, paraphrased",
        better="higher",
        question="left",
        measure=measure_paraphrased,
        attack="paraphrase",
    ),
    _metric("in-context", _HIDDEN, measure=measure_in_context, attack="in-context"),
    _metric("sampled", _COMES_OUT, measure=measure_sampled, attack="sampling"),
    _metric("relearning", _HIDDEN, measure=measure_relearned, attack="relearning"),
    _metric("relearning, said", _COMES_OUT, measure=measure_relearned, attack="relearning"),
    _metric("concept", _CONCEPT),
    _metric("concept, worst", _CONCEPT, label="concept, worst prompt", headline=True),
    _metric("concept, other languages", _CONCEPT),
    _metric("concept, other languages, worst", _CONCEPT),
    _metric("concept, facts (nats)", _CONCEPT, question="detail"),
    _metric("concept, neighbours", _CONCEPT, better="higher", question="left"),
    _metric(RELEARNED, _CONCEPT, measure=measure_neighbours_relearned, attack="relearning"),
    _metric(RETURNED, _CONCEPT),  # with a report from before, as what follows but one line
    *(_metric(name, _CONCEPT, question="detail") for name in ABOVE_MADE_UP),
    # Only with a report of the model before its edit.
    *(
        _metric(
            f"{share}{end}",
            _CONCEPT,
            better="higher",
            question="hidden",
            headline=share.endswith("facts, forgotten") and not end,
        )
        for share in ABOVE_MADE_UP.values()
        for end in ("", ", least")
    ),
    _metric("kl_median", _COST, label="KL, median (nats)", better="lower", heading="KL median", headline=True),
    _metric("kl_mean", _COST, label="KL, mean (nats)", better="lower", heading="KL mean"),
    _metric("top1_agreement", _COST, label="same top token", better="higher", heading="top-1", headline=True),
    _metric("perplexity_before", _COST, better=None),
    _metric("perplexity_after", _COST, better="lower"),
)
# Every attack, in the order in which they are run. Those that train, or decode hundreds of times a secret, have to be
# asked for.
ATTACKS: tuple[str, ...] = tuple(dict.fromkeys(metric.attack for metric in METRICS if metric.attack is not None))
DEFAULT_ATTACKS = tuple(name for name in ATTACKS if name not in ("relearning", "enumeration"))
DIRECTIONS = {metric.key: metric.better or "" for metric in METRICS}


def measurements(run: EvaluationRun) -> list[Callable[[EvaluationRun], None]]:
    """Returns what has to be done for a run, each measurement once, in the order of the table."""
    parts = {"secrets": bool(run.secrets), "concepts": bool(run.concepts), "text": run.text is not None}
    wanted = (
        metric.measure
        for metric in METRICS
        if metric.measure is not None
        and parts[metric.about]
        and (metric.attack is None or metric.attack in run.options.attacks)
    )
    return list(dict.fromkeys(wanted))


def completed(summary: Summary) -> dict[str, float]:
    """Returns a summary with what is derived from it, in the order of the table."""
    figures = dict(summary)
    for metric in METRICS:
        value = metric.derive(figures) if metric.derive is not None else None
        if value is not None:
            figures[metric.key] = value
    unknown = figures.keys() - {metric.key for metric in METRICS}
    if unknown:
        raise KeyError(f"{', '.join(sorted(unknown))}: a figure without a row in METRICS")
    return {metric.key: figures[metric.key] for metric in METRICS if metric.key in figures}
