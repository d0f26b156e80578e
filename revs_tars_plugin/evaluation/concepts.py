"""What a model knows of a concept, in both directions: from a description to its name, and from its name to facts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..errors import InputError
from ..formatting import headings_of
from ..requests.made_up import MadeUp
from ..requests.reading import tokenise_in_context
from .integrity import next_token_log_probabilities
from .run import EvaluationRun, mean

if TYPE_CHECKING:
    from ..data.concept_files import ConceptRecord
    from .unlearning_report import UnlearningReport

# Made-up names that stand in a concept's place.
_MADE_UP = 8
# Where the unedited model makes less of the name than that, nats, there is nothing to forget.
_KNOWN = 0.1
# Where less of the names' probability is gone, nothing is said of what share of it returns.
_GONE = 0.01
# Figures that compare with made-up names, and the share of each that an edit took.
ABOVE_MADE_UP = {
    "concept, above made-up names (nats)": "concept, forgotten",
    "concept, other languages, above made-up names (nats)": "concept, other languages, forgotten",
    "concept, facts, above made-up names (nats)": "concept, facts, forgotten",
}
# The names' probability after what is near was taught again, and which share of what was gone that is.
RELEARNED, RETURNED = "concept, neighbours relearned", "concept, returned"


def name_probabilities(model: nn.Module, tok: Any, prompts: Sequence[str], name: str) -> list[float]:
    """Returns the probability that the name begins after each prompt (TARS, section 4)."""
    return _probabilities(model, tok, [(prompt, name) for prompt in prompts])


def _probabilities(model: nn.Module, tok: Any, facts: Sequence[tuple[str, str]]) -> list[float]:
    """How likely each fact goes on as it does."""
    probabilities: list[float] = torch.tensor(fact_log_likelihoods(model, tok, facts)).exp().tolist()
    return probabilities


def fact_log_likelihoods(model: nn.Module, tok: Any, facts: Sequence[tuple[str, str]]) -> list[float]:
    """Returns for each beginning of a fact the log-likelihood, in nats, of the first token of how it goes on."""
    if not facts:
        return []
    tokens = torch.tensor([[tokenise_in_context(tok, *fact)[1][0]] for fact in facts])
    likelihoods: list[float] = (
        next_token_log_probabilities(model, tok, [fact[0] for fact in facts]).gather(1, tokens)[:, 0].tolist()
    )
    return likelihoods


def names_like(concept: ConceptRecord, seed: int = 0) -> list[str]:
    """Returns made-up names of the concept's kind: a last name for a last name, an everyday word for such a word.

    Args:
        concept: The concept; its name is none of them.
        seed: Seed of what is drawn.
    """
    return MadeUp(f"concepts {seed} {concept.name}").several_like(concept.name, _MADE_UP)


def name_margins(model: nn.Module, tok: Any, prompts: Sequence[str], name: str, others: Sequence[str]) -> list[float]:
    """Returns how much likelier the name is behind each prompt than made-up ones are on average, nats.

    Args:
        model: A causal language model.
        tok: Its tokenizer.
        prompts: Prompts that lead to the name.
        name: The name; of each one its first token counts.
        others: Made-up names; a prompt behind which all of them begin as the name does is left out.
    """
    if not prompts:
        return []
    margins = []
    for prompt, values in zip(prompts, next_token_log_probabilities(model, tok, prompts), strict=True):
        own, *firsts = (tokenise_in_context(tok, prompt, each)[1][0] for each in (name, *others))
        # A made-up name that begins as the name does says nothing about it.
        apart = [token for token in firsts if token != own]
        if apart:
            margins.append(float(values[own] - values[apart].mean()))
    return margins


def fact_margins(
    model: nn.Module, tok: Any, facts: Sequence[tuple[str, str]], name: str, others: Sequence[str]
) -> list[float]:
    """Returns how much likelier each fact goes on as it does than with made-up names in the name's place, nats.

    What goes on alike about anybody ("... was a famous") is not known of the name.

    Args:
        model: A causal language model.
        tok: Its tokenizer.
        facts: Pairs of a beginning and how it goes on; those whose beginning has no such name are left out.
        name: The name.
        others: Made-up names.
    """
    named = [(beginning, end) for beginning, end in facts if name in beginning and others]
    every = [(beginning.replace(name, each), end) for beginning, end in named for each in (name, *others)]
    values = torch.tensor(fact_log_likelihoods(model, tok, every)).reshape(len(named), 1 + len(others))
    margins: list[float] = (values[:, 0] - values[:, 1:].mean(dim=1)).tolist()
    return margins


def share_forgotten(before: Sequence[float], after: Sequence[float]) -> float | None:
    """Returns which share of what a model made of a name is gone, over all cases; None where it made nothing of it.

    1 where the name is as good as a made-up one; above 1 where it is worse.

    Args:
        before: How far the name was above made-up ones in each case, nats.
        after: The same of the model as it stands.
    """
    known = [(was, now) for was, now in zip(before, after, strict=True) if was >= _KNOWN]
    if not known:
        return None
    return 1 - sum(now for _, now in known) / sum(was for was, _ in known)


def held_out_prompts(run: EvaluationRun, concept: ConceptRecord) -> list[str]:
    """Returns the prompts that a concept is asked by, as the model gets them.

    Raises:
        InputError: When there is none.
    """
    prompts = concept.held_out or concept.prompts
    if not prompts:
        raise InputError(
            f'The concept "{concept.name}" has neither "held_out" nor "prompts", so nothing can be asked; give texts '
            "after which its name comes."
        )
    return run.asked(prompts)


def measure_concepts(run: EvaluationRun) -> None:
    """Asks for the concepts: from description to name, in each language, from name to facts, and for what is near."""
    rows = []
    for concept in run.concepts:
        rows.append(_figures(run, concept))
        # Rows alone have languages one by one, since concepts are known in different ones.
        languages = {f"in {code}": mean(_asked_probabilities(run, pairs)) for code, pairs in concept.languages.items()}
        run.concept_rows.append({**rows[-1], **languages})
    for name in headings_of(rows):
        values = [row[name] for row in rows if name in row]
        run.summary[name] = max(values) if name.endswith(", worst") else mean(values)


def _figures(run: EvaluationRun, concept: ConceptRecord) -> dict[str, Any]:
    prompts = held_out_prompts(run, concept)
    probabilities = name_probabilities(run.model, run.tok, prompts, concept.name)
    row: dict[str, Any] = {"concept": mean(probabilities), "concept, worst": max(probabilities)}
    if concept.abroad:
        elsewhere = _asked_probabilities(run, concept.abroad)
        row |= {"concept, other languages": mean(elsewhere), "concept, other languages, worst": max(elsewhere)}
    facts = _asked(run, concept.facts)
    if facts:
        row["concept, facts (nats)"] = mean(fact_log_likelihoods(run.model, run.tok, facts))
    if concept.neighbours:
        row["concept, neighbours"] = mean(_asked_probabilities(run, concept.neighbours))
    others = names_like(concept, run.options.seed)
    # Where a language has a name of its own, made-up ones are none of that language.
    abroad = run.asked([prompt for prompt, name in concept.abroad if name == concept.name])
    above = (
        name_margins(run.model, run.tok, prompts, concept.name, others),
        name_margins(run.model, run.tok, abroad, concept.name, others),
        fact_margins(run.model, run.tok, facts, concept.name, others),
    )
    return row | {name: mean(margins) for name, margins in zip(ABOVE_MADE_UP, above, strict=True) if margins}


def _asked(run: EvaluationRun, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Pairs of a beginning and how it goes on, the former as the model gets it."""
    beginnings = run.asked([beginning for beginning, _ in pairs])
    return [(asked, end) for asked, (_, end) in zip(beginnings, pairs, strict=True)]


def _asked_probabilities(run: EvaluationRun, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """How likely such pairs go on as they do, asked as the run asks."""
    return _probabilities(run.model, run.tok, _asked(run, pairs))


def forgotten_since(run: EvaluationRun, before: UnlearningReport) -> None:
    """Adds for each concept, and over all, which share of what there was above made-up names is gone since a report.

    Where what is near was taught again, which share of the names' probability that was gone is back.

    Args:
        run: The evaluation of the model as it stands, with its concepts measured.
        before: What was found of the same concepts before the edit.
    """
    for above, share in ABOVE_MADE_UP.items():
        pairs = [
            (row, float(was[above]), float(row[above]))
            for row, was in zip(run.concept_rows, before.concepts, strict=True)
            if above in was and above in row
        ]
        shares = []
        for row, was, now in pairs:
            of_row = share_forgotten([was], [now])
            if of_row is not None:
                row[share] = of_row
                shares.append(of_row)
        overall = share_forgotten([was for _, was, _ in pairs], [now for _, _, now in pairs])
        if overall is not None:
            run.summary[share] = overall
            run.summary[f"{share}, least"] = min(shares)
    gone = before.summary.get("concept", 0.0) - run.summary.get("concept", 0.0)
    if RELEARNED in run.summary and gone >= _GONE:
        run.summary[RETURNED] = (run.summary[RELEARNED] - run.summary["concept"]) / gone
