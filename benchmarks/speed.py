"""How long REVS takes and what it needs, against the floor and against the published code.

The floor is what no method of this kind can do without: one forward pass over the contexts of the targets, and one
product with the head for every edited layer. Both are timed in the same run as the edit.

Run: python benchmarks/speed.py [--secrets 1 20 100] [--parts secrets published passes shapes host] [--json FILE]
Set REVS_REFERENCE to a checkout of the published code to run that as well, on the same model and secrets.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from _measuring import SETTINGS, clock, next_words
from _tables import show
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from revs_tars_plugin import REVSHyperParams, execute_revs
from revs_tars_plugin.data import demo_model
from revs_tars_plugin.evaluation.peak_memory import peak_memory
from revs_tars_plugin.model.decoder import Decoder
from revs_tars_plugin.model.forward import batches_by_length, next_token_logits
from revs_tars_plugin.moments.ordinary_text import sample_from_model
from revs_tars_plugin.requests.reading import read_requests
from revs_tars_plugin.yardsticks.published_revs import PublishedRevs

PARTS = ["secrets", "published", "passes", "shapes", "host"]
# Steps of an edit by the functions that read for them; the innermost one counts.
STEPS = {
    "temporary_moments": "siblings",
    "key_geometry": "retained texts",
    "surprises": "choosing tokens",
    "chances": "choosing tokens",
    "outcomes_before": "ranks before",
    "demote": "solving",
    "levels": "chance anew",
    "_measured": "ranks after",
    "demote_all": "ranks after",
}
_PROMPT, _TARGET = 20, 6
# Neuron editing solves one token after another: its time per secret does not depend on their number.
_MOST_FOR_NEURONS = 20


def main() -> None:
    """Runs all parts and prints one table each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--secrets", type=int, nargs="+", default=[1, 20, 100])
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[32_000, 64_000, 128_000])
    parser.add_argument("--widths", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--published", type=int, default=2, help="secrets given to the published code")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS[:4], help="which parts; `host`: one batch_edit"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="also write the figures there")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

    folder = demo_model()
    model, tok = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    requests = made_requests(model, tok, max(*arguments.secrets, 20), arguments.seed)
    found: dict[str, list[dict[str, Any]]] = {}
    if "secrets" in arguments.parts:
        found["secrets"] = by_secrets(model, tok, requests, arguments.secrets)
        show("Seconds per secret, SmolLM2-135M", found["secrets"], decimals=3, width=118)
    if "published" in arguments.parts and os.environ.get("REVS_REFERENCE"):
        found["published"] = against_published(model, tok, requests, arguments.published)
        show("Against the published code, SmolLM2-135M", found["published"], decimals=3, width=118)
    if "passes" in arguments.parts:
        found["passes"] = by_step(model, tok, requests[:20])
        show("What 20 secrets read, SmolLM2-135M", found["passes"], decimals=3, width=118)
    if "shapes" in arguments.parts:
        found["shapes"] = by_shape(tok, requests[:20], arguments.vocabularies, arguments.widths)
        show("20 secrets, random models of 4 layers", found["shapes"], decimals=3, width=118)
    if "host" in arguments.parts:
        found["host"] = [through_host(requests[: max(arguments.secrets)])]
        show("One batch_edit of EasyEdit", found["host"], decimals=3, width=118)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=1), encoding="utf-8")


def made_requests(model: torch.nn.Module, tok: Any, count: int, seed: int) -> list[dict[str, str]]:
    """Texts that the model makes and what it says next itself, so that there is something to forget in each."""
    found: list[dict[str, str]] = []
    while len(found) < count:
        samples = list(sample_from_model(model, tok, 256, _PROMPT + 1, seed=seed + 1 + len(found)))
        with torch.no_grad():
            out = model.generate(  # type: ignore[operator]
                input_ids=torch.tensor(samples),
                attention_mask=torch.ones(len(samples), _PROMPT + 1, dtype=torch.long),
                max_new_tokens=_TARGET,
                do_sample=False,
                pad_token_id=tok.eos_token_id,
            )
        for row in out.tolist():
            prompt, target = (tok.decode(part) for part in (row[1 : _PROMPT + 1], row[_PROMPT + 1 :]))
            # Where a special token or a border within a word comes between, the text is not the model's own.
            if tok(prompt + target)["input_ids"] == row[1:] and target.strip() and target[0] == " ":
                found.append({"prompt": prompt, "target_new": target.strip(), "ground_truth": target.strip()})
    return found[:count]


def by_secrets(
    model: torch.nn.Module, tok: Any, requests: Sequence[dict[str, str]], counts: Sequence[int]
) -> list[dict[str, Any]]:
    """Time and memory as secrets grow in number."""
    rows = []
    for name, file in SETTINGS.items():
        hparams = REVSHyperParams.from_hparams(file)
        for count in sorted(counts):
            if name != "paper" or count <= _MOST_FOR_NEURONS:
                rows.append({"": name, "secrets": count, **timed(model, tok, requests[:count], hparams)})
    return rows


def timed(
    model: torch.nn.Module, tok: Any, requests: Sequence[dict[str, str]], hparams: REVSHyperParams
) -> dict[str, Any]:
    """Times one edit and its floor. The ordinary text's second moment is computed once a model, and not timed."""
    decoder = Decoder.of(model, hparams)
    execute_revs(model, tok, requests[:1], hparams)  # computes it, and, as every call does, the head's Gram factor
    with peak_memory() as peak:
        seconds, edits = clock(lambda: execute_revs(model, tok, requests, hparams))
    secrets = read_requests(requests, tok)
    contexts = [secrets[outcome.request].context(outcome.position) for outcome in edits.outcomes]
    # A short time is noisy: the better of two counts.
    floor = min(clock(lambda: the_floor(decoder, contexts))[0] for _ in range(1 if len(requests) > 100 else 2))
    return {
        "s / secret": seconds / len(requests),
        "floor, s / secret": floor / len(requests),
        "ratio": seconds / floor,
        "extra memory, MiB": peak.mib,
        "reached": f"{sum(outcome.reached for outcome in edits.outcomes)}/{len(edits.outcomes)}",
    }


def by_step(model: torch.nn.Module, tok: Any, requests: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """How many positions go through the first and the last layer for each step, and how long the model takes."""
    rows: list[dict[str, Any]] = []
    for name, file in SETTINGS.items():
        hparams = REVSHyperParams.from_hparams(file)
        execute_revs(model, tok, requests[:1], hparams)
        with watched(model) as steps:
            # What an edit solves within a pass counts as that pass's time.
            seconds, _ = clock(lambda hparams=hparams: execute_revs(model, tok, requests, hparams))
        for step, (lower, upper, taken) in steps.items():
            rows.append(
                {
                    "": name,
                    "step": step,
                    "positions / secret": lower / len(requests),
                    "in the last layer": upper / len(requests),
                    "s / secret": taken / len(requests),
                    "share of the time": taken / seconds,
                }
            )
    return rows


@contextmanager
def watched(model: Any) -> Iterator[dict[str, list[float]]]:
    """Gives by step the positions in the first and in the last layer, and the seconds in all of them."""
    found: dict[str, list[float]] = {}
    start = [0.0]
    layers = model.model.layers

    def step() -> list[float]:
        names = [frame.name for frame in traceback.extract_stack() if "revs_tars_plugin" in frame.filename]
        known = next((STEPS[name] for name in reversed(names) if name in STEPS), "looking what the model is")
        return found.setdefault(known, [0.0, 0.0, 0.0])

    def count(place: int) -> Any:
        def hook(_module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            step()[place] += hidden.shape[0] * hidden.shape[1]

        return hook

    def begin(*_: Any) -> None:
        start[0] = time.perf_counter()

    def end(*_: Any) -> None:
        step()[2] += time.perf_counter() - start[0]

    handles = [
        layers[0].mlp.register_forward_pre_hook(count(0), with_kwargs=True),
        layers[-1].mlp.register_forward_pre_hook(count(1), with_kwargs=True),
        model.model.register_forward_pre_hook(begin),
        model.model.register_forward_hook(end),
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def the_floor(decoder: Decoder, contexts: Sequence[Sequence[int]]) -> None:
    """One forward pass, and one product with the head for every edited layer."""
    with torch.no_grad():
        for batch in batches_by_length(contexts):
            next_token_logits(decoder.model, [contexts[index] for index in batch])
            hidden = torch.randn(len(batch), decoder.lens.width)
            for _ in decoder.layers:
                decoder.lens.logits(hidden)


def against_published(
    model: torch.nn.Module, tok: Any, requests: Sequence[dict[str, str]], count: int
) -> list[dict[str, Any]]:
    """Our two variants on 20 secrets at once, and the published code on the first few of them."""
    rows: list[dict[str, Any]] = []
    for name, file in SETTINGS.items():
        found = timed(model, tok, requests[:20], REVSHyperParams.from_hparams(file))
        rows.append({"": name, "secrets": 20, "s / secret": found["s / secret"], "reached": found["reached"]})
    hparams = REVSHyperParams.from_hparams(SETTINGS["paper"])
    published = PublishedRevs(Path(os.environ["REVS_REFERENCE"]), tok, requests[:count], hparams)
    edited, inverse = deepcopy(model), published.inverse(model)
    start = time.perf_counter()
    published(edited, inverse)
    seconds = time.perf_counter() - start
    there = "{}/{}".format(*published.reached(edited))
    rows.append({"": "published code", "secrets": count, "s / secret": seconds / count, "reached": there})
    for row in rows:
        row["times faster"] = rows[-1]["s / secret"] / row["s / secret"]
    return rows


def by_shape(
    tok: Any, requests: Sequence[dict[str, str]], vocabularies: Sequence[int], widths: Sequence[int]
) -> list[dict[str, Any]]:
    """The same as vocabulary and width grow, on random weights."""
    middle = sorted(widths)[len(widths) // 2]
    shapes = [(size, middle) for size in sorted(vocabularies)]
    shapes += [(min(vocabularies), width) for width in sorted(widths) if width != middle]
    rows = []
    for size, width in shapes:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=max(size, len(tok)),
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=4,
            num_attention_heads=width // 64,
            num_key_value_heads=width // 64,
            initializer_range=0.05,
        )
        model = LlamaForCausalLM(config).eval()
        own = [
            {**request, "target_new": word, "ground_truth": word}
            for request, word in zip(requests, next_words(model, tok, requests), strict=True)
        ]
        hparams = REVSHyperParams.from_hparams(SETTINGS["paper"])
        hparams.max_tokens = 1
        rows.append({"V": config.vocab_size, "d": width, **timed(model, tok, own, hparams)})
    return rows


def through_host(requests: Sequence[dict[str, str]], batch_size: int = 50) -> dict[str, Any]:
    """All secrets in one `batch_edit`, with the host's own evaluation."""
    from revs_tars_plugin import register

    host = register()
    from easyeditor import BaseEditor, REVSHyperParams

    hparams = REVSHyperParams.from_hparams(SETTINGS["covariance"])
    hparams.batch_size = batch_size
    editor = BaseEditor.from_hparams(hparams)
    with peak_memory() as peak:
        seconds, (_, _, original) = clock(
            lambda: editor.batch_edit(
                prompts=[request["prompt"] for request in requests],
                target_new=[request["target_new"] for request in requests],
                sequential_edit=True,
                keep_original_weight=False,
                verbose=False,
            )
        )
    return {
        "host": host.generation,
        "secrets": len(requests),
        "batch_size": batch_size,
        "s / secret": seconds / len(requests),
        "extra memory, MiB": peak.mib,
        "last batch reached": f"{sum(o.reached for o in original.edits.outcomes)}/{len(original.edits.outcomes)}",
    }


if __name__ == "__main__":
    main()
