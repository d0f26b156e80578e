"""The concept benchmark: SmolLM2-135M loses twenty concepts, one after another.

Every concept has prompts that the edit is given and held-out ones, facts about its name (the reverse direction), and
prompts in other languages where the model knows it there. Beside them: 40 unrelated facts, and ordinary text.

Run: python benchmarks/concepts.py [--variants whitened name ...] [--text FILE] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
import yaml
from _measuring import ordinary_text
from _tables import show
from transformers import AutoModelForCausalLM, AutoTokenizer

from revs_tars_plugin import TARSHyperParams, execute_tars
from revs_tars_plugin.data import ConceptRecord, demo_model, read_concepts_file
from revs_tars_plugin.evaluation import (
    fact_log_likelihoods,
    fact_margins,
    name_margins,
    name_probabilities,
    names_like,
    next_token_log_probabilities,
    share_forgotten,
)

CONCEPTS, UNRELATED = read_concepts_file()
# Below this the model did not know it before, and there is nothing to forget.
_KNOWN = 0.1
_FIRST = 5
_KINDS = ("held out", "abroad", "facts")
VARIANTS: dict[str, dict[str, Any]] = {
    "whitened": {},
    "to the name": {"directions": ["to_name"]},
    "from the name": {"directions": ["from_name"]},
    "noise": {"refine": "noise", "directions": ["to_name"]},
    "published": {"refine": "noise", "affinity": "cosine", "short_prompts": 0, "directions": ["to_name"]},
}


def main() -> None:
    """Removes the concepts with every asked setting and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--concepts", type=int, default=len(CONCEPTS))
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="other settings")
    parser.add_argument("--text", help="ordinary text to measure on; by default sampled from the model itself")
    parser.add_argument("--tokens", type=int, default=1024, help="how many tokens of it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="also write the figures there")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    folder = demo_model()
    model, tok = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    text = ordinary_text(model, tok, arguments, arguments.seed)
    concepts = CONCEPTS[: arguments.concepts]
    changes = {key: yaml.safe_load(value) for key, value in (item.split("=", 1) for item in arguments.set)}
    found = {}
    for name in arguments.variants:
        settings = TARSHyperParams.from_hparams("smollm2-135m").to_dict()
        hparams = TARSHyperParams(**{**settings, **VARIANTS[name], **changes})
        rows = run(model, tok, concepts, hparams, text)
        title = f"{name}: " + (", ".join(f"{key}: {value}" for key, value in VARIANTS[name].items()) or "the YAML")
        show(f"{title}; {len(rows)} concepts one after another", [row["shown"] for row in rows], decimals=4, width=160)
        summary = [summarise(rows[:count]) for count in dict.fromkeys((min(_FIRST, len(rows)), len(rows)))]
        show(f"Summary, {title}", summary, decimals=4, width=160)
        found[name] = {"concepts": rows, "summary": summary, "settings": hparams.to_dict()}
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=1), encoding="utf-8")


def run(
    model: torch.nn.Module, tok: Any, concepts: Sequence[ConceptRecord], hparams: TARSHyperParams, text: Any
) -> list[dict[str, Any]]:
    """Removes one concept after another; returns a row each, measured with all edits so far in place."""
    known = {concept.name: known_prompts(model, tok, concept) for concept in concepts}
    facts = {concept.name: fact_log_likelihoods(model, tok, concept.facts) for concept in concepts}
    margins = {concept.name: margins_of(model, tok, concept, known[concept.name]) for concept in concepts}
    answers = next_token_log_probabilities(model, tok, UNRELATED).argmax(dim=-1)
    execute_tars(model, tok, concepts[0].requests(), hparams)  # ordinary text is measured once a model, and not timed
    rows, edits = [], []
    for count, concept in enumerate(concepts, 1):
        edit = execute_tars(model, tok, concept.requests(), hparams)
        edit.apply(model)
        edits.append(edit)
        (outcome,) = edit.outcomes
        held_out, foreign = known[concept.name]
        after = name_probabilities(model, tok, [prompt for prompt, _ in held_out], concept.name)
        abroad = name_probabilities(model, tok, [prompt for prompt, _ in foreign], concept.name)
        fallen = [
            before - now
            for before, now in zip(facts[concept.name], fact_log_likelihoods(model, tok, concept.facts), strict=True)
        ]
        # Of all concepts so far: does a later edit bring an earlier one back?
        so_far = [
            max(name_probabilities(model, tok, [prompt for prompt, _ in known[done.name][0]], done.name))
            for done in concepts[:count]
        ]
        # Of all that there was above made-up names, of all concepts so far.
        left = [margins_of(model, tok, done, known[done.name]) for done in concepts[:count]]
        kept = int((next_token_log_probabilities(model, tok, UNRELATED).argmax(dim=-1) == answers).sum())
        cost = text.compare(model)
        shown = {
            "concept": concept.name,
            "given": f"{max(outcome.before):.2f} -> {max(outcome.after):.3f}",
            "held out": len(held_out),
            "p before": statistics.mean(p for _, p in held_out),
            "worst after": max(after),
            "edits": outcome.reversed,
            "detectors": outcome.detectors,
            "facts, nats": statistics.mean(fallen),
            "abroad": f"{max((p for _, p in foreign)):.2f} -> {max(abroad):.3f}" if foreign else "",
            "KL median": cost.kl_median,
            "KL mean": cost.kl_mean,
            "top-1": cost.top1_agreement,
            "facts kept": f"{kept}/{len(UNRELATED)}",
            "s": outcome.seconds,
        }
        rows.append(
            {
                "shown": shown,
                "held out after": after,
                "foreign after": abroad,
                "foreign before": [p for _, p in foreign],
                "fallen": fallen,
                "worst so far": max(so_far),
                "margins before": [margins[done.name] for done in concepts[:count]],
                "margins after": left,
                "kept": kept,
                "reached": outcome.reached,
            }
        )
    for edit in reversed(edits):
        edit.undo(model)
    return rows


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One line over all concepts; cost and worst probability are those with all of their edits in place."""
    shown = [row["shown"] for row in rows]
    last = shown[-1]
    abroad = [
        (before, after)
        for row in rows
        for before, after in zip(row["foreign before"], row["foreign after"], strict=True)
    ]
    return {
        "concepts": len(rows),
        "held-out p, worst": rows[-1]["worst so far"],
        "edits, median": f"{statistics.median(row['edits'] for row in shown):g}",
        "KL median": last["KL median"],
        "KL mean": last["KL mean"],
        "top-1": last["top-1"],
        "facts kept": last["facts kept"],
        "facts of names, nats": statistics.mean(row["facts, nats"] for row in shown),
        **{f"{kind}, forgotten": forgotten(rows[-1], kind) for kind in _KINDS},
        "abroad, mean p": " -> ".join(f"{statistics.mean(side):.3f}" for side in zip(*abroad, strict=True)),
        "s, median": statistics.median(row["s"] for row in shown),
    }


def margins_of(
    model: torch.nn.Module, tok: Any, concept: ConceptRecord, known: tuple[list[tuple[str, float]], ...]
) -> dict[str, list[float]]:
    """How far the name stands above made-up ones, nats, behind each prompt and in each fact."""
    others = names_like(concept)
    held_out, foreign = ([prompt for prompt, _ in prompts] for prompts in known)
    return {
        "held out": name_margins(model, tok, held_out, concept.name, others),
        "abroad": name_margins(model, tok, foreign, concept.name, others),
        "facts": fact_margins(model, tok, concept.facts, concept.name, others),
    }


def forgotten(row: dict[str, Any], kind: str) -> str:
    """The share of it that is gone over all concepts so far, and the least of any concept."""
    pairs = [
        (before[kind], after[kind]) for before, after in zip(row["margins before"], row["margins after"], strict=True)
    ]
    each = [share for share in (share_forgotten(*pair) for pair in pairs) if share is not None]
    if not each:
        return ""
    overall = share_forgotten(*([value for values in side for value in values] for side in zip(*pairs, strict=True)))
    return f"{overall:.2f} ({min(each):.2f})"


def known_prompts(
    model: torch.nn.Module, tok: Any, concept: ConceptRecord
) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """Held-out and foreign prompts after which the unedited model gives the name, with its probability."""
    found = []
    for prompts in (concept.held_out, concept.foreign):
        probabilities = name_probabilities(model, tok, prompts, concept.name)
        found.append([(prompt, p) for prompt, p in zip(prompts, probabilities, strict=True) if p >= _KNOWN])
    return found[0], found[1]


if __name__ == "__main__":
    main()
