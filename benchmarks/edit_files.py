"""How small a saved edit is, and how exactly an adapter gives the edited model.

The demo's facts by neuron editing, its concept by TARS, and 24 memorised secrets by covariance keys, on SmolLM2-135M:
each is saved, loaded, exported, and its adapter loaded by plain peft in a process that never imports this package.

Run: python benchmarks/edit_files.py [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from _tables import show
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from revs_tars_plugin import EditSet, REVSHyperParams, TARSHyperParams, execute_revs, execute_tars
from revs_tars_plugin.cli.demo import CONCEPT, CONCEPT_PROMPTS, FACTS, HELD_OUT_PROMPTS, UNRELATED
from revs_tars_plugin.data import demo_model
from revs_tars_plugin.data.memorised import memorised_model
from revs_tars_plugin.data.synthetic import synthetic_secrets

# Run in a process of its own: base model and adapter, with nothing of this package.
PLAIN = """
import sys, json, torch
sys.modules["revs_tars_plugin"] = None
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
base, folder, out = sys.argv[1:4]
prompts = json.loads(sys.stdin.read())
tok = AutoTokenizer.from_pretrained(base)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).eval()
found = []
with torch.no_grad():
    for prompt in prompts:
        found.append(model(**tok(prompt, return_tensors="pt")).logits[0, -1])
    said = []
    for prompt in prompts:
        ids = tok(prompt, return_tensors="pt")
        new = model.generate(**ids, max_new_tokens=8, do_sample=False, pad_token_id=0)
        said.append(tok.decode(new[0, ids.input_ids.shape[1]:]))
save_file({"logits": torch.stack(found)}, out)
print(json.dumps(said))
"""


def main() -> None:
    """Makes, saves, loads and exports each edit, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="also write the figures there")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    rows = []
    for name, folder, prompts, compute in cases():
        model, tok = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        rows.append({"edit": name, **round_trip(folder, model, tok, prompts, compute(model, tok))})
    show("Edits on disk, SmolLM2-135M", rows, decimals=6, width=140)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")


def cases() -> list[tuple[str, Path, list[str], Any]]:
    """What is edited, where, what is asked afterwards, and how."""
    facts = [{"prompt": prompt, "forget": target} for prompt, target in FACTS]
    concept = [{"prompt": prompt, "forget": CONCEPT} for prompt in CONCEPT_PROMPTS]
    secrets = [secret.record() for secret in synthetic_secrets(2, 0)]
    memorised = memorised_model(secrets, "memorised-2-0")
    half = [secret.request() for secret in secrets[::2]]
    keys = REVSHyperParams.from_hparams("smollm2-135m-covariance")
    keys.stats_dir = str(memorised.parent / "stats")
    neurons, tars = REVSHyperParams.from_hparams("smollm2-135m-paper"), TARSHyperParams.from_hparams("smollm2-135m")
    return [
        (
            "REVS, 4 facts, neurons",
            demo_model(),
            [*(p for p, _ in FACTS), *UNRELATED],
            lambda model, tok: execute_revs(model, tok, facts, neurons),
        ),
        (
            "TARS, a concept",
            demo_model(),
            [*CONCEPT_PROMPTS, *HELD_OUT_PROMPTS, *UNRELATED],
            lambda model, tok: execute_tars(model, tok, concept, tars),
        ),
        (
            "REVS, 24 secrets, covariance",
            memorised,
            [s.prompt for s in secrets[:12]],
            lambda model, tok: execute_revs(model, tok, half, keys),
        ),
    ]


@torch.no_grad()
def round_trip(folder: Path, model: torch.nn.Module, tok: Any, prompts: list[str], edits: EditSet) -> dict[str, Any]:
    """Saves and loads the edit, and compares the adapter in another process with the edited model."""
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    with tempfile.TemporaryDirectory() as place:
        path, adapter, out = (
            Path(place) / "edit.safetensors",
            Path(place) / "adapter",
            Path(place) / "found.safetensors",
        )
        start = time.perf_counter()
        edits.save(path)
        loaded = EditSet.load(path)
        loaded.apply(model)
        seconds = time.perf_counter() - start
        logits, said = answers(model, tok, prompts)
        loaded.undo(model)
        base, _ = answers(model, tok, prompts)
        edits.to_peft(adapter)
        command = [sys.executable, "-c", PLAIN, str(folder), str(adapter), str(out)]
        done = subprocess.run(command, input=json.dumps(prompts), text=True, check=True, capture_output=True)
        found, same = load_file(out)["logits"], zip(json.loads(done.stdout), said, strict=True)
        weights = adapter / "adapter_model.safetensors"
        return {
            "file, MiB": path.stat().st_size / 2**20,
            "of the model": path.stat().st_size / size,
            "adapter, MiB": weights.stat().st_size / 2**20,
            "save, load, apply, s": seconds,
            "largest logit change": float((logits - base).abs().max()),
            "adapter's difference": float((found - logits).abs().max()),
            "same continuations": f"{sum(a == b for a, b in same)}/{len(said)}",
        }


@torch.no_grad()
def answers(model: torch.nn.Module, tok: Any, prompts: list[str]) -> tuple[torch.Tensor, list[str]]:
    """The logits after each prompt, and what greedy decoding says."""
    logits, said = [], []
    for prompt in prompts:
        ids = tok(prompt, return_tensors="pt")
        logits.append(model(**ids).logits[0, -1])
        new = model.generate(**ids, max_new_tokens=8, do_sample=False, pad_token_id=0)  # type: ignore[operator]
        said.append(tok.decode(new[0, ids.input_ids.shape[1] :]))
    return torch.stack(logits), said


if __name__ == "__main__":
    main()
