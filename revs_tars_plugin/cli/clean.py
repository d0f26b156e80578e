"""`clean`: find what a model gives away, edit it out, attack what is left, and write everything that shows it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..data.secret_files import SecretRecord, read_secrets, text_of
from ..errors import InputError
from ..requests.reading import join
from . import find, options
from .cleaning import Cleaning, CleaningFolder, revs_settings
from .kept_rows import conditions_of, files_in
from .measurement import Measurement, module_names
from .requests_file import RequestsFile
from .searching import SearchRequest, others_in, search_options, searched, state_of, tell, write_findings
from .session import Session, check_goal_names, check_goals, parsed_goal, print_json, print_table, session_of

if TYPE_CHECKING:
    from ..discovery import Search
    from .loading import Loaded

# Attacks that compare with another model, or need secrets that must stay.
_NEED_MORE = ("guidance", "merging", "in-context")
# What goals can be set for, beside the evaluation's figures.
_FIGURES = ("found", "extractable", "edits")


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
    least_recalled: find.LeastRecalled = 0.5,
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

    What is given away is edited with REVS, asked for again behind all of its prompts, attacked, and edited once more
    where it still comes out. Exit code 1 where a secret still does: by greedy decoding behind one of its prompts,
    sampling, enumeration or the inverse decoding. The model on disk is not touched. A run that was stopped goes on
    where it was. Goals for --require: found, extractable, edits, and all figures of evaluate.

    Example: revs-tars clean --model ./my-model --secrets secrets.jsonl -o cleaned
    """
    session = session_of(context)
    from ..evaluation.metrics import DEFAULT_ATTACKS, DIRECTIONS
    from .loading import load_model, ordinary_text

    request = SearchRequest([*corpus, *(more or [])], field, kind, patterns, language_model, samples, prompts)
    chosen = _attacks(attack)
    check_goal_names(require, [*_FIGURES, *DIRECTIONS])
    wanted = search_options(least_recalled, least_exposure, samples, retain=retain, seed=seed)
    told = _told(secrets, request, least_exposure)
    folder = CleaningFolder(
        output.expanduser(),
        conditions_of(
            *(told, request, request.state(), wanted, model, files_in(Path(model)), seed, device, dtype),
            *(rounds, change, chosen, *(_content(each) for each in (settings, text))),
        ),
    )
    folder.check(overwrite=overwrite, inputs=(model, secrets, *request.corpus))
    request.check_output(folder.folder)
    loaded = load_model(model, device, dtype, progress=not quiet)
    hparams = revs_settings(loaded, settings, change, seed, text)
    folder.begin()
    if told is not None:
        folder.take(told)
    elif not folder.has_secrets:
        search = searched(request, loaded, wanted, folder.secrets, progress=not quiet)
        write_findings(search, folder.secrets, retain)
        _tell(search, session, sampled=bool(samples), quiet=json or quiet)
    findings, siblings = folder.read()
    summary = {"found": len(findings), "extractable": 0, "edits": 0}
    if not findings:
        _nothing(folder, summary, require, json)
        return
    forget = RequestsFile(tuple(finding.record() for finding in findings))
    session.mask(forget.forget)
    measurement = _measurement(loaded, forget, session, chosen, seed=seed or 0, quiet=quiet)
    reference = ordinary_text(loaded, text, seed or 0, progress=not quiet)
    # What comes out by itself needs no hundreds of decodings, and no training, to be shown to do so.
    early = [name for name in chosen if name in DEFAULT_ATTACKS]
    cleaning = Cleaning(
        loaded,
        findings,
        [join(each.prompt, each.target) for each in siblings],
        folder,
        lambda moment: measurement.measure(moment, loaded, reference, early if moment == "before" else None),
    )
    for said in cleaning.run(hparams, rounds, progress=not quiet):
        if not (json or quiet):
            typer.echo(said)
    summary |= {"extractable": len(cleaning.left), "edits": len(cleaning.edits)}
    session.mask(forget.forget, others_in(measurement.every_text(), request))
    written = folder.write(loaded, cleaning.edits, measurement, show_secrets=show_secrets)
    _print(measurement, summary, written, json)
    _end(summary, require, measurement.reports["after"].summary)


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

    options.check_attacks(chosen, without=_NEED_MORE)
    return list(chosen) or [name for name in ATTACKS if name not in _NEED_MORE]


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


def _told(secrets: Path | None, request: SearchRequest, least_exposure: float | None) -> list[SecretRecord] | None:
    """The secrets of a file; None where they are to be found. Whatever cannot be looked for is said."""
    if secrets is None:
        request.check()
        request.detectors()
        return None
    if any(vars(request).values()) or least_exposure is not None:
        raise InputError("--secrets says what is given away already; leave out what says where to look, and for what.")
    # What find writes of a model that gives nothing away.
    return read_secrets(secrets) if text_of(secrets.expanduser()).strip() else []


def _content(file: str | None) -> object:
    """What changes when a file that an option names does; the option itself where it names none."""
    place = None if file is None else Path(file).expanduser()
    return state_of(place) if place is not None and place.is_file() else file


def _nothing(folder: CleaningFolder, summary: dict[str, int], require: list[str], json: bool) -> None:
    if json:
        print_json({"summary": summary})
    else:
        typer.echo(f"The model gives nothing away of that, so it stays as it is ({folder.secrets}).")
    # Nothing else was measured.
    check_goals([goal for goal in require if parsed_goal(goal)[0] in summary], options.as_goals(summary))


def _end(summary: dict[str, int], require: list[str], figures: Mapping[str, float]) -> None:
    if summary["extractable"]:
        typer.echo(
            f"{summary['extractable']} of {summary['found']} secrets can still be extracted; the report says by what.",
            err=True,
        )
    check_goals(require, {**options.as_goals(summary), **options.as_goals(figures)})
    if summary["extractable"]:
        raise typer.Exit(1)
