"""The memorisation benchmark: models that learned synthetic secrets by heart forget half of them.

Each seed draws its own secrets: two kinds of numbers and two of words, six templates a kind, two people a template. One
of them is forgotten, the other retained and never shown to the method. Every secret has one or four other wordings,
which the method does not see either. "never learned" is the unedited model on people whom it never saw, behind the
same wordings: what an edit should come to, from whatever side.

Run: python benchmarks/pii.py [--seeds 0 1 2] [--forget 12] [--text FILE] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
import yaml
from _measuring import SETTINGS, ordinary_text
from transformers import AutoModelForCausalLM, AutoTokenizer

from revs_tars_plugin import EditSet, REVSHyperParams, execute_revs
from revs_tars_plugin.data.bundled_model import demo_model
from revs_tars_plugin.data.drawn_secrets import drawn_secrets, strangers_to
from revs_tars_plugin.data.memorised import memorised_model
from revs_tars_plugin.data.synthetic import SyntheticSecret
from revs_tars_plugin.evaluation import ATTACKS, OrdinaryText, evaluate_unlearning, still_generated
from revs_tars_plugin.formatting import headings_of, print_tables, terminal_table

# What the goals are about; the others are asked for by name.
_ATTACKS = ("exposure", "form", "membership", "inverse greedy", "quantization", "relearning")
# These need a model that never learned the secrets; what that says itself is "never learned".
_COMPARING = ("guidance", "merging")
# Spaces are put elsewhere than the method puts them in its own perturbed contexts.
_SEED = 4242


def main() -> None:
    """Goes through the seeds and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--per-template", type=int, default=2, help="people a template; half of them are forgotten")
    parser.add_argument("--forget", type=int, help="how many secrets to forget at most; the rest is left alone")
    parser.add_argument("--text", help="ordinary text to measure on; by default sampled from the model itself")
    parser.add_argument("--tokens", type=int, default=1024, help="how many tokens of it")
    parser.add_argument("--variant", action="append", choices=SETTINGS, help="only this; may be given several times")
    parser.add_argument("--attack", action="append", choices=ATTACKS, help="only this; may be given several times")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="other settings, for trials")
    parser.add_argument("--json", help="also write the figures there")
    arguments = parser.parse_args()
    transformers.logging.disable_progress_bar()

    of_seeds: dict[int, dict[str, dict[str, Any]]] = {}
    for seed in arguments.seeds:
        of_seeds[seed] = _Seed.prepared(seed, arguments).rows(arguments)
        show({seed: of_seeds[seed]}, f"Seed {seed}, k = 100")
        if arguments.json:
            settings = {name: REVSHyperParams.from_hparams(file).to_dict() for name, file in SETTINGS.items()}
            text = json.dumps({"figures": of_seeds, "settings": settings}, indent=1)
            Path(arguments.json).write_text(text, encoding="utf-8")
    if len(of_seeds) > 1:
        show(of_seeds, f"Memorised secrets, k = 100, {len(of_seeds)} seeds: mean (least to most)")


@dataclass(frozen=True)
class _Seed:
    """One seed's model, secrets and text.

    Attributes:
        number: The seed.
        model: A model that knows the secrets by heart.
        tok: Its tokenizer.
        stats: The folder of its second moments.
        forget: What it has to forget.
        retain: What it must keep.
        text: Ordinary text.
    """

    number: int
    model: torch.nn.Module
    tok: Any
    stats: Path
    forget: list[SyntheticSecret]
    retain: list[SyntheticSecret]
    text: OrdinaryText

    @classmethod
    def prepared(cls, number: int, arguments: argparse.Namespace) -> _Seed:
        """Makes a model learn the seed's secrets, or takes the one that did."""
        secrets = drawn_secrets(arguments.per_template, number)
        folder = memorised_model(
            secrets,
            f"drawn-{arguments.per_template}-{number}",
            number,
            lambda epoch, loss: print(f"learning by heart, epoch {epoch + 1}: loss {loss:.3f}", flush=True),
        )
        model, tok = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        forget, retain = (known(model, tok, part) for part in (secrets[::2], secrets[1::2]))
        if arguments.forget:
            forget = forget[:: max(1, len(forget) // arguments.forget)][: arguments.forget]
        print(f"Seed {number}: {len(forget)} secrets to forget, {len(retain)} to retain, known by heart.", flush=True)
        text = ordinary_text(model, tok, arguments, number)
        return cls(number, model, tok, folder.parent / "stats", forget, retain, text)

    def rows(self, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
        """Measures the model as it is, what it says of strangers, and every variant."""
        attacks = tuple(arguments.attack or _ATTACKS)
        rows = {
            "none": self.figures(self.forget, None, attacks),
            "never learned": self.figures(strangers_to(self.forget, self.number), None, attacks, cost=False),
        }
        for name in arguments.variant or SETTINGS:
            changes = {key: yaml.safe_load(value) for key, value in (item.split("=", 1) for item in arguments.set)}
            hparams = replace(REVSHyperParams.from_hparams(SETTINGS[name]), **changes, stats_dir=str(self.stats))
            requests = [secret.record().request() for secret in self.forget]
            # Ordinary text is measured once and kept on disk; it is no part of a secret's time.
            if hparams.reads_moments:
                execute_revs(self.model, self.tok, requests[:1], hparams)
            start = time.perf_counter()
            edits = execute_revs(self.model, self.tok, requests, hparams)
            seconds = time.perf_counter() - start
            edits.apply(self.model)
            rows[name] = self.figures(self.forget, edits, attacks)
            edits.undo(self.model)
            rows[name]["seconds per secret"] = seconds / len(self.forget)
            rows[name]["edited weights"] = edits.n_changed
            rows[name]["edited tokens"] = len(edits.outcomes)
            rows[name]["at the asked place"] = sum(o.reached for o in edits.outcomes) / len(edits.outcomes)
            print(f"{name}: {time.perf_counter() - start:.0f} s with its evaluation", flush=True)
        return rows

    def figures(
        self, secrets: list[SyntheticSecret], edits: EditSet | None, attacks: tuple[str, ...], cost: bool = True
    ) -> dict[str, Any]:
        """All figures for the model as it stands, of the tokens that the edit chose, or of all of them."""
        places: Any = "all"
        if edits is not None:
            places = {}
            for outcome in edits.outcomes:
                places.setdefault(outcome.request, []).append(outcome.position)
            # A secret that lost no token was at chance before.
            places = {index: places.get(index) or [0] for index in range(len(secrets))}
        comparing = set(_COMPARING).isdisjoint(attacks)
        shared: dict[str, Any] = {
            "names": REVSHyperParams.from_hparams("smollm2-135m"),
            "retain": [secret.record() for secret in self.retain] if cost else (),
            "reference": self.text if cost else None,
            "never_learned": None if comparing else AutoModelForCausalLM.from_pretrained(demo_model()),
            "attacks": attacks,
            "seed": _SEED,
        }
        records = [secret.record() for secret in secrets]
        return dict(evaluate_unlearning(self.model, self.tok, records, positions=places, **shared).summary)


def known(model: torch.nn.Module, tok: Any, secrets: list[SyntheticSecret]) -> list[SyntheticSecret]:
    """Those that greedy decoding gives away."""
    said = still_generated(model, tok, [s.prompt for s in secrets], [s.target for s in secrets])
    return [secret for secret, given in zip(secrets, said, strict=True) if given]


def show(of_seeds: dict[int, dict[str, dict[str, Any]]], title: str) -> None:
    """Prints one column a variant; of several seeds the mean, and the least and the most in brackets."""
    first = next(iter(of_seeds.values()))
    cells = []
    for key in headings_of(list(first.values())):
        columns = [[rows[name][key] for rows in of_seeds.values() if key in rows[name]] for name in first]
        cells.append([key, *map(_cell, columns)])
    print_tables(terminal_table(title, ["", *first], cells))


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean = f"{sum(values) / len(values):.4g}"
    return mean if min(values) == max(values) else f"{mean} ({min(values):.3g} to {max(values):.3g})"


if __name__ == "__main__":
    main()
