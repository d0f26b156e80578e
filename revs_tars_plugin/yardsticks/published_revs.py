"""The published REVS code as it is, from a checkout that `REVS_REFERENCE` names; nothing of it is kept here."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import tqdm
from torch import nn

from ..errors import InputError
from ..model.rank_steps import ranks
from ..requests.reading import tokenise_in_context
from ..revs.revs_hparams import REVSHyperParams

# What the row is called.
PUBLISHED_REVS = "published-REVS"
_PACKAGES = ("revs", "utils")


@dataclass(frozen=True)
class PublishedRevs:
    """The published code, ready to run.

    Attributes:
        checkout: The folder of the clone.
        tok: The model's tokenizer.
        requests: Prompts, each with what must not follow as `target_new`.
        hparams: Margins and numbers of neurons and tokens; all else is as published.
    """

    checkout: Path
    tok: Any
    requests: Sequence[Mapping[str, str]]
    hparams: REVSHyperParams

    def __post_init__(self) -> None:
        """Looks whether it is there.

        Raises:
            InputError: When the folder is no checkout.
        """
        if not (self.checkout / "revs" / "revs.py").is_file():
            raise InputError(f"{self.checkout} is no checkout of the published REVS code: it has no revs/revs.py.")

    def __call__(self, model: nn.Module, inverse: torch.Tensor | None = None) -> None:
        """Unlearns all requests, in place.

        Args:
            model: A causal language model.
            inverse: The pseudo-inverse of its head, where it is at hand.
        """
        head = model.get_output_embeddings()  # type: ignore[operator]
        margins = self.hparams.ranks(head.weight.shape[0])
        with _importable(self.checkout):
            code = importlib.import_module("revs.revs")
            config = code.REVSConfig(
                n_neurons=self.hparams.n_neurons,
                act_filter=self.hparams.act_filter,
                neurons_score_method="rank",
                score_threshold=100,
                residual_bottom_rank_margin=margins.residual_bottom_rank,
                residual_top_rank_margin=margins.residual_top_rank,
                max_iter_mlp_rank=100,
                mlp_bottom_rank_margin=margins.mlp_bottom_rank,
                mlp_top_rank_margin=margins.mlp_top_rank,
                max_iter_neuron_rank=100,
                neuron_bottom_rank_margin=margins.neuron_bottom_rank,
                neuron_top_rank_margin=margins.neuron_top_rank,
                seed=self.hparams.seed,
                max_tokens=self.hparams.max_tokens,
                log_wandb=False,
            )
            method = code.REVS(model, self.tok, config, self.inverse(model) if inverse is None else inverse)
            layers = range(int(model.config.num_hidden_layers))  # type: ignore[arg-type, union-attr]
            for prompt, token in self.targets():
                method.edit_multiple_layers_dict(layers, prompt, token, print_progress=False)

    @staticmethod
    def inverse(model: nn.Module) -> torch.Tensor:
        """Returns the pseudo-inverse of the head, which the published code is given once."""
        head = model.get_output_embeddings()  # type: ignore[operator]
        inverse: torch.Tensor = torch.linalg.pinv(head.weight.detach())
        return inverse

    def targets(self) -> list[tuple[str, str]]:
        """Returns the prompts and tokens that it chooses."""
        with _importable(self.checkout):
            data = importlib.import_module("utils.data")
            chosen = []
            for request in self.requests:
                prompts, tokens = data.create_concat_prompts_target(
                    self.tok, request["prompt"], " " + request["target_new"], max_tokens=self.hparams.max_tokens
                )
                chosen += list(zip(prompts, tokens, strict=True))
        return chosen

    @torch.no_grad()
    def reached(self, model: nn.Module) -> tuple[int, int]:
        """Returns how many of its targets are at their rank in an edited model, and how many there are."""
        rank = self.hparams.ranks(model.get_output_embeddings().weight.shape[0]).residual_bottom_rank  # type: ignore[operator]
        targets = self.targets()
        there = 0
        for prompt, token in targets:
            ids, target = tokenise_in_context(self.tok, prompt, token)
            logits = model(torch.tensor([ids])).logits[0, -1:].float()
            there += int(ranks(logits, torch.tensor(target[:1]))) >= rank
        return there, len(targets)


@contextmanager
def _importable(checkout: Path) -> Iterator[None]:
    """Lets its packages be imported; it draws its progress bars for a notebook only."""
    notebook = ModuleType("tqdm.notebook")
    notebook.tqdm = tqdm.tqdm  # type: ignore[attr-defined]
    ours = {name: module for name, module in sys.modules.items() if name.split(".")[0] in _PACKAGES}
    before = sys.modules.get("tqdm.notebook")
    for name in ours:
        del sys.modules[name]
    sys.modules["tqdm.notebook"] = notebook
    sys.path.insert(0, str(checkout))
    try:
        yield
    finally:
        sys.path.remove(str(checkout))
        for name in [name for name in sys.modules if name.split(".")[0] in _PACKAGES]:
            del sys.modules[name]
        sys.modules.update(ours)
        if before is None:
            del sys.modules["tqdm.notebook"]
        else:
            sys.modules["tqdm.notebook"] = before
