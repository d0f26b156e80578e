"""Models and settings as the command line names them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, did_you_mean
from ..hyperparams import UnlearnHyperParams
from ..yaml_files import parsed_yaml, read_yaml
from .together import launched

if TYPE_CHECKING:
    from ..evaluation import OrdinaryText
    from ..methods import Method

DEMO, GEMMA = "demo", "gemma"
_DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Loaded:
    """A model with its tokenizer, and what it was called."""

    model: Any
    tok: Any
    name: str


def load_model(name: str, device: str | None, dtype: str, *, progress: bool = True) -> Loaded:
    """Loads a checkpoint folder, a hub id, or the demo model.

    Raises:
        InputError: When it cannot be loaded, or a device or dtype is unknown.
    """
    if dtype not in _DTYPES:
        raise InputError(f'--dtype is "{dtype}"; it must be one of {", ".join(_DTYPES)}{did_you_mean(dtype, _DTYPES)}')
    if launched() and device not in (None, "cpu"):
        raise InputError(
            f'--device is "{device}"; under a launcher leave it out: each process has a device of its own.'
        )
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    if not (progress and sys.stderr.isatty()):
        transformers.logging.disable_progress_bar()
    folder = checkpoint(name)
    where: Any = {"device_map": "auto"} if device == "auto" else {}
    try:
        place = torch.device(device or _default_device()) if device != "auto" else None
    except RuntimeError as error:
        raise InputError(
            f'--device is "{device}", which torch does not know; write cpu, cuda:0 or the like.'
        ) from error
    try:
        tok = transformers.AutoTokenizer.from_pretrained(folder)
        packed = getattr(transformers.AutoConfig.from_pretrained(folder), "quantization_config", None) is not None
        if packed and place is not None:  # packed weights are not moved afterwards
            where = {"device_map": {"": str(place)}}
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **where)
        if place is not None and not packed:
            model = model.to(place)
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"--model {name} does not fit on {place}; name another --device, or auto to spread it."
        ) from error
    # The library raises errors of many kinds for files that are missing, of another kind, or from a newer version.
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, AssertionError, AttributeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(
            f'--model {name} cannot be loaded ({reason[:200]}); give a checkpoint folder, a hub id, or "demo".'
        ) from error
    return Loaded(model.eval(), tok, str(folder))


def save_model(loaded: Loaded, folder: Path) -> None:
    """Writes model and tokenizer as a checkpoint folder.

    Raises:
        InputError: When it cannot be written.
    """
    try:
        loaded.model.save_pretrained(folder)
        loaded.tok.save_pretrained(folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror or error}); name another folder.") from error


def checkpoint(name: str) -> str:
    """Returns the folder of a bundled model ("demo", "gemma"), or the name as it is.

    Raises:
        InputError: When a name that looks like a folder is none.
    """
    try:
        path = Path(name).expanduser()
        if name != DEMO and path.is_dir():
            return str(path)
    # No user of that name; a name longer than any may be.
    except (RuntimeError, OSError, ValueError) as error:
        raise InputError(f'--model is "{name}", which can be no folder ({error}).') from error
    if name in (DEMO, GEMMA):
        from ..data import demo_model

        return str(demo_model("smollm2" if name == DEMO else name))
    if name.startswith((".", "/", "~")) or len(path.parts) > 2:
        raise InputError(f'--model names the folder "{path}", which is not there.')
    return name


def _default_device() -> str:
    import torch

    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if accelerator is None:
        return "cpu"
    # Of several processes each has a card of its own.
    return f"{accelerator}:{os.environ['LOCAL_RANK']}" if launched() else str(accelerator)


def method_named(method: str | None, settings: str | None, default: str) -> Method:
    """Returns a method: the one that the settings file says, else the one that is named, else the default.

    Raises:
        InputError: When there is no such method, or file and option differ.
    """
    from ..methods import method_of

    in_file = _alg_name(Path(settings).expanduser()) if settings else None
    if in_file and method and in_file != method:
        raise InputError(f'--method is "{method}", but {settings} holds settings of "{in_file}"; leave one out.')
    return method_of(in_file or method or default)


def _alg_name(path: Path) -> str | None:
    if not path.is_file():
        return None
    config = read_yaml(path)
    name = config.get("alg_name") if isinstance(config, dict) else None
    if not isinstance(name, str):
        raise InputError(f'{path} has no "alg_name"; it must say which method the settings are for.')
    return name


def settings_for(
    method: Method,
    loaded: Loaded,
    settings: str | None,
    *,
    changes: Sequence[str] = (),
    seed: int | None = None,
    text: str | None = None,
) -> Any:
    """Returns a method's settings for a model: of a file, or those measured best, with single ones changed.

    Args:
        method: The method.
        loaded: The model.
        settings: The file, or the name of a packaged one.
        changes: Single settings, each as KEY=VALUE.
        seed: The seed; None leaves the settings' own.
        text: The ordinary text; None leaves the settings' own.

    Raises:
        InputError: When the file or a change cannot be used.
    """
    from ..methods import measured_settings

    if settings:
        chosen: Any = replace(method.hyperparams.from_hparams(settings), model_name=loaded.name)
    else:
        chosen = measured_settings(method, loaded.model, loaded.name)
    values = dict(_change(change, chosen) for change in changes)
    if seed is not None:
        values["seed"] = seed
    if text is not None:
        values["mom2_dataset"] = text
    try:
        return replace(chosen, **values)
    except InputError as error:
        raise InputError(f"--set: {error}") from error


def _change(change: str, settings: UnlearnHyperParams) -> tuple[str, Any]:
    key, sign, value = change.partition("=")
    keys = settings.to_dict()
    if not sign or key not in keys:
        raise InputError(
            f'--set is "{change}"; write KEY=VALUE with a key of {settings.ALGORITHM}{did_you_mean(key, keys) or "."}'
        )
    return key, parsed_yaml(value, f'--set is "{change}"; its value')


def ordinary_chunks(
    loaded: Loaded, name: str | None, seed: int, *, count: int = 4, size: int = 256, progress: bool = True
) -> list[str]:
    """Returns ordinary text to measure the cost of an edit on.

    Args:
        loaded: The model, unedited: without a name it makes the text itself.
        name: A text file or the name of a data set; by default text that the model samples.
        seed: Seed of what is drawn.
        count: How many chunks.
        size: How many tokens each has.
        progress: Show a progress bar while it is sampled.

    Raises:
        InputError: When the source cannot be read.
    """
    from ..moments.ordinary_text import SAMPLED, TextSource, sample_from_model, sequences_of

    if name is None or name == SAMPLED:
        samples = sample_from_model(loaded.model, loaded.tok, count, size, seed=seed + 1000, progress=progress)
        return [loaded.tok.decode(sample, skip_special_tokens=True) for sample in samples]
    ids: list[int] = []
    for sequence in sequences_of(loaded.model, loaded.tok, TextSource(name, 64 * count, size, seed)):
        ids += [*sequence, *loaded.tok("\n", add_special_tokens=False)["input_ids"]]
        if len(ids) >= count * size:
            break
    return [loaded.tok.decode(ids[start : start + size]) for start in range(0, min(len(ids), count * size), size)]


def ordinary_text(loaded: Loaded, name: str | None, seed: int, *, progress: bool = True) -> OrdinaryText:
    """Returns such text with what the model, unedited, says of it; see `ordinary_chunks`."""
    from ..evaluation import OrdinaryText

    return OrdinaryText.of(loaded.model, loaded.tok, ordinary_chunks(loaded, name, seed, progress=progress))
