"""The memorisation benchmark: a model that learned synthetic secrets by heart forgets half of them.

Secrets of four kinds (e-mail, URL, SSN, phone), six templates a kind, two people a template: one is forgotten, the
other retained, and never shown to the method. Every secret has a second wording, which the method does not see either.

Run: python benchmarks/pii.py [--text FILE] [--json FILE]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer

from revs_tars_plugin import EditSet, REVSHyperParams, execute_revs
from revs_tars_plugin.data import DEMO_MODEL_NAME, demo_model
from revs_tars_plugin.data.memorise import memorise
from revs_tars_plugin.data.secrets import SyntheticSecret, synthetic_secrets
from revs_tars_plugin.decoder import Decoder
from revs_tars_plugin.evaluation import (
    OrdinaryText,
    Probe,
    attack_score,
    delta_scores,
    efficacy,
    logit_lens_scores,
    probes_of,
    still_generated,
    unlearning_score,
)
from revs_tars_plugin.evaluation.scores import harmonic
from revs_tars_plugin.requests import join, perturbed
from revs_tars_plugin.statistics import sample_from_model

SETTINGS = {"neurons": "smollm2-135m", "covariance": "smollm2-135m-covariance"}


def main() -> None:
    """Prepares the model, runs every variant, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per-template", type=int, default=2, help="people a template; half of them are forgotten")
    parser.add_argument("--text", help="ordinary text to measure on; by default sampled from the model itself")
    parser.add_argument("--tokens", type=int, default=1024, help="how many tokens of it")
    parser.add_argument("--json", help="also write the figures there")
    arguments = parser.parse_args()
    transformers.logging.disable_progress_bar()

    secrets = synthetic_secrets(arguments.per_template, arguments.seed)
    folder = memorised_model(secrets, arguments.per_template, arguments.seed)
    model, tok = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    forget, retain = (known(model, tok, part) for part in (secrets[::2], secrets[1::2]))
    print(f"Known by heart: {len(forget)} secrets to forget, {len(retain)} to retain, of {len(secrets)}.")
    text = ordinary_text(model, tok, arguments)

    rows = {}
    for name, settings in SETTINGS.items():
        hparams = REVSHyperParams.from_hparams(settings)
        hparams.stats_dir = str(folder.parent / "stats")
        requests = [{"prompt": s.prompt, "target_new": s.target, "subject": s.subject} for s in forget]
        # Ordinary text is measured once and kept on disk; it is no part of a secret's time.
        if name == "covariance":
            execute_revs(model, tok, requests[:1], hparams)
        start = time.perf_counter()
        edits = execute_revs(model, tok, requests, hparams)
        seconds = time.perf_counter() - start
        if "none" not in rows:
            rows["none"] = figures(model, tok, forget, retain, edits, text)
        # What an attacker finds of secrets that the model never saw, in the same places of the same templates.
        rows[f"never learned ({name})"] = attacks(model, tok, strangers(forget, arguments.seed), edits)
        edits.apply(model)
        rows[name] = figures(model, tok, forget, retain, edits, text)
        rows[name]["seconds per secret"] = seconds / len(forget)
        rows[name]["edited weights"] = edits.n_changed
        rows[name]["at the asked rank"] = f"{sum(o.reached for o in edits.outcomes)}/{len(edits.outcomes)}"
        edits.undo(model)
    show(rows)
    if arguments.json:
        settings = {name: REVSHyperParams.from_hparams(file).to_dict() for name, file in SETTINGS.items()}
        Path(arguments.json).write_text(json.dumps({"figures": rows, "settings": settings}, indent=1), encoding="utf-8")


def memorised_model(secrets: list[SyntheticSecret], per_template: int, seed: int) -> Path:
    """Fine-tunes the demo model on both wordings of every secret, once."""
    folder = demo_model().parent / f"memorised-{per_template}-{seed}" / DEMO_MODEL_NAME
    if (folder / "config.json").is_file():
        return folder
    model, tok = (cls.from_pretrained(demo_model()) for cls in (AutoModelForCausalLM, AutoTokenizer))
    texts = [join(prompt, s.target) + "." for s in secrets for prompt in (s.prompt, s.rephrase_prompt)]
    memorise(
        model,
        tok,
        texts,
        learning_rate=7e-5,
        seed=seed,
        progress=lambda epoch, loss: print(f"learning by heart, epoch {epoch + 1}: loss {loss:.3f}", flush=True),
    )
    tok.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def ordinary_text(model: torch.nn.Module, tok: object, arguments: argparse.Namespace) -> OrdinaryText:
    """Chunks of 256 tokens of the named text, or of text that the model makes from a seed of its own."""
    if arguments.text:
        raw = Path(arguments.text).read_text(encoding="utf-8")[: 16 * arguments.tokens]
        ids = tok(raw)["input_ids"][: arguments.tokens]  # type: ignore[operator]
        return OrdinaryText(model, [ids[start : start + 256] for start in range(0, len(ids), 256)])
    count = max(1, arguments.tokens // 256)
    return OrdinaryText(model, list(sample_from_model(model, tok, count, 256, seed=arguments.seed + 1000)))


def known(
    model: torch.nn.Module, tok: Any, secrets: list[SyntheticSecret], other_wording: bool = False
) -> list[SyntheticSecret]:
    """Those that greedy decoding gives away."""
    prompts = [secret.rephrase_prompt if other_wording else secret.prompt for secret in secrets]
    said = still_generated(model, tok, prompts, [secret.target for secret in secrets])
    return [secret for secret, given in zip(secrets, said, strict=True) if given]


def strangers(secrets: list[SyntheticSecret], seed: int) -> list[SyntheticSecret]:
    """Other people with other secrets, template by template."""
    templates = {(s.kind, s.prompt.replace(s.subject, "{}")) for s in secrets}
    made = synthetic_secrets(1, seed + 7)
    by_template = {(s.kind, s.prompt.replace(s.subject, "{}")): s for s in made}
    assert templates <= by_template.keys()
    return [by_template[s.kind, s.prompt.replace(s.subject, "{}")] for s in secrets]


def attacks(model: torch.nn.Module, tok: Any, secrets: list[SyntheticSecret], edits: EditSet) -> dict[str, object]:
    """How well the tokens that the edit chose are hidden: in the output, and from attacks on inner layers."""
    positions: dict[int, list[int]] = {}
    for outcome in edits.outcomes:
        positions.setdefault(outcome.request, []).append(outcome.position)
    targets = [secret.target for secret in secrets]

    def probes(prompts: list[str]) -> list[Probe]:
        return probes_of(tok, prompts, targets, positions)

    own, other = probes([s.prompt for s in secrets]), probes([s.rephrase_prompt for s in secrets])
    decoder = Decoder(model, REVSHyperParams.from_hparams("smollm2-135m"))
    lens = logit_lens_scores(decoder, own)
    perturbation = logit_lens_scores(decoder, probes([perturbed(s.prompt, 4242) for s in secrets]))
    delta = float(delta_scores(decoder, own).min())
    return {
        "efficacy@100": efficacy(model, own),
        "generality@100": efficacy(model, other),
        "logit lens": attack_score(lens),
        "  in layer": int(lens.mean(dim=1).argmin()),
        "perturbation": attack_score(perturbation),
        "  in layer ": int(perturbation.mean(dim=1).argmin()),
        "delta": delta,
        "Resistance Score": harmonic([attack_score(lens), attack_score(perturbation), delta]),
    }


def figures(
    model: torch.nn.Module,
    tok: Any,
    forget: list[SyntheticSecret],
    retain: list[SyntheticSecret],
    edits: EditSet,
    text: OrdinaryText,
) -> dict[str, object]:
    """All figures for the model as it stands."""
    found = attacks(model, tok, forget, edits)
    specific = len(known(model, tok, retain)) / len(retain)
    score = unlearning_score(float(found["efficacy@100"]), specific, float(found["generality@100"]))  # type: ignore[arg-type]
    return {
        **found,
        "specificity": specific,
        "Unlearning Score": score,
        "still generated": f"{len(known(model, tok, forget))}/{len(forget)}",
        "behind the other wording": f"{len(known(model, tok, forget, True))}/{len(forget)}",
        **dataclasses.asdict(text.compare(model)),
    }


def show(rows: dict[str, dict[str, object]]) -> None:
    """Prints one column a variant."""
    table = Table(title="Memorised secrets, k = 100")
    table.add_column("")
    for name in rows:
        table.add_column(name, justify="right")
    for key in dict.fromkeys(key for row in rows.values() for key in row):
        cells = [row.get(key, "") for row in rows.values()]
        table.add_row(key, *(f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in cells))
    Console(width=118).print(table)


if __name__ == "__main__":
    main()
