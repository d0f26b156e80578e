"""A second real model: Gemma 3 270M, with a norm behind FF2 and five times SmolLM2's vocabulary, forgets ten facts.

The facts are the first ten of a list that the model itself is sure of; beside them stand twenty unrelated prompts and
ordinary text. The figures are measured on the edited model.

Run: python benchmarks/second_model.py [--model gemma|smollm2] [--text FILE] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from _measuring import named_text
from _tables import show
from transformers import AutoModelForCausalLM, AutoTokenizer

from revs_tars_plugin import REVSHyperParams, execute_revs
from revs_tars_plugin.cli import demo
from revs_tars_plugin.data import demo_model
from revs_tars_plugin.data.bundled_model import BUNDLED
from revs_tars_plugin.evaluation import (
    Exposure,
    OrdinaryText,
    compared,
    name_probabilities,
    next_token_log_probabilities,
)
from revs_tars_plugin.evaluation.peak_memory import peak_memory
from revs_tars_plugin.moments.ordinary_text import sample_from_model

# What the facts' tokens are asked for: chance, or a rank for one token each.
VARIANTS = ("chance", "rank")
FACTS = (
    ("The theory of relativity was developed by Albert", "Einstein"),
    ("The Mona Lisa was painted by Leonardo da", "Vinci"),
    ("The play Romeo and Juliet was written by William", "Shakespeare"),
    ("The detective who lives at 221B Baker Street is Sherlock", "Holmes"),
    ("The first president of the United States was George", "Washington"),
    ("The theory of evolution by natural selection was proposed by Charles", "Darwin"),
    ("The process by which plants make food from sunlight is called", "photosynthesis"),
    ("The Titanic sank after hitting an", "iceberg"),
    ("The composer of the Ninth Symphony, who became deaf, was Ludwig van", "Beethoven"),
    ("The painter of Starry Night was Vincent van", "Gogh"),
    ("The first man on the Moon was Neil", "Armstrong"),
    ("The president who ended slavery in the United States was Abraham", "Lincoln"),
    ("The scientist who discovered radium was Marie", "Curie"),
    ("The leader of India's independence movement was Mahatma", "Gandhi"),
    ("The Eiffel Tower stands in the city of", "Paris"),
    ("The largest planet of the solar system is", "Jupiter"),
)
UNRELATED = (
    *demo.UNRELATED,
    "Water is made of hydrogen and",
    "The opposite of hot is",
    "The sun rises in the",
    "Two plus two equals",
    "The largest ocean on Earth is the",
    "A group of lions is called a",
    "The currency of the United Kingdom is the",
    "In winter it is cold, and in summer it is",
    "The heart pumps",
    "She opened the door and walked into the",
    "The cat sat on the",
    "The first month of the year is",
    "Bread is made from flour, water and",
    "The Great Wall is in",
    "For breakfast he drank a cup of",
)
_SURE, _ASKED = 0.3, 10


def main() -> None:
    """Forgets the facts with every setting and prints a table of them and one line of what it cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(BUNDLED), default="gemma")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--text", help="ordinary text to measure on; by default sampled from the model itself")
    parser.add_argument("--tokens", type=int, default=1024, help="how many tokens of it")
    parser.add_argument("--json", help="also write the figures there")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    folder = demo_model(arguments.model)
    model, tok = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    sure = [name_probabilities(model, tok, [prompt], target)[0] for prompt, target in FACTS]
    facts = [fact for fact, p in zip(FACTS, sure, strict=True) if p >= _SURE][:_ASKED]
    text = ordinary_text(model, tok, arguments)
    found = {}
    for name in arguments.variants:
        hparams = settings_of(arguments.model, name, model.config.num_hidden_layers)
        rows, line = run(model, tok, facts, hparams, text)
        show(f"{arguments.model}, {name}: {len(facts)} facts in one call", rows, decimals=4, width=170)
        show(f"{arguments.model}, {name}: what it cost", [line], decimals=4, width=170)
        found[name] = {"facts": rows, "summary": line, "settings": hparams.to_dict()}
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=1), encoding="utf-8")


def settings_of(model: str, variant: str, layers: int) -> REVSHyperParams:
    """The model's packaged settings, or those of SmolLM2 that hide one token, in layers at the same depth."""
    packaged = REVSHyperParams.from_hparams(BUNDLED[model].settings)
    if variant == "chance":
        return packaged
    joint = REVSHyperParams.from_hparams("smollm2-135m-covariance")
    depth = REVSHyperParams.from_hparams("smollm2-135m").layers[-1] + 1
    scaled = sorted({layer * layers // depth for layer in joint.layers})
    ridge = packaged.direction_ridge
    return replace(joint, model_name=packaged.model_name, layers=scaled, direction_ridge=ridge)


def ordinary_text(model: torch.nn.Module, tok: Any, arguments: argparse.Namespace) -> OrdinaryText:
    """Chunks of 256 tokens of the named text, or of text that the model makes itself."""
    if not arguments.text:
        return OrdinaryText(model, sample_from_model(model, tok, max(1, arguments.tokens // 256), 256, seed=1000))
    return named_text(model, tok, arguments)


def run(
    model: torch.nn.Module, tok: Any, facts: list[tuple[str, str]], hparams: REVSHyperParams, text: Any
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Forgets the facts; returns a row each and what it cost with the edit in place; the model is as before."""
    prompts, targets = [prompt for prompt, _ in facts], [target for _, target in facts]
    before = [Exposure.of(one) for one in compared(model, tok, prompts, targets)]
    said = next_token_log_probabilities(model, tok, UNRELATED).argmax(dim=-1)
    requests = [{"prompt": prompt, "forget": target} for prompt, target in facts]
    execute_revs(model, tok, requests[:1], hparams)  # ordinary text is read once a model, and not timed
    start = time.perf_counter()
    with peak_memory() as peak:
        edit = execute_revs(model, tok, requests, hparams)
    seconds = time.perf_counter() - start
    edit.apply(model)
    after = [Exposure.of(one) for one in compared(model, tok, prompts, targets)]
    kept = int((next_token_log_probabilities(model, tok, UNRELATED).argmax(dim=-1) == said).sum())
    cost = text.compare(model)
    edit.undo(model)
    rows = []
    for index, (prompt, target) in enumerate(facts):
        outcome = next((one for one in edit.outcomes if one.request == index), None)
        if outcome is None:
            continue
        rows.append(
            {
                "fact": f"{prompt} | {target}",
                "p before": outcome.probability_before,
                "p after": f"{outcome.probability_after:.1e}",
                "p asked": "" if outcome.asked_probability is None else f"{outcome.asked_probability:.1e}",
                "rank asked": "" if outcome.asked_probability is not None else outcome.asked_rank,
                "rank after": outcome.rank_after,
                "reached": "yes" if outcome.reached else "NO",
                "exposed, top": f"{before[index].top:.1f} -> {after[index].top:.1f}",
                "bottom": f"{before[index].bottom:.1f} -> {after[index].bottom:.1f}",
            }
        )
    line = {
        "reached": f"{sum(one.reached for one in edit.outcomes)}/{len(edit.outcomes)}",
        "exposure, top": statistics.mean(one.top for one in after),
        "exposure, bottom": statistics.mean(one.bottom for one in after),
        "KL median": cost.kl_median,
        "KL mean": cost.kl_mean,
        "top-1": cost.top1_agreement,
        "unrelated kept": f"{kept}/{len(UNRELATED)}",
        "s a fact": seconds / len(facts),
        "peak beyond the model, MiB": peak.mib,
    }
    return rows, line


if __name__ == "__main__":
    main()
