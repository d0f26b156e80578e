"""How much memory an edit takes beyond the model's own, on shortened models of a 7B model's shapes.

Width 4,096, 11,008 neurons a layer, bfloat16, random weights, SmolLM2's tokenizer (vocabulary 49,152): 2 and 4 layers
are measured, each in a process of its own, and 32 are extrapolated from the two. The share is of the 32 layers' model.
What the allocator keeps differs by tens of MiB from run to run, which --layers 2 12 multiplies less.

Run: python benchmarks/memory.py [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from _measuring import clock, next_words
from _tables import show
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from revs_tars_plugin import REVSHyperParams, TARSHyperParams, execute_revs, execute_tars
from revs_tars_plugin.data import demo_model
from revs_tars_plugin.evaluation.peak_memory import peak_memory
from revs_tars_plugin.model.decoder import Decoder
from revs_tars_plugin.moments.second_moments import ordinary_moments

_FULL = 32
PROMPTS = (
    "The e-mail address of the man at the door is",
    "You can reach the office of the mayor under the number",
    "The password that she wrote on the wall was",
    "For the loan, the baker stated the number",
)


def main() -> None:
    """Runs every part with few layers, each in its own process, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--layers", nargs=2, type=int, default=(2, 4), metavar=("FEW", "MORE"), help="of the models")
    parser.add_argument("--measure", nargs=2, metavar=("PART", "LAYERS"), help=argparse.SUPPRESS)
    parser.add_argument("--json", help="also write the figures there")
    arguments = parser.parse_args()
    if arguments.measure:
        part, layers = arguments.measure
        print(json.dumps(measured(part, int(layers))))
        return
    full = size_of(_FULL)
    rows = []
    for part in arguments.parts:
        few, more = (
            json.loads(
                subprocess.run(
                    [sys.executable, __file__, "--measure", part, str(layers)],
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout.splitlines()[-1]
            )
            for layers in arguments.layers
        )
        each = max(0.0, (more["mib"] - few["mib"]) / (arguments.layers[1] - arguments.layers[0]))
        extrapolated = few["mib"] + each * (_FULL - arguments.layers[0])
        rows.append(
            {
                "": part,
                f"{arguments.layers[0]} layers, MiB": few["mib"],
                f"{arguments.layers[1]} layers, MiB": more["mib"],
                f"{_FULL} layers, MiB": extrapolated,
                "of the model": extrapolated / full,
                "reached": more["reached"],
                "s": more["seconds"],
            }
        )
    show(f"Memory beyond the model's {full:,.0f} MiB", rows, decimals=3, width=118)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")


def config(layers: int) -> LlamaConfig:
    """A 7B model's shapes with fewer layers."""
    return LlamaConfig(vocab_size=49152, num_hidden_layers=layers, initializer_range=0.02)


def size_of(layers: int) -> float:
    """A model's own memory in MiB, in bfloat16."""
    with torch.device("meta"):
        model = LlamaForCausalLM(config(layers))
    return sum(parameter.numel() for parameter in model.parameters()) * 2 / 2**20


def measured(part: str, layers: int) -> dict[str, Any]:
    """One part on one model."""
    transformers.logging.set_verbosity_error()
    tok = AutoTokenizer.from_pretrained(demo_model())
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    model = LlamaForCausalLM(config(layers)).eval()
    torch.set_default_dtype(torch.float32)
    words = next_words(model, tok, [{"prompt": prompt} for prompt in PROMPTS])
    requests = [{"prompt": prompt, "forget": word} for prompt, word in zip(PROMPTS, words, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text("\n".join(f"{prompt} {number}." for number in range(10) for prompt in PROMPTS))
        common = {"mom2_dataset": str(text), "mom2_n_samples": 40, "stats_dir": folder}
        run = PARTS[part]
        prepared = run(model, tok, requests, common)
        with peak_memory() as peak:
            seconds, outcomes = clock(prepared)
    reached = f"{sum(outcome.reached for outcome in outcomes)}/{len(outcomes)}"
    return {"mib": peak.mib, "seconds": seconds, "reached": reached}


def _revs(name: str, **changes: Any) -> Any:
    def prepare(model: Any, tok: Any, requests: Any, common: dict[str, Any]) -> Any:
        settings = {**REVSHyperParams.from_hparams(name).to_dict(), **common, "layers": [], **changes}
        hparams = REVSHyperParams(**settings)
        if hparams.reads_moments:
            ordinary_moments(Decoder.of(model, hparams), tok, hparams)
        return lambda: execute_revs(model, tok, requests, hparams).outcomes

    return prepare


def _tars(model: Any, tok: Any, requests: Any, common: dict[str, Any]) -> Any:
    hparams = TARSHyperParams(**{**TARSHyperParams.from_hparams("smollm2-135m").to_dict(), **common})
    hparams.min_probability, hparams.goal_probability = 2e-6, 1e-6  # a random model expects every word alike
    ordinary_moments(Decoder.of(model, hparams), tok, hparams)
    return lambda: execute_tars(model, tok, requests[:1], hparams).outcomes


def _moments(model: Any, tok: Any, requests: Any, common: dict[str, Any]) -> Any:
    hparams = REVSHyperParams(**{**REVSHyperParams.from_hparams("smollm2-135m-covariance").to_dict(), **common})
    hparams.layers = []

    def run() -> list[Any]:
        ordinary_moments(Decoder.of(model, hparams), tok, hparams)
        return []

    return run


PARTS = {
    "REVS, neurons": _revs("smollm2-135m-paper", n_neurons=130, act_filter="top_1000", max_tokens=1),
    "REVS, covariance": _revs("smollm2-135m-covariance"),
    "TARS": _tars,
    "second moments": _moments,
}


if __name__ == "__main__":
    main()
