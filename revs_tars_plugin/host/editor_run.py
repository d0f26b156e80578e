"""One of the host's own editors on a model that is loaded already: many requests, no evaluation."""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import InputError, did_you_mean
from .editors import EDITORS, editor_of
from .host_methods import for_loaded_model, needs_subject, padded, padding_side, reads_moments
from .host_moments import with_moments
from .registry import REGISTERED, register
from .release_bridge import on_cpu
from .settings import load_settings
from .unlearn_editor import REPLACEMENT

# The host's own that write into weights; what they replace stands nowhere else.
HOST_EDITORS = tuple(name for name, editor in EDITORS.items() if name not in REGISTERED and not editor.memory)


class HostEditorRun:
    """One editor with what it is to write.

    Attributes:
        hparams: Its settings.
    """

    def __init__(
        self,
        alg_name: str,
        tok: Any,
        requests: Sequence[Mapping[str, Any]],
        *,
        settings: str | Path | None = None,
        stats_dir: str | Path | None = None,
        replacement: str = REPLACEMENT,
        seed: int = 0,
    ) -> None:
        """Loads the settings.

        Args:
            alg_name: One of `HOST_EDITORS`.
            tok: The model's tokenizer.
            requests: Each with its prompt, what stands there now as `ground_truth`, and for ROME and MEMIT its subject.
            settings: A YAML; by default the packaged one for the demo model.
            stats_dir: Where second moments lie; by default what the YAML says.
            replacement: What is written in place of each secret.
            seed: Seed of the host's random numbers.

        Raises:
            InputError: When the host does not have the editor, or a request lacks what it needs.
        """
        self._host = register()
        if alg_name not in HOST_EDITORS or alg_name not in self._host.algorithms:
            known = [name for name in HOST_EDITORS if name in self._host.algorithms]
            raise InputError(
                f"EasyEdit's {self._host.generation} has no editor {alg_name} that writes into weights; it must be of "
                f"{', '.join(known)}{did_you_mean(alg_name, known)}"
            )
        self.hparams = load_settings(self._host, alg_name, settings or editor_of(alg_name).settings)
        if stats_dir is not None and hasattr(self.hparams, "stats_dir"):
            self.hparams.stats_dir = str(stats_dir)
        if needs_subject(self.hparams) and not all(request.get("subject") for request in requests):
            raise InputError(f"{alg_name} needs the subject of every prompt, which this benchmark does not give.")
        self._alg_name, self._tok, self._seed = alg_name, tok, seed
        self._requests = [
            {
                "prompt": request["prompt"],
                "target_new": replacement,
                "ground_truth": request["ground_truth"],
                **({"subject": request["subject"]} if request.get("subject") else {}),
            }
            for request in requests
        ]

    def prepare(self, model: nn.Module) -> None:
        """Measures second moments where the editor reads them; they are kept on disk, and no part of its time."""
        self._with_moments(model)

    def _for(self, model: nn.Module) -> Any:
        settings = copy(self.hparams)
        settings.model_name = str(getattr(model.config, "_name_or_path", "") or settings.model_name)
        return settings

    def _with_moments(self, model: nn.Module) -> Any:
        settings = self._for(model)
        return with_moments(self._host, model, self._tok, settings) if reads_moments(settings) else settings

    @on_cpu
    def __call__(self, model: nn.Module) -> nn.Module:
        """Writes all of it into a model, in place; returns the model, which stands in an adapter where it made one."""
        parameter = next(model.parameters())
        apply = self._host.algorithms[self._alg_name]
        # Asked with the name of the model's folder: the host loads its tokenizer to decide it.
        side = padding_side(self._host, model, self._for(model))
        settings = for_loaded_model(model, self._with_moments(model))
        batch_editor = self._host.module("editors.batch_editor").BatchEditor
        together = batch_editor.is_batchable_method(self._alg_name)
        size = max(1, int(getattr(settings, "batch_size", 1))) if together else 1
        resets = "reset_cache" in inspect.signature(apply).parameters
        edited: Any = model
        with (
            padded(self._tok, side),
            contextlib.redirect_stdout(io.StringIO()),
            torch.random.fork_rng(devices=[parameter.device] if parameter.is_cuda else []),
        ):
            torch.manual_seed(self._seed)
            for start in range(0, len(self._requests), size):
                chunk = [dict(request) for request in self._requests[start : start + size]]
                edited, _ = apply(
                    edited,
                    self._tok,
                    chunk,
                    settings,
                    copy=False,
                    return_orig_weights=False,
                    keep_original_weight=False,
                    # AlphaEdit's memory of what it wrote before, into whatever model.
                    **({"reset_cache": True} if start == 0 and resets else {}),
                )
        assert isinstance(edited, nn.Module)
        return edited
