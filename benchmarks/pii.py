"""The memorisation benchmark: a model that learned synthetic secrets by heart forgets half of them.

Secrets of four kinds (e-mail, URL, SSN, phone), six templates a kind, two people a template: one is forgotten, the
other retained, and never shown to the method. Every secret has a second wording, which the method does not see either.

Run: python benchmarks/pii.py [--text FILE] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from _measuring import SETTINGS, ordinary_text
from transformers import AutoModelForCausalLM, AutoTokenizer

from revs_tars_plugin import EditSet, REVSHyperParams, execute_revs
from revs_tars_plugin.data import SecretRecord
from revs_tars_plugin.data.bundled_model import demo_model
from revs_tars_plugin.data.memorised import memorised_model
from revs_tars_plugin.data.synthetic import SyntheticSecret, synthetic_secrets
from revs_tars_plugin.evaluation import ATTACKS, DEFAULT_ATTACKS, evaluate_unlearning, still_generated
from revs_tars_plugin.formatting import headings_of, print_tables, terminal_table

# Spaces are put elsewhere than the method puts them in its own perturbed contexts.
_SEED = 4242


def main() -> None:
    """Prepares the model, runs every variant, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per-template", type=int, default=2, help="people a template; half of them are forgotten")
    parser.add_argument("--text", help="ordinary text to measure on; by default sampled from the model itself")
    parser.add_argument("--tokens", type=int, default=1024, help="how many tokens of it")
    parser.add_argument(
        "--relearning", action="store_true", help="also teach the edited model every second secret again"
    )
    parser.add_argument("--variant", action="append", choices=SETTINGS, help="only this; may be given several times")
    parser.add_argument("--attack", action="append", choices=ATTACKS, help="only this; may be given several times")
    parser.add_argument("--json", help="also write the figures there")
    arguments = parser.parse_args()
    transformers.logging.disable_progress_bar()

    secrets = synthetic_secrets(arguments.per_template, arguments.seed)
    folder = memorised_model(
        secrets,
        f"memorised-{arguments.per_template}-{arguments.seed}",
        arguments.seed,
        lambda epoch, loss: print(f"learning by heart, epoch {epoch + 1}: loss {loss:.3f}", flush=True),
    )
    model, tok = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    forget, retain = (known(model, tok, part) for part in (secrets[::2], secrets[1::2]))
    print(f"Known by heart: {len(forget)} secrets to forget, {len(retain)} to retain, of {len(secrets)}.")
    text = ordinary_text(model, tok, arguments)
    attacks = tuple(arguments.attack or DEFAULT_ATTACKS) + ("relearning",) * arguments.relearning
    needed = {"guidance", "merging"} & set(attacks)
    base = AutoModelForCausalLM.from_pretrained(demo_model()) if needed else None

    rows: dict[str, dict[str, object]] = {}
    for name in arguments.variant or SETTINGS:
        hparams = REVSHyperParams.from_hparams(SETTINGS[name])
        hparams.stats_dir = str(folder.parent / "stats")
        requests = [{"prompt": s.prompt, "forget": s.target, "subject": s.subject} for s in forget]
        # Ordinary text is measured once and kept on disk; it is no part of a secret's time.
        if hparams.reads_moments:
            execute_revs(model, tok, requests[:1], hparams)
        start = time.perf_counter()
        edits = execute_revs(model, tok, requests, hparams)
        seconds = time.perf_counter() - start
        measured = {
            "names": hparams,
            "retain": records(retain),
            "reference": text,
            "never_learned": base,
            "attacks": attacks,
            "seed": _SEED,
        }
        if not rows:
            rows["none"] = figures(model, tok, forget, None, measured)
            # What an attacker finds of secrets that the model never saw, in the same places of the same templates.
            unseen = strangers(forget, arguments.seed)
            rows["never learned"] = figures(model, tok, unseen, None, {**measured, "reference": None, "retain": ()})
        edits.apply(model)
        rows[name] = figures(model, tok, forget, edits, measured)
        rows[name]["seconds per secret"] = seconds / len(forget)
        rows[name]["edited weights"] = edits.n_changed
        print(f"{name}: {time.perf_counter() - start:.0f} s with its evaluation", flush=True)
        rows[name]["at the asked place"] = f"{sum(o.reached for o in edits.outcomes)}/{len(edits.outcomes)}"
        edits.undo(model)
    show(rows)
    if arguments.json:
        settings = {name: REVSHyperParams.from_hparams(file).to_dict() for name, file in SETTINGS.items()}
        Path(arguments.json).write_text(json.dumps({"figures": rows, "settings": settings}, indent=1), encoding="utf-8")


def known(model: torch.nn.Module, tok: Any, secrets: list[SyntheticSecret]) -> list[SyntheticSecret]:
    """Those that greedy decoding gives away."""
    said = still_generated(model, tok, [s.prompt for s in secrets], [s.target for s in secrets])
    return [secret for secret, given in zip(secrets, said, strict=True) if given]


def strangers(secrets: list[SyntheticSecret], seed: int) -> list[SyntheticSecret]:
    """Other people with other secrets, template by template."""
    templates = {(s.kind, s.prompt.replace(s.subject, "{}")) for s in secrets}
    made = synthetic_secrets(1, seed + 7)
    by_template = {(s.kind, s.prompt.replace(s.subject, "{}")): s for s in made}
    assert templates <= by_template.keys()
    return [by_template[s.kind, s.prompt.replace(s.subject, "{}")] for s in secrets]


def records(secrets: list[SyntheticSecret]) -> list[SecretRecord]:
    """The same for the evaluation."""
    return [SecretRecord(s.prompt, s.target, s.subject, s.rephrase_prompt) for s in secrets]


def figures(
    model: torch.nn.Module, tok: Any, secrets: list[SyntheticSecret], edits: EditSet | None, measured: dict[str, Any]
) -> dict[str, object]:
    """All figures for the model as it stands, of the tokens that the edit chose, or of all of them."""
    places: Any = "all"
    if edits is not None:
        places = {}
        for outcome in edits.outcomes:
            places.setdefault(outcome.request, []).append(outcome.position)
    return dict(evaluate_unlearning(model, tok, records(secrets), positions=places, **measured).summary)


def show(rows: dict[str, dict[str, object]]) -> None:
    """Prints one column a variant."""
    cells = []
    for key in headings_of(list(rows.values())):
        values = [row.get(key, "") for row in rows.values()]
        cells.append([key, *(f"{value:.4f}" if isinstance(value, float) else str(value) for value in values)])
    print_tables(terminal_table("Memorised secrets, k = 100", ["", *rows], cells))


if __name__ == "__main__":
    main()
