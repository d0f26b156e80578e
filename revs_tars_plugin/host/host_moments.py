"""Second moments where the host's own MEMIT and ROME look for them, so that they run without its download."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any

from torch import nn

from ..model.decoder import Decoder
from ..model.module_names import ModuleNames
from ..moments.ordinary_text import TextSource
from ..moments.second_moments import second_moments
from .easyedit import Host


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
    source = TextSource(hparams.mom2_dataset, hparams.mom2_n_samples, seed=getattr(hparams, "seed", 0))
    settings = copy(hparams)
    settings.stats_dir = str(Path(hparams.stats_dir).expanduser())
    settings.mom2_dataset = source.label
    name = str(getattr(model.config, "_name_or_path", "model"))
    folder = name.replace("/", "_") if host.generation == "release" else name.rsplit("/", maxsplit=1)[-1]
    second_moments(
        Decoder(model, ModuleNames.of(hparams), hparams.layers),
        tok,
        source,
        stats_dir=settings.stats_dir,
        precision=hparams.mom2_dtype,
        model_name=folder,
    )
    return settings
