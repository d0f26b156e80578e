"""Concepts that a model knows by itself: what is left of them, of their neighbourhood, and of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..data.concept_files import ConceptRecord
from ..errors import InputError
from ..evaluation import UnlearningReport, evaluate_unlearning, next_token_log_probabilities
from ..model.module_names import ModuleNames
from .benchmark import Scores
from .records import Record, Split

# As errors and files call it.
CONCEPTS = "Concepts"


@dataclass(frozen=True)
class Concepts:
    """Concepts that a model learned with everything else, so that no retain-only model can be had.

    Attributes:
        concepts: What has to be forgotten.
        unrelated: Prompts that have nothing to do with them.
        before: What the unedited model says behind each of these, a token.
        report: What was found of the concepts in the unedited model.
        near: Prompts about what is near the concepts: their own neighbours, and other concepts of the file, to their
            names and from them to facts.
        near_before: What the unedited model says behind each of these.
        relearned: Whether every edited model is taught the concepts' neighbours again, to see what comes back.
        retain: Texts to retain, for the methods that train.
        name: What result files and tables call it.
    """

    concepts: tuple[ConceptRecord, ...]
    unrelated: tuple[str, ...]
    before: tuple[int, ...]
    report: UnlearningReport = field(repr=False)
    retain: tuple[Record, ...]
    near: tuple[str, ...] = ()
    near_before: tuple[int, ...] = ()
    relearned: bool = False
    name: str = CONCEPTS
    learned: tuple[Record, ...] = ()
    kept: tuple[Record, ...] = ()
    compared: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        model: nn.Module,
        tok: Any,
        concepts: Sequence[ConceptRecord],
        unrelated: Sequence[str],
        texts: Sequence[str],
        *,
        neighbours: Sequence[ConceptRecord] = (),
        relearned: bool = False,
    ) -> Concepts:
        """Asks the unedited model what it says of unrelated things.

        Args:
            model: The model that knows the concepts.
            tok: Its tokenizer.
            concepts: What has to be forgotten.
            unrelated: Prompts that have nothing to do with them.
            texts: Ordinary texts, which methods that train are to retain.
            neighbours: Other concepts, which have to stay; no method is told of them.
            relearned: Teach every edited model the concepts' neighbours again; takes the memory of training.

        Raises:
            InputError: When there is no concept.
        """
        if not concepts:
            raise InputError("There are no concepts to forget; the file must hold at least one.")
        retain = []
        for number, text in enumerate(texts):
            words = text.split()
            if len(words) > 1:
                prompt, answer = " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])
                retain.append(Record(str(number), str(number), "text", CONCEPTS, prompt, answer))
        near = [prompt for concept in concepts for prompt, _ in concept.neighbours]
        near += [
            prompt
            for each in neighbours
            for prompt in (*each.prompts, *each.held_out, *(beginning for beginning, _ in each.facts))
        ]
        near = list(dict.fromkeys(near))
        return cls(
            tuple(concepts),
            tuple(unrelated),
            _said(model, tok, unrelated),
            _measured(model, tok, concepts),
            tuple(retain),
            tuple(near),
            _said(model, tok, near),
            relearned,
        )

    @property
    def split(self) -> Split:
        """Every prompt of every concept with its name behind."""
        forget = [
            Record(f"{concept.name} {number}", concept.name, "prompt", CONCEPTS, prompt, concept.name)
            for concept in self.concepts
            for number, prompt in enumerate(concept.prompts)
        ]
        return Split(tuple(forget), self.retain)

    def scores(self, model: nn.Module, tok: Any) -> Scores:
        """Returns what `evaluate_unlearning` says of concepts, and what share of the other answers is the same."""
        report = _measured(model, tok, self.concepts, self.report, relearned=self.relearned)
        scores: Scores = {name: (float(value), {}) for name, value in report.summary.items()}
        for name, prompts, before in (
            ("neighbours, kept", self.near, self.near_before),
            ("unrelated, kept", self.unrelated, self.before),
        ):
            if prompts:
                same = [now == then for now, then in zip(_said(model, tok, prompts), before, strict=True)]
                by_prompt = {str(number): {"score": float(kept)} for number, kept in enumerate(same)}
                scores[name] = (sum(same) / len(same), by_prompt)
        return scores

    def against(self, scores: Scores, gold: Scores) -> Scores:
        """Nothing: there is no model to compare with."""
        return {}


def _measured(
    model: nn.Module,
    tok: Any,
    concepts: Sequence[ConceptRecord],
    before: UnlearningReport | None = None,
    *,
    relearned: bool = False,
) -> UnlearningReport:
    return evaluate_unlearning(
        model,
        tok,
        [],
        names=ModuleNames.found_in(model),
        concepts=list(concepts),
        before=before,
        attacks=("relearning",) if relearned else (),
    )


def _said(model: nn.Module, tok: Any, prompts: Sequence[str]) -> tuple[int, ...]:
    if not prompts:
        return ()
    return tuple(next_token_log_probabilities(model, tok, prompts).argmax(dim=-1).tolist())
