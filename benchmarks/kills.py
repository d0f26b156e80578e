"""Does a command that was killed at a random moment, and started again, give what it gives undisturbed?

Every command that takes long runs once undisturbed on a small random model. Then it is killed (SIGKILL, with all of its
processes) at random moments, started again until it ends by itself, and its results are compared: tensors by the bit,
figures but for times and memory. With --processes 2 it runs under torch's launcher, where sums may differ by rounding
(1e-4 of a tensor's entries, 1e-3 of a figure). `compare` is run where EasyEdit is installed, or named by EASYEDIT_HOME.

Run: python benchmarks/kills.py [--kills 20] [--processes 1] [--json FILE]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from _random_models import SHAPES, Prepared
from _tables import show
from safetensors.torch import load_file

_SECRETS = 40
_TIMES = ("seconds", "peak_mib")
# The commands here are over before anything would be kept; so everything is kept at once.
_EAGER = """
import sys
from revs_tars_plugin.cli import main
from revs_tars_plugin.moments import partial_sums
from revs_tars_plugin.revs import covariance, kept_steps
covariance._TOGETHER = 8
kept_steps._EVERY = partial_sums._EVERY = partial_sums._AT_LEAST = -1.0
sys.exit(main())
"""


@dataclass(frozen=True)
class Command:
    """A command, where it writes, and what it wrote there."""

    name: str
    arguments: Callable[[Path], list[str]]
    results: Callable[[Path], dict[str, Any]]


def main() -> None:
    """Kills and compares; prints a line a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--commands", nargs="+", help="only these")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="also write the figures there")
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        commands = [each for each in prepared(Path(folder)) if each.name in (arguments.commands or each.name)]
        script = Path(folder) / "eager.py"
        script.write_text(_EAGER, encoding="utf-8")
        launcher = [sys.executable, str(script)]
        if arguments.processes > 1:
            launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(arguments.processes)]
            launcher = [sys.executable, *launch, str(script)]
        rows = []
        for number, command in enumerate(commands):
            kills = arguments.kills // len(commands) + (number < arguments.kills % len(commands))
            rows.append(killed(command, launcher, Path(folder), kills, generator))
    show(f"Killed and started again, {arguments.processes} process(es)", rows, decimals=2, width=118)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")


def killed(command: Command, launcher: list[str], folder: Path, kills: int, generator: random.Random) -> dict[str, Any]:
    """Kills one command so many times, in as many runs as that takes."""
    whole = folder / f"{command.name}-whole"
    start = time.perf_counter()
    assert finished([*launcher, *command.arguments(whole)], None)
    takes = time.perf_counter() - start
    expected, left, same, runs, after, odd = command.results(whole), kills, 0, 0, [], 0
    while left:
        place = folder / f"{command.name}-{runs}"
        runs += 1
        # Two kills a run, where so many are left: the second one meets what the first one left behind.
        for _ in range(min(2, left)):
            if finished([*launcher, *command.arguments(place)], generator.uniform(0.3, 1.0) * takes):
                break
            left -= 1
        if not is_done(command, place):
            start = time.perf_counter()
            assert finished([*launcher, *command.arguments(place)], None)
            after.append(time.perf_counter() - start)
        same += equal(expected, command.results(place), exact="torch.distributed.run" not in launcher)
        odd += sum("unfinished" in path.name or path.name.endswith(".sums.safetensors") for path in place.rglob("*"))
        shutil.rmtree(place)
    return {
        "": command.name,
        "s, undisturbed": takes,
        "kills": kills,
        "runs": runs,
        "same result": f"{same}/{runs}",
        "s, the last start": sum(after) / len(after) if after else 0.0,
        "left behind": odd,
    }


def finished(command: list[str], seconds: float | None) -> bool:
    """Runs a command; after so many seconds all of its processes are killed. Says whether it ended by itself, well."""
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, env=surroundings, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            _, said = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            for group in {os.getpgid(child) for child in (process.pid, *children_of(process.pid))}:
                os.killpg(group, signal.SIGKILL)
            process.communicate()
            return False
    if process.returncode:
        raise RuntimeError(said[-2000:])
    return True


def children_of(pid: int) -> list[int]:
    """The processes that one started: those of a launcher have groups of their own."""
    found = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in found.read_text().split()] if found.is_file() else []


def is_done(command: Command, place: Path) -> bool:
    """Whether the results are all there."""
    try:
        return bool(command.results(place))
    except (OSError, KeyError, ValueError):
        return False


def equal(expected: Any, found: Any, *, exact: bool) -> bool:
    """Whether two results are the same: to the bit, or up to rounding."""
    if isinstance(expected, dict):
        same = (equal(value, found[name], exact=exact) for name, value in expected.items() if name in found)
        return expected.keys() == found.keys() and all(same)
    if isinstance(expected, torch.Tensor):
        if exact:
            return torch.equal(expected, found)
        return torch.allclose(expected.double(), found.double(), rtol=1e-4, atol=1e-5)
    return expected == found if exact else abs(expected - found) <= 1e-3 * max(1.0, abs(expected))


def prepared(folder: Path) -> list[Command]:
    """A checkpoint, secrets and text, and the commands that read them."""
    made = Prepared.of(SHAPES["small"], _SECRETS, torch.device("cpu"), folder)
    model = folder / "llama-scaling"
    made.model.save_pretrained(model)
    made.tok.save_pretrained(model)
    secrets, numbers, text = folder / "secrets.csv", folder / "ssn.csv", folder / "text.txt"
    with secrets.open("w", newline="", encoding="utf-8") as file:
        rows = ((request["prompt"], request["forget"]) for request in made.requests)
        csv.writer(file).writerows([("prompt", "target"), *rows])
    with numbers.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("prompt", "sentence", "ssn", "date", "name"))
        for person in range(8):
            for wording in range(3):
                prompt, number = (
                    f"{7000 + wording} {3000 + person} {7100 + wording}",
                    f"{5000 + person} {6000 + person}",
                )
                writer.writerow((prompt, f"{prompt} {number} 8000", number, "1", str(3000 + person)))
    evaluated = folder / "of-evaluate" / "edit.safetensors"

    def settings(place: Path) -> Path:
        file = place / "settings.yaml"
        if not file.is_file():
            place.mkdir(exist_ok=True)
            content = {**made.settings("joint").to_dict(), "stats_dir": str(place / "stats"), "device": "cpu"}
            file.write_text(yaml.safe_dump(content), encoding="utf-8")
        return file

    def common(place: Path) -> list[str]:
        return ["-m", str(model), "--quiet", "-s", str(settings(place))]

    def edit(place: Path) -> list[str]:
        return ["edit", str(secrets), *common(place), "-o", str(place / "edit.safetensors"), "--overwrite"]

    def evaluate(place: Path) -> list[str]:
        if not evaluated.is_file():
            assert finished([sys.executable, "-m", "revs_tars_plugin", *edit(evaluated.parent)], None)
        out = ["-o", str(place / "result.json"), "--overwrite", "--samples", "4", "--text", str(text)]
        attacks = ["--attack", "exposure", "--attack", "sampling"]
        return ["evaluate", str(secrets), *common(place), "--edit", str(evaluated), *out, *attacks]

    def bench(place: Path) -> list[str]:
        models = ["--learned", str(model), "--retain-only", str(model), "--quiet", "--text", str(text)]
        methods = ["--method", f"REVS:{settings(folder / 'of-bench')}", "--method", "FT-L-delete"]
        return ["bench", "ssn", str(numbers), *models, *methods, "-o", str(place / "out")]

    def compare(place: Path) -> list[str]:
        # Of a model that is called so the host takes whatever tokenizer is there.
        named = folder / "baichuan-scaling"
        if not named.exists():
            named.symlink_to(model)
        own = folder / "of-compare"
        of_methods = {"REVS": settings(own), "FT-L-delete": own / "FT-L-delete.yaml"}
        names = {
            key: value for key, value in made.settings("joint").to_dict().items() if key.endswith(("_tmp", "_module"))
        }
        content = {"alg_name": "FT-L-delete", "model_name": "scaling", "layers": [1], "device": "cpu", **names}
        of_methods["FT-L-delete"].write_text(yaml.safe_dump(content), encoding="utf-8")
        methods = [word for name, file in of_methods.items() for word in ("--method", name, "-s", f"{name}={file}")]
        place.mkdir(exist_ok=True)
        out = ["-o", str(place / "comparison.json"), "--overwrite", "--text", str(text), "--attack", "exposure"]
        return ["compare", str(secrets), "-m", str(named), "--quiet", *methods, *out]

    installed = "EASYEDIT_HOME" in os.environ or find_spec("easyeditor") is not None
    through_host = Command("compare", compare, lambda place: _compared(_json(place / "comparison.json")))
    return [
        *([through_host] if installed else []),
        Command("stats", lambda place: ["stats", *common(place)], _moments),
        Command("edit", edit, lambda place: load_file(place / "edit.safetensors")),
        Command("evaluate", evaluate, lambda place: _json(place / "result.json")["after"]["summary"]),
        Command("bench", bench, lambda place: _rows(_json(place / "out" / "benchmark.json"))),
    ]


def _moments(place: Path) -> dict[str, Any]:
    files = sorted((place / "stats").rglob("*.npz"))
    if len(files) < SHAPES["small"].layers:
        raise FileNotFoundError("second moments")
    return {file.name: torch.from_numpy(np.load(file)["mom2.mom2"]) for file in files}


def _rows(content: dict[str, Any]) -> dict[str, Any]:
    rows = content["rows"]
    if len(rows) < 4:
        raise KeyError("rows")
    return {name: {key: value for key, value in row.items() if key not in _TIMES} for name, row in rows.items()}


def _compared(content: dict[str, Any]) -> dict[str, Any]:
    if any(row["error"] for row in content["rows"]):
        raise RuntimeError(str(content["rows"]))
    return {row["method"]: row["figures"] for row in content["rows"]}


def _json(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


if __name__ == "__main__":
    main()
