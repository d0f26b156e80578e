"""`clean`: find what a model gives away, edit it out, attack what is left, and write everything that shows it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..data.secret_files import read_secrets
from ..errors import InputError, did_you_mean
from ..requests.reading import join
from . import find, options
from .benchmark_rows import conditions_of, files_in
from .cleaning import Cleaning, CleaningFolder
from .measurement import Measurement, module_names
from .requests_file import RequestsFile
from .searching import SearchRequest, searched, tell, write_findings
from .session import Session, check_goals, print_json, print_table, session_of

if TYPE_CHECKING:
    from ..discovery import Search
    from .loading import Loaded

# Attacks that compare with another model, or need secrets that must stay.
_NEED_MORE = ("guidance", "merging", "in-context")
# What comes out whole, of each secret.
_COMES_OUT = ("still generated", "paraphrase", "sampled", "enumeration", "inverse greedy")


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(clean)


def clean(
    *,
    context: typer.Context,
    more: find.More = None,
    model: options.Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Secrets, edits, model, result, report and card.")
    ],
    secrets: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What find wrote, or secrets as edit takes them, in place of a corpus."),
    ] = None,
    corpus: find.Corpus = [],
    field: find.Fields = [],
    kind: find.Kinds = [],
    patterns: find.OwnPatterns = None,
    language_model: find.LanguageModel = None,
    samples: find.Samples = 0,
    prompts: find.Prompts = None,
    least_exposure: find.LeastExposure = None,
    retain: find.Retain = 4,
    rounds: Annotated[int, typer.Option(min=1, max=10, help="So many edits at most, each of what the last left.")] = 3,
    settings: options.Settings = None,
    change: options.Changes = [],
    attack: Annotated[
        list[str],
        typer.Option(help="Only these attacks, each by an option of its own; by default all that need no other model."),
    ] = [],
    text: options.Text = None,
    device: options.Device = None,
    dtype: options.Dtype = "auto",
    seed: options.Seed = None,
    require: options.Require = [],
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    show_secrets: options.ShowSecrets = False,
    debug: options.Debug = False,
) -> None:
    """Find the secrets that a model gives away, or take those that were found, edit them out, and attack what is left.

    What is given away is edited with REVS, asked for again behind all of its prompts, and edited once more where it
    still comes out. Exit code 1 where a secret can still be extracted by an attack. The model on disk is not touched. A
    run that was stopped goes on where it was. Goals for --require: found, extractable, and all figures of evaluate.

    Example: revs-tars clean --model ./my-model --secrets secrets.jsonl -o cleaned
    """
    session = session_of(context)
    request = SearchRequest([*corpus, *(more or [])], field, kind, patterns, language_model, samples, prompts)
    if secrets is None:
        request.check()
    elif request.corpus or samples:
        raise InputError("--secrets says what is given away already; leave --corpus and --samples out.")
    attacks = _attacks(attack)
    from ..discovery import SearchOptions
    from .loading import load_model

    floor = least_exposure if least_exposure is not None else 4.0 if samples else 0.0
    asked = SearchOptions(least_exposure=floor, retain=retain, seed=seed or 0)
    told = None if secrets is None else read_secrets(secrets)
    if told is None:
        request.detectors()
    inputs = [told, files_in(Path(model)) if Path(model).is_dir() else model, request.state(), repr(request), asked]
    conditions = conditions_of(*inputs, rounds, settings, change, attacks, text, device, dtype)
    folder = CleaningFolder(output.expanduser(), conditions).free(
        overwrite=overwrite, inputs=(model, secrets, *request.corpus)
    )
    loaded = load_model(model, device, dtype, progress=not quiet)
    if told is not None:
        folder.take(told)
    elif not folder.has_secrets:
        search = searched(request, loaded, asked, folder.secrets, progress=not quiet)
        write_findings(search, folder.secrets, retain)
        _tell(search, session, sampled=bool(samples), quiet=json or quiet)
    findings, siblings = folder.read()
    if not findings:
        _nothing(folder, json)
        return
    forget = RequestsFile(tuple(finding.record() for finding in findings))
    session.mask(forget.forget)
    cleaning = Cleaning.of(loaded, findings, [join(each.prompt, each.target) for each in siblings], folder)
    hparams = cleaning.hparams(settings, change, seed, text)
    measurement = _measurement(loaded, forget, session, attacks, seed=seed or 0, quiet=quiet)
    reference = _ordinary_text(loaded, text, seed or 0, quiet)
    measurement.measure("before", loaded, reference)
    for left in cleaning.rounds(hparams, rounds, progress=not quiet):
        if not (json or quiet):
            typer.echo(f"Edited: {len(findings) - left} of {len(findings)} are no longer given away.")
    measurement.measure("after", loaded, reference)
    figures = measurement.reports["after"].summary
    extractable = [
        any(row.get(name) for name in _COMES_OUT) or finding in cleaning.left
        for row, finding in zip(measurement.reports["after"].rows, findings, strict=True)
    ]
    written = folder.write(loaded, cleaning.edits, measurement, show_secrets=show_secrets)
    summary = {"found": len(findings), "extractable": sum(extractable), "edits": len(cleaning.edits)}
    _print(measurement, summary, written, json)
    _end(sum(extractable), len(findings), require, {**options.as_goals(summary), **options.as_goals(figures)})


def _tell(search: Search, session: Session, *, sampled: bool, quiet: bool) -> None:
    if not quiet:
        tell(search, session, sampled)


def _print(measurement: Measurement, summary: dict[str, int], written: dict[str, str], json: bool) -> None:
    after = measurement.reports["after"].summary
    if json:
        print_json({"summary": summary, "after": after, **written})
        return
    before = measurement.reports["before"].summary
    rows = [{"figure": name, "before": before.get(name), "after": value} for name, value in after.items()]
    print_table(f"{summary['found']} secrets", rows)
    for name, place in written.items():
        typer.echo(f"{name}: {place}")


def _attacks(chosen: list[str]) -> list[str]:
    """All attacks that need no other model, or those that were chosen."""
    from ..evaluation import ATTACKS

    possible = [name for name in ATTACKS if name not in _NEED_MORE]
    for name in chosen:
        if name not in possible:
            raise InputError(f'--attack is "{name}"; it must be of {", ".join(possible)}{did_you_mean(name, possible)}')
    return list(chosen) or possible


def _measurement(
    loaded: Loaded, forget: RequestsFile, session: Session, attacks: list[str], *, seed: int, quiet: bool
) -> Measurement:
    arguments: dict[str, Any] = {
        "attacks": attacks,
        "positions": "all",
        "seed": seed,
        "chat_template": False,
        "progress": not quiet,
    }
    return Measurement(forget, session, module_names(loaded, None), arguments)


def _ordinary_text(loaded: Loaded, text: str | None, seed: int, quiet: bool) -> Any:
    from ..evaluation import OrdinaryText
    from .loading import ordinary_chunks

    return OrdinaryText.of(loaded.model, loaded.tok, ordinary_chunks(loaded, text, seed, progress=not quiet))


def _nothing(folder: CleaningFolder, json: bool) -> None:
    if json:
        print_json({"summary": {"found": 0, "extractable": 0, "edits": 0}})
    else:
        typer.echo(f"The model gives nothing away of what was looked for, so it stays as it is ({folder.secrets}).")


def _end(extractable: int, found: int, require: list[str], figures: dict[str, float]) -> None:
    check_goals(require, figures)
    if extractable:
        typer.echo(f"{extractable} of {found} secrets can still be extracted; the report says by what.", err=True)
        raise typer.Exit(1)
