"""How long evaluating 20 secrets with all attacks takes, against the bare forward passes that it needs.

Every call of the model that the evaluation makes is made once more with nothing around it: no hooks of ours, and one
position through the head. Calls that go on from a cache (decoding, sampling) cannot be made again; they carry no hooks,
and count as long as they took. So do the forward passes of the relearning attack; its backward passes do not count.

Run: python benchmarks/evaluation_time.py [--secrets 20] [--json FILE]
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
from _tables import show
from transformers import AutoModelForCausalLM, AutoTokenizer

from revs_tars_plugin import REVSHyperParams
from revs_tars_plugin.data.memorised import memorised_model
from revs_tars_plugin.data.synthetic import synthetic_secrets
from revs_tars_plugin.evaluation import ATTACKS, DEFAULT_ATTACKS, RESISTANCE_ATTACKS, OrdinaryText, evaluate_unlearning
from revs_tars_plugin.moments.ordinary_text import sample_from_model

_GROUPS: dict[str, list[str]] = {
    "scores and recall": [],
    "inner layers": list(RESISTANCE_ATTACKS),
    "all but relearning, enumeration": list(DEFAULT_ATTACKS),
    "all": list(ATTACKS),
}


class Calls:
    """The calls of a model while a block lasts: those that can be made again, and the time of the others."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model, self.bare = model, model.forward
        self.repeatable: list[dict[str, Any]] = []
        self.others = 0.0

    def __enter__(self) -> Calls:
        """Puts itself in the place of the model's forward."""
        self.model.forward = self._forward  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        """Puts the forward back."""
        del self.model.forward

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("past_key_values") is None and not torch.is_grad_enabled():
            kept = ("input_ids", "attention_mask", "use_cache", "logits_to_keep")
            self.repeatable.append({name: kwargs[name] for name in kept if name in kwargs})
            return self.bare(*args, **kwargs)
        start = time.perf_counter()
        found = self.bare(*args, **kwargs)
        self.others += time.perf_counter() - start
        return found

    @torch.no_grad()
    def seconds(self) -> float:
        """Makes the calls again, with one position through the head, and adds the time of the others."""
        start = time.perf_counter()
        for call in self.repeatable:
            self.bare(**{**call, "logits_to_keep": 1})
        return time.perf_counter() - start + self.others


def main() -> None:
    """Times every group of attacks and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--secrets", type=int, default=20)
    parser.add_argument("--json", help="also write the figures there")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    known = [secret.record() for secret in synthetic_secrets(2, 0)]
    folder = memorised_model(known, "memorised-2-0")
    model, tok = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    text = OrdinaryText(model, list(sample_from_model(model, tok, 4, 256, seed=1000)))
    names = REVSHyperParams.from_hparams("smollm2-135m")
    chosen = known[::2][: arguments.secrets]
    rows = []
    for name, attacks in _GROUPS.items():
        with Calls(model) as calls:
            start = time.perf_counter()
            evaluate_unlearning(model, tok, chosen, names=names, retain=known[1::2], attacks=attacks, reference=text)
            seconds = time.perf_counter() - start
        floor = calls.seconds()
        rows.append({"": name, "secrets": len(chosen), "s": seconds, "bare passes, s": floor, "ratio": seconds / floor})
    show("Evaluating unlearning, SmolLM2-135M", rows, decimals=2, width=118)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
