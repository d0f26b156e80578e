"""How time and memory grow: with secrets, vocabulary, width, layers and processes; what larger models would take.

Everything is on random models whose words are numbers, so nothing but this package is needed, on whichever device. What
is forgotten is what the model itself says next. The second moments of ordinary text are read first, and timed apart.
`shapes` and `secrets` measure; `processes` starts two processes and says what share of the reading each does; `cost`
counts operations and bytes of each step on paper and says what that comes to at the rates it measures here, or --rates;
`profile` counts what an edit starts on the device, and how often the processor waits for a number from there.

Run: python benchmarks/scaling.py [--parts shapes secrets profile processes cost] [--shape 8B] [--device cuda]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from _measuring import SETTINGS, clock
from _random_models import PROMPT, SHAPES, TARGET, TEXTS, WORDS, Prepared, Shape
from _tables import show

from revs_tars_plugin import execute_revs
from revs_tars_plugin.evaluation.peak_memory import peak_memory
from revs_tars_plugin.model.decoder import Decoder
from revs_tars_plugin.model.processes import working_together
from revs_tars_plugin.moments.second_moments import ordinary_moments

PARTS = ("shapes", "secrets", "profile", "processes", "cost")


def main() -> None:
    """Runs the parts and prints one table each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--shape", choices=list(SHAPES), default="small", help="of the model of `secrets` and `cost`")
    parser.add_argument("--secrets", type=int, nargs="+", default=[1, 20, 1000, 10_000])
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=["joint", "chance"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--rates",
        nargs=2,
        type=float,
        metavar=("PRODUCTS", "FACTORS"),
        help="of `cost`: operations a second in the model's dtype and in float32, where another device is meant",
    )
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
        found["cost"] = on_paper(*(arguments.rates or rates(device)))
        of = "{:.3g} and {:.3g} operations a second".format(*arguments.rates) if arguments.rates else f"rates of {card}"
        show(f"Seconds by counted operations, at {of}", found["cost"], decimals=3, width=118)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=1), encoding="utf-8")


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
        for row in rows:
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


def on_paper(read: float, factor: float) -> list[dict[str, Any]]:
    """Seconds of each step of `joint` on four layers, twenty and a thousand secrets, by operations over rates.

    Read are, for each token to hide, its own context and seven others, with siblings eight more; the head is applied in
    every edited layer. Factors and solves are float32; a layer's factor goes to disk and back. Of a model that is
    spread over several cards, by one process with --device auto, one card works at a time.

    Args:
        read: Operations a second of passes.
        factor: Of factors and solves.
    """
    rows = []
    for name, cards in (("135M", 1), ("1B", 1), ("8B", 1), ("70B", 8)):
        shape = SHAPES[name]
        for secrets in (20, 1000):
            tokens = secrets * (PROMPT + TARGET)
            layers = 4
            steps = {
                "moments": 2 * shape.parameters * TEXTS * WORDS / read
                + 2 * shape.ff_width**2 * TEXTS * WORDS * layers / factor,
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
