"""Second moments where the host's own MEMIT and ROME look for them, so that they run without its download."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any

from torch import nn

from ..decoder import Decoder
from ..ordinary_text import source_label
from ..statistics import second_moments
from .easyedit import Host
from .module_names import module_names


def with_moments(host: Host, model: nn.Module, tok: Any, hparams: Any) -> Any:
    """Computes the second moments that a host's method is going to read, unless they are there already.

    Args:
        host: Its generation decides under which name of the model they are looked for.
        model: The model as it stands; ordinary text named "sampled" is made by it.
        tok: Its tokenizer.
        hparams: The method's settings: `layers`, `mom2_dataset`, `mom2_n_samples`, `mom2_dtype`, `stats_dir`.

    Returns:
        A copy of the settings by which the host finds them: it takes "~" as it is, and a text file by its path.

    Raises:
        InputError: When the text cannot be read.
    """
    found = copy(hparams)
    found.stats_dir = str(Path(hparams.stats_dir).expanduser())
    found.mom2_dataset = source_label(hparams.mom2_dataset)
    name = str(getattr(model.config, "_name_or_path", "model"))
    folder = name.replace("/", "_") if host.generation == "release" else name.rsplit("/", maxsplit=1)[-1]
    second_moments(
        Decoder(model, module_names(hparams, layers=list(hparams.layers))),
        tok,
        hparams.mom2_dataset,
        stats_dir=found.stats_dir,
        n_samples=hparams.mom2_n_samples,
        precision=hparams.mom2_dtype,
        model_name=folder,
        seed=getattr(hparams, "seed", 0),
    )
    return found
