"""How time and memory grow: with secrets, vocabulary, width, layers and processes; what larger models would take.

Everything is on random models whose words are numbers, so nothing but this package is needed, on whichever device. What
is forgotten is what the model itself says next. The second moments of ordinary text are read first, and timed apart.
`shapes` and `secrets` measure; `processes` starts two processes and says what share of the reading each does; `cost`
counts operations and bytes of each step on paper and says what that comes to at the rates that it measures here;
`profile` counts what an edit starts on the device, and how often the processor waits for a number from there.

Run: python benchmarks/scaling.py [--parts shapes secrets profile processes cost] [--shape 8B] [--device cuda]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from _measuring import SETTINGS, clock
from _tables import show
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from revs_tars_plugin import REVSHyperParams, execute_revs
from revs_tars_plugin.evaluation.peak_memory import peak_memory
from revs_tars_plugin.model.decoder import Decoder
from revs_tars_plugin.model.processes import working_together
from revs_tars_plugin.moments.second_moments import ordinary_moments

PARTS = ("shapes", "secrets", "profile", "processes", "cost")
_PROMPT, _TARGET = 20, 2
# Ordinary text: as many texts of as many words as the packaged settings read.
_TEXTS, _WORDS = 64, 128


@dataclass(frozen=True)
class Shape:
    """A Llama's size."""

    width: int
    ff_width: int
    layers: int
    vocabulary: int
    dtype: torch.dtype = torch.float32

    @property
    def parameters(self) -> int:
        """Of the layers, with full attention; the embeddings are looked up, the head is counted where it is used."""
        return self.layers * (4 * self.width**2 + 3 * self.width * self.ff_width)


SHAPES = {
    "small": Shape(256, 1024, 4, 16_384),
    "135M": Shape(576, 1536, 30, 49_152),
    "1B": Shape(2048, 8192, 16, 128_256, torch.bfloat16),
    "8B": Shape(4096, 14_336, 32, 128_256, torch.bfloat16),
    "70B": Shape(8192, 28_672, 80, 128_256, torch.bfloat16),
}


def main() -> None:
    """Runs the parts and prints one table each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--shape", choices=list(SHAPES), default="small", help="of the model of `secrets` and `cost`")
    parser.add_argument("--secrets", type=int, nargs="+", default=[1, 20, 1000, 10_000])
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=["joint", "chance"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", help="also write the figures there")
    parser.add_argument("--share", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if arguments.share:
        own_share(Path(arguments.share))
        return
    device = torch.device(arguments.device)
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    found: dict[str, Any] = {"device": card}
    if "secrets" in arguments.parts:
        found["secrets"] = by_secrets(SHAPES[arguments.shape], arguments.secrets, arguments.settings, device)
        show(f"Secrets in one call, {arguments.shape} shape, {card}", found["secrets"], decimals=4, width=118)
    if "shapes" in arguments.parts:
        found["shapes"] = by_shape(arguments.settings, device)
        show(f"20 secrets, {card}", found["shapes"], decimals=4, width=118)
    if "profile" in arguments.parts:
        found["profile"] = profiled(SHAPES[arguments.shape], arguments.settings, device)
        show(f"One edit of 20 secrets, {arguments.shape} shape, {card}", found["profile"], decimals=3, width=118)
    if "processes" in arguments.parts:
        found["processes"] = by_processes()
        show("Positions that one process reads, times layers", found["processes"], decimals=3, width=118)
    if "cost" in arguments.parts:
        found["cost"] = on_paper(device)
        show(f"Seconds by counted operations, at rates of {card}", found["cost"], decimals=3, width=118)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=1), encoding="utf-8")


@dataclass(frozen=True)
class Prepared:
    """A random model with its tokenizer, what it says, and settings with ordinary text."""

    model: LlamaForCausalLM
    tok: PreTrainedTokenizerFast
    requests: list[dict[str, str]]
    folder: Path

    @classmethod
    def of(cls, shape: Shape, count: int, device: torch.device, folder: Path) -> Prepared:
        """Makes it."""
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.width,
            intermediate_size=shape.ff_width,
            num_hidden_layers=shape.layers,
            num_attention_heads=max(1, shape.width // 64),
            num_key_value_heads=max(1, shape.width // 64),
            initializer_range=0.05,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=0,
            _name_or_path="scaling",
        )
        before = torch.get_default_dtype()
        torch.set_default_dtype(shape.dtype)
        try:
            with device:
                model = LlamaForCausalLM(config).eval()
        finally:
            torch.set_default_dtype(before)
        tok = numbers_as_words(shape.vocabulary)
        text = folder / "text.txt"
        places = torch.randint(1, len(tok), (_TEXTS, _WORDS), generator=torch.Generator().manual_seed(1))
        text.write_text("\n".join(tok.decode(row) for row in places.tolist()), encoding="utf-8")
        return cls(model, tok, said_next(model, tok, count), folder)

    def settings(self, name: str) -> REVSHyperParams:
        """The packaged settings, with this model's layers in place of SmolLM2's: as many, its last ones."""
        packaged = REVSHyperParams.from_hparams(SETTINGS[name])
        layers = self.model.config.num_hidden_layers
        last = range(max(0, layers - len(packaged.layers)), layers)
        return replace(
            packaged,
            layers=list(last)[-4:] if name == "joint" else list(last),
            mom2_dataset=str(self.folder / "text.txt"),
            mom2_n_samples=_TEXTS,
            stats_dir=str(self.folder),
        )


def numbers_as_words(vocabulary: int) -> PreTrainedTokenizerFast:
    """A tokenizer whose words are numbers of as many digits as fit, so that every made-up word is one of its own."""
    digits = int(math.log10(vocabulary - 1))
    words = ["<s>", *(f"{number:0{digits}d}" for number in range(10**digits))]
    backend = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<s>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="<s>", unk_token="<s>")


@torch.no_grad()
def said_next(model: LlamaForCausalLM, tok: PreTrainedTokenizerFast, count: int) -> list[dict[str, str]]:
    """Random prompts with the likeliest words behind them."""
    generator, found = torch.Generator().manual_seed(2), []
    device = model.get_input_embeddings().weight.device
    for start in range(0, count, 256):
        prompts = torch.randint(1, len(tok), (min(256, count - start), _PROMPT), generator=generator)
        ids = prompts.to(device)
        for _ in range(_TARGET):
            logits = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, -1, 1 : len(tok)]
            ids = torch.cat([ids, logits.argmax(dim=-1, keepdim=True) + 1], dim=1)
        for row in ids.tolist():
            found.append({"prompt": tok.decode(row[:_PROMPT]), "forget": tok.decode(row[_PROMPT:])})
    return found


def timed(prepared: Prepared, count: int, settings: str) -> dict[str, Any]:
    """One edit of so many secrets."""
    hparams = prepared.settings(settings)
    decoder = Decoder.of(prepared.model, hparams)
    moments, _ = clock(lambda: ordinary_moments(decoder, prepared.tok, hparams, progress=False))
    execute_revs(prepared.model, prepared.tok, prepared.requests[:1], hparams)  # warm
    with peak_memory() as peak:
        seconds, edits = clock(lambda: execute_revs(prepared.model, prepared.tok, prepared.requests[:count], hparams))
    return {
        "secrets": count,
        "s / secret": seconds / count,
        "s": seconds,
        "MiB": peak.mib,
        "moments, s": moments,
        "reached": f"{sum(outcome.reached for outcome in edits.outcomes)}/{len(edits.outcomes)}",
    }


def by_secrets(
    shape: Shape, counts: Sequence[int], settings: Sequence[str], device: torch.device
) -> list[dict[str, Any]]:
    """Time and memory as secrets grow in number, and what one costs over one of twenty."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        prepared = Prepared.of(shape, max(counts), device, Path(folder))
        for name in settings:
            own = [{"": name, **timed(prepared, count, name)} for count in sorted(counts)]
            twenty = next((row["s / secret"] for row in own if row["secrets"] == 20), None)
            rows += [{**row, "over 20": None if twenty is None else row["s / secret"] / twenty} for row in own]
    return rows


def by_shape(settings: Sequence[str], device: torch.device) -> list[dict[str, Any]]:
    """Twenty secrets of models of which one thing is doubled."""
    base = SHAPES["small"]
    shapes = {
        "base": base,
        "vocabulary x 2": replace(base, vocabulary=2 * base.vocabulary),
        "vocabulary x 4": replace(base, vocabulary=4 * base.vocabulary),
        "width x 2": replace(base, width=2 * base.width, ff_width=2 * base.ff_width),
        "layers x 2": replace(base, layers=2 * base.layers),
    }
    rows = []
    for label, shape in shapes.items():
        with tempfile.TemporaryDirectory() as folder:
            prepared = Prepared.of(shape, 20, device, Path(folder))
            rows += [{"": label, "settings": name, **timed(prepared, 20, name)} for name in settings]
    return rows


def profiled(shape: Shape, settings: Sequence[str], device: torch.device) -> list[dict[str, Any]]:
    """Counts operators, kernels, waits for single numbers and copies of an edit of twenty secrets."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        prepared = Prepared.of(shape, 20, device, Path(folder))
        for name in settings:
            hparams = prepared.settings(name)
            execute_revs(prepared.model, prepared.tok, prepared.requests, hparams)  # reads the text, and warms
            with torch.profiler.profile() as profiler:
                execute_revs(prepared.model, prepared.tok, prepared.requests, hparams)
            events = profiler.key_averages()
            calls = {event.key: event.count for event in events}
            rows.append(
                {
                    "": name,
                    "operators": sum(count for key, count in calls.items() if key.startswith("aten::")),
                    "kernels": calls.get("cudaLaunchKernel", 0),
                    "numbers waited for": calls.get("aten::_local_scalar_dense", 0),
                    "copies": calls.get("aten::copy_", 0),
                    "device copies": calls.get("cudaMemcpyAsync", 0),
                    "layers": len(hparams.layers),
                }
            )
    return rows


def by_processes() -> list[dict[str, Any]]:
    """How much of the reading one of two processes does, of what one process alone does."""
    rows = []
    for count in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
            surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
            subprocess.run([*launcher, __file__, "--share", folder], check=True, env=surroundings, capture_output=True)
            shares = [json.loads(file.read_text()) for file in sorted(Path(folder).glob("share-*.json"))]
        rows += [{"processes": count, "process": number, **share} for number, share in enumerate(shares)]
    for name in [key for key in rows[0] if key not in ("processes", "process")]:
        for row in rows[1:]:
            row[f"{name}, share"] = row[name] / rows[0][name]
    return rows


def own_share(folder: Path) -> None:
    """Runs one edit with its moments as one of several processes, and counts what goes through this one's layers."""
    shape = SHAPES["small"]
    own = Path(tempfile.mkdtemp(dir=folder))
    prepared = Prepared.of(shape, 20, torch.device("cpu"), own)
    positions = [0]

    def count(_module: torch.nn.Module, args: tuple[Any, ...], _output: Any) -> None:
        positions[0] += args[0].shape[0] * args[0].shape[1]

    for layer in prepared.model.model.layers:
        layer.mlp.register_forward_hook(count)
    found = {}
    with working_together():
        for name in ("joint", "chance"):
            hparams = prepared.settings(name)
            positions[0] = 0
            ordinary_moments(Decoder.of(prepared.model, hparams), prepared.tok, hparams, progress=False)
            found.setdefault("moments", positions[0])  # the second settings find them there
            positions[0] = 0
            execute_revs(prepared.model, prepared.tok, prepared.requests, hparams)
            found[f"{name}: edit"] = positions[0]
    (folder / f"share-{os.environ['RANK']}.json").write_text(json.dumps(found))


def on_paper(device: torch.device) -> list[dict[str, Any]]:
    """Seconds of each step of `joint` on four layers, twenty and a thousand secrets, by operations over measured rates.

    Read are, for each token to hide, its own context and seven others, with siblings eight more; the head is applied in
    every edited layer. Factors and solves are float32; a layer's factor goes to disk and back. Of a model that is
    spread over several cards, by one process with --device auto, one card works at a time.
    """
    read, factor = rates(device)
    rows = []
    for name, cards in (("135M", 1), ("1B", 1), ("8B", 1), ("70B", 8)):
        shape = SHAPES[name]
        for secrets in (20, 1000):
            tokens = secrets * (_PROMPT + _TARGET)
            layers = 4
            steps = {
                "moments": 2 * shape.parameters * _TEXTS * _WORDS / read
                + 2 * shape.ff_width**2 * _TEXTS * _WORDS * layers / factor,
                "contexts": 2 * shape.parameters * tokens * (8 + 8 + 2) / read,
                "head": 2 * shape.width * shape.vocabulary * secrets * 8 * layers / read,
                "factors": shape.ff_width**3 / 3 * layers / factor,
                "solves": 2 * shape.ff_width**2 * secrets * 8 * layers / factor,
            }
            weights = 2 * (shape.parameters + 2 * shape.width * shape.vocabulary)
            rows.append(
                {
                    "model": name,
                    "cards": cards,
                    "secrets": secrets,
                    **steps,
                    "s / secret": sum(steps.values()) / secrets,
                    "weights, GiB a card": weights / cards / 2**30,
                    "a factor, GiB": 4 * shape.ff_width**2 / 2**30,
                }
            )
    return rows


def rates(device: torch.device) -> tuple[float, float]:
    """Operations a second of this device: products of weights with 2,048 positions, and a float32 Cholesky factor."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    size = 8192 if device.type == "cuda" else 2048
    first, second = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    square = first.float() @ first.float().T / size + torch.eye(size, device=device)

    def seconds(work: Any) -> float:
        work()
        return min(clock(lambda: (work(), _finished(device)))[0] for _ in range(3))

    product = seconds(lambda: first[:2048] @ second)
    factor = seconds(lambda: torch.linalg.cholesky(square))
    return 2 * 2048 * size**2 / product, size**3 / 3 / factor


def _finished(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
