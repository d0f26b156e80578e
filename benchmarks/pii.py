"""The memorisation benchmark: models that learned synthetic secrets by heart forget half of them.

Each seed draws its own secrets: two kinds of numbers and two of words, six templates a kind, two people a template. One
of them is forgotten, the other retained and, unless --show-retained says so, not shown to the method. Every secret has
one or four other wordings, which the method does not see either. "never learned" is the unedited model on people whom
it never saw, behind the same wordings: what an edit should come to, from whatever side. With --secrets FILE the secrets
are those of a file as `revs-tars edit` takes it, with --lume FOLDER a question about each of 50 of LUME's made-up
people, half of them to forget; "never learned" then are made-up texts of the same form.

Run: python benchmarks/pii.py [--seeds 0 1 2] [--forget 12] [--text FILE] [--json FILE]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
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
from revs_tars_plugin.data import SecretRecord, read_secrets
from revs_tars_plugin.data.bundled_model import demo_model
from revs_tars_plugin.data.drawn_secrets import drawn_secrets, strangers_to
from revs_tars_plugin.data.memorised import memorised_model
from revs_tars_plugin.evaluation import ATTACKS, OrdinaryText, evaluate_unlearning, guided_shares, still_generated
from revs_tars_plugin.evaluation.metrics import completed
from revs_tars_plugin.formatting import headings_of, print_tables, terminal_table
from revs_tars_plugin.requests.made_up import MadeUp
from revs_tars_plugin.requests.reading import join
from revs_tars_plugin.yardsticks import read_lume

# What the goals are about; the others are asked for by name.
_ATTACKS = ("exposure", "form", "membership", "enumeration", "inverse greedy", "quantization", "relearning")
# They need a model that never learned the secrets: guidance is measured in any case, halfway to the base not at all.
_COMPARING = ("guidance", "merging")
# Spaces are put elsewhere than the method puts them in its own perturbed contexts.
_SEED = 4242


def main() -> None:
    """Goes through the seeds and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--secrets", type=Path, help="a file of secrets, with those to retain, in place of drawn ones")
    parser.add_argument("--lume", type=Path, help="a folder with LUME's files, in place of drawn ones")
    parser.add_argument("--per-template", type=int, default=2, help="people a template; half of them are forgotten")
    parser.add_argument("--forget", type=int, help="how many secrets to forget at most; the rest is left alone")
    parser.add_argument("--text", help="ordinary text to measure on; by default sampled from the demo model")
    parser.add_argument("--tokens", type=int, default=1024, help="how many tokens of it")
    parser.add_argument("--variant", action="append", choices=SETTINGS, help="only this; may be given several times")
    attacks = [name for name in ATTACKS if name not in _COMPARING]
    parser.add_argument(
        "--attack", action="append", choices=attacks, help="only this, and guidance; may be given several times"
    )
    parser.add_argument("--show-retained", action="store_true", help="show the method the secrets to retain as well")
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
        base: What it was before it learned them.
        tok: Its tokenizer.
        stats: The folder of its second moments.
        forget: What it has to forget.
        strangers: Others of the same form, which it never learned.
        retain: What it must keep.
        text: Ordinary text.
    """

    number: int
    model: torch.nn.Module
    base: torch.nn.Module
    tok: Any
    stats: Path
    forget: list[SecretRecord]
    strangers: list[SecretRecord]
    retain: list[SecretRecord]
    text: OrdinaryText

    @classmethod
    def prepared(cls, number: int, arguments: argparse.Namespace) -> _Seed:
        """Makes a model learn the seed's secrets, or takes the one that did."""
        if arguments.secrets or arguments.lume:
            secrets = read_secrets(arguments.secrets) if arguments.secrets else lume_questions(arguments.lume)
            strangers = [made_up_like(secret, number) for secret in secrets]
            content = hashlib.sha256(repr(secrets).encode()).hexdigest()[:8]
            name = f"{(arguments.secrets or arguments.lume).stem}-{content}-{number}"
        else:
            drawn = drawn_secrets(arguments.per_template, number)
            # Of each template the first ones are forgotten.
            secrets = [replace(each.record(), retain=bool(index % 2)) for index, each in enumerate(drawn)]
            strangers = [secret.record() for secret in strangers_to(drawn, number)]
            name = f"drawn-{arguments.per_template}-{number}"
        folder = memorised_model(
            secrets,
            name,
            number,
            lambda epoch, loss: print(f"learning by heart, epoch {epoch + 1}: loss {loss:.3f}", flush=True),
        )
        model, tok = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        kept = known(model, tok, secrets)
        retain = [secrets[index] for index in kept if secrets[index].retain]
        chosen = [index for index in kept if not secrets[index].retain]
        if arguments.forget:
            chosen = chosen[:: max(1, len(chosen) // arguments.forget)][: arguments.forget]
        forget, strangers = ([every[index] for index in chosen] for every in (secrets, strangers))
        print(f"Seed {number}: {len(forget)} secrets to forget, {len(retain)} to retain, known by heart.", flush=True)
        text = ordinary_text(model, tok, arguments, number)
        base = AutoModelForCausalLM.from_pretrained(demo_model())
        return cls(number, model, base, tok, folder.parent / "stats", forget, strangers, retain, text)

    def rows(self, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
        """Measures the model as it is, what it says of strangers, and every variant."""
        attacks = tuple(arguments.attack or _ATTACKS)
        rows = {
            "none": self.figures(self.forget, None, attacks),
            "never learned": self.figures(self.strangers, None, attacks, cost=False),
        }
        for name in arguments.variant or SETTINGS:
            changes = {key: yaml.safe_load(value) for key, value in (item.split("=", 1) for item in arguments.set)}
            hparams = replace(REVSHyperParams.from_hparams(SETTINGS[name]), **changes, stats_dir=str(self.stats))
            requests: list[dict[str, Any]] = [secret.request() for secret in self.forget]
            if arguments.show_retained:
                requests[0]["retain_texts"] = [join(secret.prompt, secret.target) for secret in self.retain]
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
            rows[name]["no likelier than asked"] = sum(o.reached for o in edits.outcomes) / max(len(edits.outcomes), 1)
            print(f"{name}: {time.perf_counter() - start:.0f} s with its evaluation", flush=True)
        return rows

    def figures(
        self, records: list[SecretRecord], edits: EditSet | None, attacks: tuple[str, ...], cost: bool = True
    ) -> dict[str, Any]:
        """All figures for the model as it stands, of the tokens that the edit chose, or of all of them."""
        places: Any = "all"
        if edits is not None:
            places = {}
            for outcome in edits.outcomes:
                places.setdefault(outcome.request, []).append(outcome.position)
            # A secret that lost no token was at chance before.
            places = {index: places.get(index) or [0] for index in range(len(records))}
        shared: dict[str, Any] = {
            "names": REVSHyperParams.from_hparams("smollm2-135m"),
            "retain": self.retain if cost else (),
            "reference": self.text if cost else None,
            "attacks": attacks,
            "seed": _SEED,
        }
        summary = evaluate_unlearning(self.model, self.tok, records, positions=places, **shared).summary
        # What that other model says itself stands in "never learned" already, of secrets that nobody learned.
        asked = [secret.prompt for secret in records], [secret.target for secret in records]
        guided = guided_shares(self.model, self.base, self.tok, *asked)
        return completed({**summary, "guidance": sum(share == 1 for share in guided) / len(guided)})


def known(model: torch.nn.Module, tok: Any, secrets: list[SecretRecord]) -> list[int]:
    """The places of those that greedy decoding gives away."""
    said = still_generated(model, tok, [s.prompt for s in secrets], [s.target for s in secrets])
    return [index for index, given in enumerate(said) if given]


def lume_questions(folder: Path) -> list[SecretRecord]:
    """A question with its answer about each of 25 people to forget and 25 to retain: number, phone, e-mail by turns."""
    split = read_lume(folder, people=25, unseen=0)
    secrets = []
    for records, retain in ((split.forget, False), (split.retain, True)):
        people = list(dict.fromkeys(record.person for record in records))
        for index, person in enumerate(people):
            asked = next(r for r in records if r.identifier == f"{person}qa{1 + index % 3}")
            name = re.fullmatch(r"What is (?:the .* of )?(.+?)(?:'s .*)?\?", asked.prompt)
            subject = name.group(1) if name is not None else None
            secrets.append(SecretRecord(f"{asked.prompt} Answer:", asked.answer, subject, retain=retain))
    return secrets


def made_up_like(secret: SecretRecord, seed: int) -> SecretRecord:
    """Somebody else's secret of the same form behind the same prompt."""
    made_up = MadeUp(f"stranger {seed} {secret.prompt}")
    if secret.subject is None:
        return replace(secret, target=made_up.like(secret.target))
    name = made_up.name(len(secret.subject.split()))
    wordings = tuple(wording.replace(secret.subject, name) for wording in secret.rewordings)
    prompt, target = secret.prompt.replace(secret.subject, name), made_up.like(secret.target)
    return replace(secret, prompt=prompt, target=target, subject=name, rephrase_prompt=wordings or None)


def show(of_seeds: dict[int, dict[str, dict[str, Any]]], title: str) -> None:
    """Prints one column a variant; of several seeds the mean, and the least and the most in brackets."""
    first = next(iter(of_seeds.values()))
    cells = []
    for key in headings_of(list(first.values())):
        columns = [[rows[name][key] for rows in of_seeds.values() if key in rows[name]] for name in first]
        cells.append([key, *map(_cell, columns)])
    print_tables(terminal_table(title, ["", *first], cells), width=150)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean = f"{sum(values) / len(values):.3g}"
    return mean if min(values) == max(values) else f"{mean} ({min(values):.2g}-{max(values):.2g})"


if __name__ == "__main__":
    main()
