"""Runs the published REVS code as it is, from a checkout beside this one; nothing of it is kept here."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import tqdm

from revs_tars_plugin import REVSHyperParams
from revs_tars_plugin.model.rank_steps import ranks
from revs_tars_plugin.requests.reading import tokenise_in_context


def published_seconds(
    checkout: Path,
    model: torch.nn.Module,
    tok: Any,
    requests: Sequence[dict[str, str]],
    hparams: REVSHyperParams,
) -> tuple[float, str]:
    """Unlearns on a copy of the model, with the same margins and number of neurons.

    Returns:
        The seconds without the pseudo-inverse, and how many targets ended at their rank after all edits.
    """
    # It draws its progress bars for a notebook only.
    notebook = ModuleType("tqdm.notebook")
    notebook.tqdm = tqdm.tqdm  # type: ignore[attr-defined]
    sys.modules["tqdm.notebook"] = notebook
    sys.path.insert(0, str(checkout))
    try:
        from revs.revs import REVS, REVSConfig
        from utils.data import create_concat_prompts_target
    finally:
        sys.path.remove(str(checkout))
    margins = hparams.ranks(model.get_output_embeddings().weight.shape[0])  # type: ignore[operator]
    config = REVSConfig(
        n_neurons=hparams.n_neurons,
        act_filter=hparams.act_filter,
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
        seed=0,
        max_tokens=hparams.max_tokens,
        log_wandb=False,
    )
    edited = deepcopy(model)
    inverse = torch.linalg.pinv(model.get_output_embeddings().weight.detach())  # type: ignore[operator]
    method = REVS(edited, tok, config, inverse)
    targets = []
    start = time.perf_counter()
    for request in requests:
        prompts, tokens = create_concat_prompts_target(
            tok, request["prompt"], " " + request["target_new"], max_tokens=hparams.max_tokens
        )
        for prompt, token in zip(prompts, tokens, strict=True):
            method.edit_multiple_layers_dict(
                range(edited.config.num_hidden_layers), prompt, token, print_progress=False
            )
            targets.append((prompt, token))
    seconds = time.perf_counter() - start
    reached = 0
    for prompt, token in targets:
        ids, target = tokenise_in_context(tok, prompt, token)
        with torch.no_grad():
            logits = edited(torch.tensor([ids])).logits[0, -1:].float()
        reached += int(ranks(logits, torch.tensor(target[:1]))) >= margins.residual_bottom_rank
    return seconds, f"{reached}/{len(targets)}"
