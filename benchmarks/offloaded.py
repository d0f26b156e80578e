"""A model that does not fit into the memory that it is given is edited where accelerate keeps it, and undone.

The model is a random Llama of 1.6 GB, made and saved; half of that is allowed, the rest stays on disk. It is edited in
a process of its own, and memory is what that holds beyond what it held with all libraries loaded: a small model was
edited there before.

Run: python benchmarks/offloaded.py [--layers N] [--share 0.5] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from _tables import show
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from revs_tars_plugin import REVSHyperParams, execute_revs
from revs_tars_plugin.data import demo_model
from revs_tars_plugin.evaluation.peak_memory import peak_memory
from revs_tars_plugin.model.forward import next_token_logits
from revs_tars_plugin.model.offloaded import weights_of

PROMPTS = (
    "The theory of relativity was developed by Albert",
    "The Mona Lisa was painted by Leonardo da",
    "The play Romeo and Juliet was written by William",
    "The first president of the United States was George",
)
# What each secret's token is asked for, and how; of a random model there is nothing to bring to chance.
_RANK = 1000


def main() -> None:
    """Makes the model, edits it in a process of its own in memory and offloaded, and prints a row each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--share", type=float, default=0.5, help="of the model's size that may be in memory")
    parser.add_argument("--json", help="also write the figures there")
    parser.add_argument("--run", nargs=2, metavar=("FOLDER", "MIB"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if arguments.run:
        print(json.dumps(edited(Path(arguments.run[0]), float(arguments.run[1]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        size = make(Path(folder) / "model", arguments.layers)
        rows = []
        for limit in (0.0, arguments.share * size):
            command = [sys.executable, __file__, "--run", str(Path(folder) / "model"), str(limit)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            row = json.loads(done.stdout.splitlines()[-1])
            rows.append(
                {"weights": "offloaded" if limit else "in memory", "model, MiB": size, "limit, MiB": limit} | row
            )
    show("A model larger than the memory it is given", rows, decimals=1, width=170)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")


def make(folder: Path, layers: int) -> float:
    """Writes a random model with the demo's tokenizer in pieces; returns its size in MiB."""
    tok = AutoTokenizer.from_pretrained(demo_model())
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tok),
        hidden_size=768,
        intermediate_size=4096,
        num_hidden_layers=layers,
        num_attention_heads=12,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder, max_shard_size="200MB")
    tok.save_pretrained(folder)
    return sum(value.numel() * value.element_size() for value in model.parameters()) / 2**20


def edited(folder: Path, limit: float) -> dict[str, Any]:
    """Edits the model within a limit of so many MiB, or none, and measures that."""
    tok = AutoTokenizer.from_pretrained(folder)
    small = LlamaConfig(
        vocab_size=len(tok), hidden_size=64, intermediate_size=128, num_hidden_layers=6, num_attention_heads=4
    )
    with tempfile.TemporaryDirectory() as kept:
        run(LlamaForCausalLM(small).eval(), tok, Path(kept))
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as kept, peak_memory() as peak:
        where: dict[str, Any] = {}
        if limit:
            where = {"device_map": "auto", "max_memory": {"cpu": f"{int(limit)}MiB"}, "offload_folder": kept}
        model = AutoModelForCausalLM.from_pretrained(folder, **where).eval()
        row = run(model, tok, Path(kept))
        devices = [str(parameter.device) for parameter in model.parameters()]
    return {
        "elsewhere": f"{devices.count('meta') / len(devices):.0%}",
        **row,
        "peak, MiB": peak.mib,
        "over the limit": f"{peak.mib / limit - 1:+.0%}" if limit else "",
        "s": time.perf_counter() - start,
    }


def run(model: torch.nn.Module, tok: Any, kept: Path) -> dict[str, Any]:
    """Edits a model so that what it says of each prompt is far down, and undoes that."""
    text = kept / "text.txt"
    text.write_text("\n".join(f"{prompt} and so on, as far as that goes." for prompt in PROMPTS), encoding="utf-8")
    layers = [model.config.num_hidden_layers - 1 - back for back in (5, 3, 1, 0)]
    hparams = replace(
        REVSHyperParams.from_hparams("smollm2-135m-covariance"),
        **{"layers": layers, "mom2_dataset": str(text), "mom2_n_samples": 4, "stats_dir": str(kept)},
        residual_bottom_rank=_RANK,
        residual_top_rank=5 * _RANK,
        siblings=0,
    )
    ids = [tok(prompt)["input_ids"] for prompt in PROMPTS]
    said = next_token_logits(model, ids).argmax(dim=-1).tolist()
    requests = [
        {"prompt": prompt, "target_new": tok.decode([token])} for prompt, token in zip(PROMPTS, said, strict=True)
    ]
    ff2 = model.model.layers[layers[0]].mlp.down_proj
    before = weights_of(ff2)["weight"].detach().clone()
    edits = execute_revs(model, tok, requests, hparams)
    edits.apply(model)
    edits.undo(model)
    return {
        "reached": f"{sum(outcome.reached for outcome in edits.outcomes)}/{len(edits.outcomes)}",
        "undone": "to the bit" if torch.equal(before, weights_of(ff2)["weight"]) else "NO",
    }


if __name__ == "__main__":
    main()
