"""Editors side by side: the same secrets of the same model, restored in between, scored alike."""

from __future__ import annotations

import contextlib
import io
import logging
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..data.secret_files import SecretRecord
from ..errors import InputError, did_you_mean
from ..evaluation import RESISTANCE_ATTACKS, OrdinaryText, evaluate_unlearning
from ..hyperparams import UnlearnHyperParams
from ..model.decoder import Decoder
from ..model.module_names import ModuleNames
from ..model.processes import shared_in_turn
from ..model.tensors import fingerprint
from ..moments.second_moments import ordinary_moments
from . import unlearn_editor
from .easyedit import Host
from .editors import EDITORS, USUAL, editor_of
from .host_methods import module_names
from .registry import register
from .settings import load_settings

NO_EDIT = "no edit"


@dataclass(frozen=True)
class ComparisonRow:
    """One editor.

    Attributes:
        method: Its `alg_name`, or "no edit".
        figures: The summary of `evaluate_unlearning`; empty where it failed.
        seconds: What the edit alone took.
        peak_mib: The most memory it held beyond what was held before.
        n_changed: How many numbers of the model it changed.
        error: Why it failed, in one line.
    """

    method: str
    figures: Mapping[str, float]
    seconds: float | None = None
    peak_mib: float | None = None
    n_changed: int | None = None
    error: str | None = None

    @property
    def memory(self) -> bool:
        """Whether the editor keeps what it writes beside the weights."""
        return editor_of(self.method).memory

    def to_dict(self) -> dict[str, Any]:
        """Returns a plain dictionary, fit for JSON."""
        return {**asdict(self), "memory": self.memory}


def compare(
    model_name: str | Path,
    forget: Sequence[SecretRecord],
    *,
    retain: Sequence[SecretRecord] = (),
    corpus: Sequence[str] = (),
    methods: Sequence[str] = USUAL,
    settings: Mapping[str, str | Path] | None = None,
    replacement: str | None = None,
    stats_dir: str | Path | None = None,
    attacks: Sequence[str] = ("exposure", *RESISTANCE_ATTACKS, "paraphrase"),
    k: int = 100,
    seed: int = 0,
    device: int | str | None = None,
    verbose: bool = False,
    progress: bool = False,
    measured: Mapping[str, ComparisonRow] | None = None,
    on_row: Callable[[ComparisonRow], None] = lambda row: None,
) -> list[ComparisonRow]:
    """Lets editors forget the same secrets of the same model, one after another, and measures each.

    Args:
        model_name: A checkpoint folder or a hub name, as the host takes it.
        forget: The secrets; each needs its subject for ROME and MEMIT.
        retain: Secrets that must still be there afterwards; no method is shown them.
        corpus: Ordinary texts.
        methods: Names of algorithms. One of `EDITORS` that this generation of the host lacks gets a row that says so.
        settings: For some of them a YAML; by default the packaged ones for the demo model.
        replacement: What the host's own editors write in place of a secret; see `UnlearnEditor.unlearn`.
        stats_dir: Where second moments lie; by default what the YAMLs say.
        attacks: See `evaluate_unlearning`.
        k: From how many places on a token counts as hidden.
        seed: Seed of the methods, of the host's random numbers, and of the evaluation.
        device: Where the host puts the model: "cpu" or a CUDA device's number; by default what the YAMLs say.
        verbose: Let the host print.
        progress: Show a progress bar.
        measured: Rows by method that are there already.
        on_row: Is told every other row as soon as it is measured.

    Returns:
        A row for the model as it is, and one for each method; where one fails, its row says why.

    Raises:
        InputError: When an argument cannot be used.
    """
    if not forget:
        raise InputError("forget is empty; give at least one secret.")
    common = {"model_name": str(model_name), "seed": seed}
    if stats_dir is not None:
        common["stats_dir"] = str(stats_dir)
    if device is not None:
        common["device"] = device
    host = register()
    check_methods(host, methods)
    asked = dict.fromkeys(methods)
    absent = [name for name in asked if name in EDITORS and name not in host.algorithms]
    names = [name for name in asked if name not in absent]
    hparams = {name: _settings(host, name, settings or {}, common) for name in names}
    first = next(iter(hparams.values()), None)
    if first is None:
        raise InputError("methods names none that this EasyEdit has; name at least one.")
    with _quiet(not verbose):
        editor = unlearn_editor.UnlearnEditor.from_hparams(first)
    for method in hparams.values():
        if isinstance(method, UnlearnHyperParams) and method.reads_moments:
            # Of all layers, so that methods that look at different ones share the text and the pass.
            ordinary_moments(Decoder(editor.model, ModuleNames.of(method)), editor.tok, method)
            break
    text = OrdinaryText.of(editor.model, editor.tok, corpus) if corpus else None
    evaluation: dict[str, Any] = {"retain": list(retain), "attacks": attacks, "k": k, "seed": seed}
    before = evaluate_unlearning(
        editor.model,
        editor.tok,
        forget,
        names=module_names(editor.model, first),
        positions="all",
        reference=text,
        progress=progress,
        **evaluation,
    )
    measured = measured or {}
    rows = [ComparisonRow(NO_EDIT, before.summary), *(measured[name] for name in hparams if name in measured)]
    expected = _state(editor.model)

    def edited(name: str) -> ComparisonRow:
        editor.hparams, editor.alg_name = hparams[name], name
        editor.apply_algo = host.algorithms[name]
        with _quiet(not verbose), torch.random.fork_rng():
            torch.manual_seed(seed)
            row = _row(editor, forget, text, replacement, evaluation)
        if _state(editor.model) != expected:
            raise RuntimeError(f"{name} left the model changed; the rows after it would not be comparable.")
        return row

    missing_rows = [name for name in hparams if name not in measured]
    for row in tqdm(shared_in_turn(edited, missing_rows), "editors", len(missing_rows), disable=not progress):
        on_row(row)
        rows.append(row)
    other = "branch main" if host.generation == "release" else "the release"
    missing = f"EasyEdit's {host.generation} does not have it; {other} does"
    rows += [ComparisonRow(name, {}, error=missing) for name in absent]
    return sorted(rows, key=lambda row: (row.memory, _place(row.method)))


def check_methods(host: Host, methods: Sequence[str]) -> None:
    """Refuses a name that neither generation of the host knows.

    Raises:
        InputError: When there is such a one.
    """
    for name in methods:
        if name not in host.algorithms and name not in EDITORS:
            near = did_you_mean(name, [*host.algorithms, *EDITORS])
            raise InputError(f'methods names "{name}", which this EasyEdit does not know{near}')


def _place(name: str) -> int:
    """Where a row stands in the table: as in `EDITORS`, what is not edited first, others last."""
    return [NO_EDIT, *EDITORS, name].index(name)


def _row(
    editor: Any,
    forget: Sequence[SecretRecord],
    text: OrdinaryText | None,
    replacement: str | None,
    evaluation: Mapping[str, Any],
) -> ComparisonRow:
    subjects = [record.subject for record in forget]
    rephrased = [record.rephrase_prompt for record in forget]
    try:
        result = editor.unlearn(
            [record.prompt for record in forget],
            [record.target for record in forget],
            subjects=subjects if all(subjects) else None,
            rephrase_prompts=rephrased if all(rephrased) else None,
            corpus=text,
            replacement=replacement,
            keep=False,
            **evaluation,
        )
    except Exception as error:  # whatever another's editor raises is a row of the table
        last = traceback.extract_tb(error.__traceback__)[-1]
        reason = " ".join(str(error).split()) or type(error).__name__
        return ComparisonRow(
            editor.alg_name,
            {},
            error=f"{type(error).__name__}: {reason[:200]} ({Path(last.filename).name}:{last.lineno})",
        )
    return ComparisonRow(editor.alg_name, result.summary, result.seconds, result.peak_mib, result.n_changed)


def _settings(host: Host, name: str, chosen: Mapping[str, str | Path], common: Mapping[str, Any]) -> Any:
    """A method's settings from its YAML, with what is the same for all in place of what stands there."""
    hparams = load_settings(host, name, chosen.get(name) or editor_of(name).settings)
    for key, value in common.items():
        if hasattr(hparams, key):
            setattr(hparams, key, value)
    return hparams


def _state(model: torch.nn.Module) -> list[str]:
    return [fingerprint(parameter) for parameter in model.parameters()]


@contextlib.contextmanager
def _quiet(wanted: bool) -> Iterator[None]:
    """The host prints every step of every search; warnings are logged all the same."""
    if not wanted:
        yield
        return
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
