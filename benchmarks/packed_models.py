"""SmolLM2 in 4 and 8 bits forgets the demo's facts: with the adapter beside the packed weights, which stay as they are.

Everything is measured on the packed model with the adapter that plain peft loads, once more on the unpacked model with
the same change in its weights, and on the model that was packed again with it (`--requantize`).

Run: python benchmarks/packed_models.py --text FILE [--kinds NF4 int8 ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from _measuring import named_text
from _tables import show
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TorchAoConfig

from revs_tars_plugin import EditSet, REVSHyperParams, execute_revs
from revs_tars_plugin.cli import demo
from revs_tars_plugin.data import demo_model
from revs_tars_plugin.evaluation import Exposure, compared, next_token_log_probabilities
from revs_tars_plugin.evaluation.peak_memory import peak_memory
from revs_tars_plugin.revs.requantization import requantize

# What the facts' tokens are asked for: chance, or a rank for one token each.
SETTINGS = {"chance": "smollm2-135m", "rank": "smollm2-135m-covariance"}


def nf4() -> BitsAndBytesConfig:
    """Four bits of bitsandbytes, computed in float32."""
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)


def int8() -> BitsAndBytesConfig:
    """Eight bits of bitsandbytes."""
    return BitsAndBytesConfig(load_in_8bit=True)


def torchao_int8() -> TorchAoConfig:
    """Eight bits of torchao, weights alone."""
    from torchao.quantization import Int8WeightOnlyConfig

    return TorchAoConfig(Int8WeightOnlyConfig())


def torchao_int4() -> TorchAoConfig:
    """Four bits of torchao, in groups of 32."""
    from torchao.quantization import IntxWeightOnlyConfig
    from torchao.quantization.granularity import PerGroup

    return TorchAoConfig(IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32)))


KINDS: dict[str, Callable[[], Any]] = {
    "NF4": nf4,
    "int8": int8,
    "torchao int8": torchao_int8,
    "torchao int4": torchao_int4,
}


def main() -> None:
    """Packs the model in every way, edits it, and prints a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--text", required=True, help="ordinary text to measure on")
    parser.add_argument("--tokens", type=int, default=1024, help="how many tokens of it")
    parser.add_argument("--json", help="also write the figures there")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    tok = AutoTokenizer.from_pretrained(demo_model())
    rows = [row for kind in arguments.kinds for row in run(kind, tok, arguments)]
    show("Packed models with the adapter beside them, the demo's facts", rows, decimals=4, width=200)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")


def run(kind: str, tok: Any, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Edits one packed model with every setting; a row each."""
    model = packed(kind)
    text = named_text(model, tok, arguments)
    requests = [{"prompt": prompt, "forget": target} for prompt, target in demo.FACTS]
    said = next_token_log_probabilities(model, tok, demo.UNRELATED).argmax(dim=-1)
    rows = []
    for name, settings in SETTINGS.items():
        hparams = REVSHyperParams.from_hparams(settings)
        before = bits(model)
        start = time.perf_counter()
        with peak_memory() as peak:
            edits = execute_revs(model, tok, requests, hparams)
        seconds = time.perf_counter() - start
        untouched = bits(model) == before
        with tempfile.TemporaryDirectory() as folder:
            edits.to_peft(folder)
            # Attached to a model that has not run yet: on a CPU bitsandbytes lays 4 bits out anew in the first pass,
            # and an adapter that comes later breaks them.
            beside = PeftModel.from_pretrained(packed(kind), folder)
        found = hidden(beside, tok, edits)
        prompts, targets = zip(*demo.FACTS, strict=True)
        exposed = statistics.mean(Exposure.of(one).top for one in compared(beside, tok, prompts, targets))
        cost = text.compare(beside)
        kept = int((next_token_log_probabilities(beside, tok, demo.UNRELATED).argmax(dim=-1) == said).sum())
        with tempfile.TemporaryDirectory() as folder:
            again = requantize(model, tok, requests, hparams, edits, folder=Path(folder) / "packed")
            written = AutoModelForCausalLM.from_pretrained(Path(folder) / "packed").eval() if again.holds else None
        rows.append(
            {
                "packed": kind,
                "asked for": name,
                "reached": f"{sum(one.reached for one in edits.outcomes)}/{len(edits.outcomes)}",
                "with the adapter": found,
                "in the unpacked model": in_the_unpacked_model(tok, edits),
                "packed again": f"{sum(one.reached for one in again.outcomes)}/{len(again.outcomes)}",
                "KL, packed again": None if written is None else text.compare(written).kl_median,
                "exposure, top": exposed,
                "KL median": cost.kl_median,
                "top-1": cost.top1_agreement,
                "unrelated kept": f"{kept}/{len(demo.UNRELATED)}",
                "packed bits": "equal" if untouched else "CHANGED",
                "s": seconds,
                "peak, MiB": peak.mib,
            }
        )
    return rows


def packed(kind: str) -> nn.Module:
    """The model, packed."""
    settings = {"quantization_config": KINDS[kind](), "dtype": torch.float32}
    return AutoModelForCausalLM.from_pretrained(demo_model(), **settings).eval()


def hidden(model: nn.Module, tok: Any, edits: EditSet) -> str:
    """How many of the demoted tokens are where they were asked to be, read from the model's own logits.

    At chance that is within a factor of e of the asked probability, from above.
    """
    count = 0
    for outcome in edits.outcomes:
        prompt, target = demo.FACTS[outcome.request]
        ids = tok(f"{prompt} {target}")["input_ids"]
        start = len(tok(prompt)["input_ids"])
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, start + outcome.position - 1]
        probability = float(logits.softmax(dim=-1)[outcome.token])
        rank = int((logits > logits[outcome.token]).sum())
        asked = outcome.asked_probability
        count += rank >= outcome.asked_rank if asked is None else probability <= 2.72 * asked
    return f"{count}/{len(edits.outcomes)}"


def in_the_unpacked_model(tok: Any, edits: EditSet) -> str:
    """The same of the unpacked model, with the change in its weights."""
    model = AutoModelForCausalLM.from_pretrained(demo_model()).eval()
    edits.onto(model).apply(model)
    return hidden(model, tok, edits)


def bits(model: nn.Module) -> str:
    """A digest of every tensor of the model, and of those that a packed one is made of."""
    digest = hashlib.blake2b()
    parts: list[Tensor] = [*model.parameters(), *model.buffers()]
    while parts:
        part = parts.pop().detach()
        if hasattr(part, "__tensor_flatten__"):
            parts += [getattr(part, name) for name in part.__tensor_flatten__()[0]]
        else:
            digest.update(part.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


if __name__ == "__main__":
    main()
