"""What all benchmarks of the command line share: models that learn, the methods side by side, and the table."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import InputError, did_you_mean
from ..formatting import markdown_table, readable
from ..yaml_files import parsed_yaml
from .kept_rows import KeptRows, conditions_of, content_of, file_name, files_in
from .session import check_goals, print_json, print_table
from .taught_model import taught_model

if TYPE_CHECKING:
    from ..yardsticks import Benchmark
    from .loading import Loaded

# The checkout of open-unlearning whose methods are run beside ours.
CHECKOUT = "OPEN_UNLEARNING"
# The checkout of the published REVS code, which is a row as well.
REFERENCE = "REVS_REFERENCE"
_NUMBER = re.compile(r"[-+]?[0-9.]+([eE][-+]?[0-9]+)?")
# What stands between a method and its settings: "REVS:smollm2-135m-paper".
_WITH = ":"


@dataclass(frozen=True)
class BenchmarkOptions:
    """What every benchmark's command takes; see their help."""

    model: str
    learned: Path | None
    retain_only: Path | None
    epochs: int
    method: Sequence[str]
    learning_rate: Sequence[float]
    changes: Sequence[str]
    text: str | None
    device: str | None
    seed: int | None
    output: Path | None
    require: Sequence[str]
    json: bool
    markdown: bool
    quiet: bool

    @property
    def progress(self) -> Callable[[str], None] | None:
        """What tells how far it is; None where nothing is to be told."""
        return None if self.quiet else _say


def run_benchmark(
    benchmark: Benchmark | Callable[[Loaded], Benchmark], options: BenchmarkOptions, ours: str, title: str
) -> None:
    """Lets a model learn, every method forget, and prints a column a method.

    Args:
        benchmark: The benchmark, or what makes it of a model that knows by itself what is to be forgotten.
        options: What the command was given.
        ours: The method of this package that is run unless others are named.
        title: The heading of the table.
    """
    from ..model.processes import of_writer, writer_first, writes
    from ..report.results import result, write_result
    from ..yardsticks import RETAIN_ONLY, UNEDITED, Row, side_by_side, write_open_unlearning
    from .loading import checkpoint, load_model, ordinary_chunks

    names = _methods(options, ours)
    learned, retain_only = options.learned, options.retain_only
    if callable(benchmark):
        learned = learned or Path(checkpoint(options.model))
    elif (learned is None) != (retain_only is None):
        raise InputError("--learned and --retain-only belong together: two models of one base, taught alike.")
    elif learned is None or retain_only is None:
        teach = partial(
            taught_model,
            checkpoint(options.model),
            epochs=options.epochs,
            seed=options.seed or 0,
            device=options.device,
            say=options.progress,
        )
        with writer_first():
            learned, retain_only = teach("learned", benchmark.learned), teach("retain-only", benchmark.kept)
    loaded, never_learned = (
        load_model(str(place), options.device, "float32", progress=not options.quiet) if place is not None else None
        for place in (learned, retain_only)
    )
    assert loaded is not None
    if callable(benchmark):
        benchmark = benchmark(loaded)
    ways: dict[str, Callable[[Any], Any]] = {}
    for name in names:
        ways.update(_ways(name, loaded, benchmark, options))
    chunks = ordinary_chunks(loaded, options.text, options.seed or 0, progress=not options.quiet)
    rows, gold = [], None
    figures: dict[str, dict[str, float]] = {}
    kept, measured = None, {}
    # What a row alone depends on, beside what all do.
    settings = dict.fromkeys((RETAIN_ONLY, UNEDITED), "") | {name: _settings_of(name, options) for name in ways}
    if options.output is not None:
        places = [files_in(learned), files_in(retain_only)]
        conditions = conditions_of(title, benchmark, chunks, options.seed, options.device, *places)
        kept = KeptRows(options.output, conditions, Row.of_json)
        measured = of_writer(partial(kept.read, settings))
    for row in side_by_side(
        loaded.model,
        never_learned.model if never_learned is not None else None,
        loaded.tok,
        benchmark,
        ways,
        text=chunks,
        seed=options.seed or 0,
        measured=measured,
    ):
        rows.append(row)
        gold = row if row.name == RETAIN_ONLY else gold
        # As they were asked for: those that were kept came first.
        rows.sort(key=lambda done: list(settings).index(done.name))
        figures = {done.name: done.figures(gold, benchmark.compared) for done in rows}
        if options.output is not None and writes():
            if row.scores:
                write_open_unlearning(options.output / file_name(row.name), benchmark.name, row.scores)
            if kept is not None and row.name not in measured and row.error is None:
                kept.write(row.name, row, settings[row.name])
            content = {
                "benchmark": benchmark.name,
                "title": title,
                "model": Path(options.model).name,
                "forgotten": len(benchmark.split.forget),
                "retained": len(benchmark.split.retain),
                "rows": {name: values for name, values in figures.items() if values},
                "errors": {done.name: done.error for done in rows if done.error},
            }
            # After every row: what was measured is there whatever becomes of the next one.
            write_result(options.output / "benchmark.json", result("benchmark", content, redacted=True))
        if row.error:
            _say(f"{row.name}: failed ({row.error})")
        elif not options.quiet:
            _say(f"{row.name}: {'taken from ' + str(options.output) if row.name in measured else 'measured'}")
    _print(figures, title, options)
    check_goals(
        options.require, {f"{row}.{name}": value for row, found in figures.items() for name, value in found.items()}
    )


def _print(figures: Mapping[str, Mapping[str, float]], title: str, options: BenchmarkOptions) -> None:
    """Prints a column a row of the benchmark, as JSON, Markdown or a table."""
    metrics = list(dict.fromkeys(name for row in figures.values() for name in row))
    if options.json:
        print_json(figures)
    elif options.markdown:
        cells = [[name, *(readable(row.get(name)) for row in figures.values())] for name in metrics]
        typer.echo("\n".join(markdown_table(["", *figures], cells)))
    else:
        print_table(title, [{"": name, **{row: figures[row].get(name) for row in figures}} for name in metrics])


def _methods(options: BenchmarkOptions, ours: str) -> list[str]:
    """The methods to run, checked before anything is learned."""
    from ..host import load_host
    from ..host.editor_run import HOST_EDITORS
    from ..methods import METHODS, method_of
    from ..yardsticks import PUBLISHED_REVS, RIVALS, published_rival

    checkout = os.environ.get(CHECKOUT)
    known = [*METHODS, *RIVALS, *HOST_EDITORS, PUBLISHED_REVS]
    chosen = list(options.method) or [ours, *(RIVALS if checkout else ())]
    for written in chosen:
        name, _, settings = written.partition(_WITH)
        if name not in known:
            raise InputError(f'--method is "{name}"; it must be of {", ".join(known)}{did_you_mean(name, known)}')
        if name in RIVALS and not checkout:
            raise InputError(
                f"--method {name} is run from a checkout of open-unlearning: name its folder in {CHECKOUT}."
            )
        if name == PUBLISHED_REVS and not os.environ.get(REFERENCE):
            raise InputError(f"--method {name} is run from a checkout of its code: name its folder in {REFERENCE}.")
        if name in METHODS and settings:
            method_of(name).hyperparams.from_hparams(settings)
        if name in HOST_EDITORS:
            load_host()
        if name in RIVALS:
            published_rival(str(checkout), name, **_values(settings))
        if name in METHODS and method_of(name).execute is None:
            raise InputError(f"--method {name} runs in EasyEdit alone: see revs-tars compare.")
    return chosen


def _ways(
    written: str, loaded: Loaded, benchmark: Benchmark, options: BenchmarkOptions
) -> dict[str, Callable[[Any], Any]]:
    """What makes a model forget, by the name of its row."""
    from ..methods import METHODS, method_of, stats_folder
    from ..yardsticks import PUBLISHED_REVS, RIVALS, PublishedRevs, published_rival
    from .loading import settings_for

    name, _, settings = written.partition(_WITH)
    stats = stats_folder(loaded.model)
    if name in METHODS:
        hparams = settings_for(method_of(name), loaded, settings or None, changes=options.changes, seed=options.seed)
        if not any(change.startswith("stats_dir=") for change in options.changes):
            hparams = replace(hparams, stats_dir=str(stats))
        return {written: _Edited(loaded, benchmark, hparams)}
    if name in RIVALS:
        rival = published_rival(os.environ[CHECKOUT], name, **_values(settings))
        return {
            f"{written}, {rate:g}": partial(
                rival.unlearn,
                tok=loaded.tok,
                split=benchmark.split,
                learning_rate=rate,
                seed=options.seed or 0,
                progress=_epochs_of(name, options),
            )
            for rate in options.learning_rate
        }
    requests = [record.request() for record in benchmark.split.forget]
    if name == PUBLISHED_REVS:
        hparams = settings_for(method_of("REVS"), loaded, settings or "smollm2-135m-paper", seed=options.seed)
        return {written: PublishedRevs(Path(os.environ[REFERENCE]).expanduser(), loaded.tok, requests, hparams)}
    from ..host.editor_run import HostEditorRun

    return {
        written: HostEditorRun(
            name, loaded.tok, requests, settings=settings or None, stats_dir=stats, seed=options.seed or 0
        )
    }


def _values(settings: str) -> dict[str, Any]:
    """Settings of a rival: "beta=0.5,alpha=2"."""
    values = {}
    for item in filter(None, settings.split(",")):
        key, sign, value = item.partition("=")
        if not sign:
            raise InputError(f'--method: "{item}" is no setting of a rival; write KEY=VALUE, several with commas.')
        # YAML takes 1e-1 for a text.
        number = _NUMBER.fullmatch(value.strip())
        values[key.strip()] = float(value) if number else parsed_yaml(value, f'--method: the value of "{item}"')
    return values


def _epochs_of(name: str, options: BenchmarkOptions) -> Callable[[int, float], None] | None:
    say = options.progress
    return None if say is None else lambda epoch, loss: say(f"{name}: epoch {epoch + 1}, loss {loss:.3f}")


class _Edited:
    """A method of ours, which like its rivals is shown what to retain."""

    def __init__(self, loaded: Loaded, benchmark: Benchmark, hparams: Any) -> None:
        from ..requests.reading import join

        self._tok, self._hparams = loaded.tok, hparams
        self._requests: list[dict[str, Any]] = [record.request() for record in benchmark.split.forget]
        if hparams.spares_retained_texts:
            retained = [join(record.prompt, record.answer) for record in benchmark.split.retain]
            self._requests[0]["retain_texts"] = retained

    def prepare(self, model: Any) -> None:
        """Measures second moments of ordinary text, which are kept on disk."""
        from ..model.decoder import Decoder
        from ..moments.second_moments import ordinary_moments

        if self._hparams.reads_moments:
            ordinary_moments(Decoder.of(model, self._hparams), self._tok, self._hparams, progress=False)

    def __call__(self, model: Any) -> None:
        from ..methods import method_of

        execute = method_of(self._hparams.ALGORITHM).execute
        assert execute is not None
        execute(model, self._tok, self._requests, self._hparams).apply_beside(model)


def _settings_of(row: str, options: BenchmarkOptions) -> str:
    """What one row depends on: its name tells the method, its settings and rate; a YAML's content may change."""
    settings = Path(row.partition(_WITH)[2])
    content = content_of(settings) if settings.suffix else ""
    return repr((row, list(options.changes), content))


def _say(text: str) -> None:
    typer.echo(text, err=True)
