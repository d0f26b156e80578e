"""The concept benchmark: models lose twenty concepts, one after another.

Every concept has prompts that the edit is given and held-out ones, prompts in other languages, facts about its name
(the reverse direction), and neighbours, which have to stay. Beside them: 40 unrelated facts, and ordinary text.
SmolLM2-135M loses those of the file "demo", Gemma 3 270M those of "multilingual".

Run: python benchmarks/concepts.py [--models demo gemma] [--variants whitened name ...] [--text FILE] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
import yaml
from _measuring import clock, ordinary_text
from _tables import show
from transformers import AutoModelForCausalLM, AutoTokenizer

from revs_tars_plugin import TARSHyperParams, execute_tars
from revs_tars_plugin.data import ConceptRecord, demo_model, read_concepts_file
from revs_tars_plugin.evaluation import (
    OrdinaryText,
    UnlearningReport,
    evaluate_unlearning,
    fact_log_likelihoods,
    next_token_log_probabilities,
)
from revs_tars_plugin.model.module_names import ModuleNames

# Below this the model did not know it before, and there is nothing to forget, or to keep.
KNOWN = 0.1
# Runs beside each other in the last table.
_ABREAST = 4
_SHARES = ("concept, forgotten", "concept, other languages, forgotten", "concept, facts, forgotten")
# As published: vectors are replaced, in whatever layer; the numbers, which the paper does not give, are ours.
_PUBLISHED = {
    "refine": "noise",
    "reversal": "replaced",
    "reversal_layers": "all",
    "reversal_scale": 1.0,
    "n_edits": 10,
    "goal_probability": 0.005,
    "directions": ["to_name"],
}
# The setting whose concepts come without prompts.
_ALONE = "a name alone"
VARIANTS: dict[str, dict[str, Any]] = {
    "whitened": {},
    "to the name": {"directions": ["to_name"]},
    "from the name": {"directions": ["from_name"]},
    "written beside the given": {"prompts": "both"},
    "written": {"prompts": "written"},
    _ALONE: {"prompts": "written"},
    "replaced": {**_PUBLISHED, "refine": "whitened"},
    "noise": _PUBLISHED,
    "published": {**_PUBLISHED, "affinity": "cosine", "short_prompts": 0},
}


@dataclass(frozen=True)
class Subject:
    """A model, and what it is to lose: the model's bundled name, its packaged settings, and the file of concepts."""

    bundled: str
    settings: str
    concepts: str


MODELS = {
    "demo": Subject("smollm2", "smollm2-135m", "demo"),
    "gemma": Subject("gemma", "gemma-3-270m", "multilingual"),
}


def main() -> None:
    """Removes the concepts from every asked model with every asked setting and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=["demo"])
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--concepts", type=int, help="only the first ones")
    parser.add_argument("--at", type=int, nargs="+", default=[5, 20], help="after how many everything is measured")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="other settings")
    parser.add_argument("--text", help="ordinary text to measure on; by default sampled from the model itself")
    parser.add_argument("--tokens", type=int, default=1024, help="how many tokens of it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="also write the figures there")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    changes = {key: yaml.safe_load(value) for key, value in (item.split("=", 1) for item in arguments.set)}
    found: dict[str, Any] = {}
    lines = []
    for name in arguments.models:
        run = ConceptRun.of(MODELS[name], arguments)
        for variant in arguments.variants:
            settings = TARSHyperParams.from_hparams(MODELS[name].settings).to_dict()
            hparams = TARSHyperParams(**{**settings, "seed": arguments.seed, **VARIANTS[variant], **changes})
            rows, summary = run.removed(hparams, alone=variant == _ALONE)
            title = f"{name}, {variant}: " + (
                ", ".join(f"{key}: {value}" for key, value in {**VARIANTS[variant], **changes}.items()) or "the YAML"
            )
            show(f"{title}; {len(rows)} concepts one after another", rows, decimals=4, width=180)
            lines += [{"model": name, "settings": variant, **line} for line in summary]
            found[f"{name}, {variant}"] = {"concepts": rows, "summary": summary, "settings": hparams.to_dict()}
    # Standing, since there are many figures and few runs.
    figures = list(dict.fromkeys(figure for line in lines for figure in line))
    for start in range(0, len(lines), _ABREAST):
        abreast = lines[start : start + _ABREAST]
        table = [
            {"": figure, **{str(number): line.get(figure, "") for number, line in enumerate(abreast)}}
            for figure in figures
        ]
        show("Summary, all edits so far in place", table, decimals=4, width=180)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=1), encoding="utf-8")


@dataclass(frozen=True)
class Unedited:
    """What the unedited model knows: reports and what it says of what is near, by count; what it says of the rest."""

    reports: dict[int, UnlearningReport]
    near: dict[int, torch.Tensor]
    unrelated: torch.Tensor


@dataclass(frozen=True)
class ConceptRun:
    """A model that knows concepts, with what it says before any edit.

    Attributes:
        model: The model; it is as before after every run.
        tok: Its tokenizer.
        concepts: The concepts, with those prompts, facts and neighbours alone that the model knows.
        unrelated: Prompts that have nothing to do with any of them.
        text: Ordinary text.
        at: After how many concepts everything is measured.
    """

    model: torch.nn.Module
    tok: Any
    concepts: Sequence[ConceptRecord]
    unrelated: Sequence[str]
    text: OrdinaryText
    at: Sequence[int]

    @classmethod
    def of(cls, subject: Subject, arguments: argparse.Namespace) -> ConceptRun:
        """Loads the model and asks it what it knows."""
        folder = demo_model(subject.bundled)
        model, tok = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        text = ordinary_text(model, tok, arguments, arguments.seed)
        concepts, unrelated = read_concepts_file(subject.concepts)
        unrelated = unrelated or read_concepts_file()[1]
        known = [_known(model, tok, concept) for concept in concepts[: arguments.concepts]]
        at = sorted({min(count, len(known)) for count in arguments.at})
        return cls(model, tok, known, unrelated, text, at)

    @cached_property
    def unedited(self) -> Unedited:
        """What is found before any edit, once for all settings."""
        return Unedited(
            {count: self._report(count) for count in self.at},
            {count: _said(self.model, self.tok, self._near(count)) for count in self.at},
            _said(self.model, self.tok, self.unrelated),
        )

    def removed(
        self, hparams: TARSHyperParams, *, alone: bool = False
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Removes one concept after another.

        Args:
            hparams: The settings.
            alone: Whether the edit is given the names and no prompts.

        Returns:
            A row a concept, measured with all edits in place, and a row for each count at which all is measured.
        """
        before = self.unedited.reports
        asked = [(replace(concept, prompts=()) if alone else concept).requests() for concept in self.concepts]
        # Ordinary text is read once a model, and not timed.
        execute_tars(self.model, self.tok, self.concepts[0].requests(), hparams)
        edits, seconds, summary, report = [], [], [], None
        for count, requests in enumerate(asked, 1):
            took, edit = clock(lambda: execute_tars(self.model, self.tok, requests, hparams))  # noqa: B023
            edit.apply(self.model)
            edits.append(edit)
            seconds.append(took)
            if count in self.at:
                report = self._report(count, before[count])
                outcomes = [each.outcomes[0] for each in edits]
                line = self._summary(report, outcomes)
                summary.append({**line, "s a call, median": statistics.median(seconds)})
        for edit in reversed(edits):
            if edit.edits:  # a name may be unknown, or told by no layer
                edit.undo(self.model)
        assert report is not None
        was = before[self.at[-1]]
        rows = [
            _row(concept, edit.outcomes[0], *figures)
            for concept, edit, *figures in zip(self.concepts, edits, was.concepts, report.concepts, strict=False)
        ]
        return rows, summary

    def _report(self, count: int, before: UnlearningReport | None = None) -> UnlearningReport:
        return evaluate_unlearning(
            self.model,
            self.tok,
            [],
            names=ModuleNames.found_in(self.model),
            concepts=list(self.concepts[:count]),
            before=before,
            attacks=("relearning",) if before is not None else (),
        )

    def _near(self, count: int) -> list[str]:
        """What has to stay after so many: neighbours of the concepts that went, and the concepts that did not."""
        gone, left = self.concepts[:count], self.concepts[count:]
        named = [prompt for concept in gone for prompt, _ in concept.neighbours]
        return list(dict.fromkeys(named + [prompt for concept in left for prompt in concept.held_out]))

    def _summary(self, report: UnlearningReport, outcomes: Sequence[Any]) -> dict[str, Any]:
        count = len(outcomes)
        before = self.unedited.reports[count]
        figures, was = report.summary, before.summary
        kept = _said(self.model, self.tok, self._near(count)) == self.unedited.near[count]
        unrelated = _said(self.model, self.tok, self.unrelated) == self.unedited.unrelated
        cost = self.text.compare(self.model)
        abroad = "concept, other languages"
        languages: dict[str, list[tuple[float, float]]] = {}
        for old, new in zip(before.concepts, report.concepts, strict=True):
            for name in new:
                if name.startswith("in "):
                    languages.setdefault(name, []).append((old[name], new[name]))
        return {
            "concepts": count,
            "held-out p, worst": figures["concept, worst"],
            "held-out p, mean": f"{was['concept']:.3f} -> {figures['concept']:.3f}",
            "other languages, worst": figures.get(f"{abroad}, worst", ""),
            "the same, spelled alike": _worst_spelled_alike(self.model, self.tok, self.concepts[:count]),
            "other languages, mean": f"{was[abroad]:.3f} -> {figures[abroad]:.3f}" if abroad in was else "",
            **{
                name: " -> ".join(f"{statistics.mean(side):.3f}" for side in zip(*pairs, strict=True))
                for name, pairs in sorted(languages.items())
            },
            **{
                share: f"{figures[share]:.2f} ({figures[share + ', least']:.2f})"
                for share in _SHARES
                if share in figures
            },
            "KL median": cost.kl_median,
            "KL mean": cost.kl_mean,
            "top-1": cost.top1_agreement,
            "perplexity": f"{cost.perplexity_before:.2f} -> {cost.perplexity_after:.2f}",
            "unrelated, kept": f"{int(unrelated.sum())}/{len(unrelated)}",
            "neighbours, kept": f"{int(kept.sum())}/{len(kept)}",
            "returned, neighbours relearned": figures.get("concept, returned", ""),
            "vectors, median": f"{statistics.median(each.reversed for each in outcomes):g}",
            "detectors, median": f"{statistics.median(each.detectors for each in outcomes):g}",
        }


def _row(concept: ConceptRecord, outcome: Any, before: Any, after: Any) -> dict[str, Any]:
    """One concept, with the edits of all concepts in place."""
    abroad, facts = "concept, other languages", "concept, facts, forgotten"
    return {
        "concept": concept.name,
        "given": f"{max(outcome.before):.2f} -> {max(outcome.after):.3f}",
        "held out": len(concept.held_out),
        "p before": before["concept"],
        "worst": after["concept, worst"],
        "abroad": f"{before[abroad]:.2f} -> {after[abroad]:.3f}" if abroad in before else "",
        "languages": len(concept.languages) or "",
        "facts forgotten": after.get(facts, ""),
        "vectors": outcome.reversed,
        "detectors": outcome.detectors,
        "s": f"{outcome.seconds:.1f}",
    }


def _known(model: torch.nn.Module, tok: Any, concept: ConceptRecord) -> ConceptRecord:
    """The concept with what the model knows of it, and of its neighbours."""

    def known(pairs: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        likelihoods = torch.tensor(fact_log_likelihoods(model, tok, pairs))
        return tuple(pair for pair, p in zip(pairs, likelihoods.exp().tolist(), strict=True) if p >= KNOWN)

    def leading(prompts: Sequence[str]) -> tuple[str, ...]:
        return tuple(prompt for prompt, _ in known([(prompt, concept.name) for prompt in prompts]))

    languages = {code: known(pairs) for code, pairs in concept.languages.items()}
    return replace(
        concept,
        held_out=leading(concept.held_out),
        foreign=leading(concept.foreign),
        languages={code: pairs for code, pairs in languages.items() if pairs},
        neighbours=known(concept.neighbours),
    )


def _worst_spelled_alike(model: torch.nn.Module, tok: Any, concepts: Sequence[ConceptRecord]) -> float:
    """The highest probability of a name behind a prompt in a language that writes it as English does."""
    pairs = [pair for concept in concepts for pair in concept.abroad if pair[1] == concept.name]
    return float(torch.tensor(fact_log_likelihoods(model, tok, pairs)).exp().max())


def _said(model: torch.nn.Module, tok: Any, prompts: Sequence[str]) -> torch.Tensor:
    return next_token_log_probabilities(model, tok, prompts).argmax(dim=-1)


if __name__ == "__main__":
    main()
