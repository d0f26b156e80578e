"""`evaluate`: is it gone under attack, and what did it cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from . import options
from .measurement import Measurement, module_names
from .requests_file import read_requests_file
from .session import check_goal_names, check_goals, print_json, print_table, session_of


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(evaluate)


def evaluate(
    *,
    context: typer.Context,
    file: options.Requests,
    model: options.Model,
    edits: Annotated[
        list[Path],
        typer.Option("--edit", "-e", metavar="EDIT", help="A saved edit: the model is measured without and with it."),
    ] = [],
    base: Annotated[
        str | None, typer.Option(help="The model before an edit that --model has in it already; measured first.")
    ] = None,
    never_learned: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="A model that never learned the secrets, such as the one that was fine-tuned: whatever is near its "
            "figures is forgotten, not hidden. It is measured as well, which takes as long again.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="JSON", help="The whole result, for revs-tars report.")
    ] = None,
    attack: Annotated[
        list[str],
        typer.Option(
            help="Only these attacks, each by an option of its own; all but relearning and enumeration, which are slow."
        ),
    ] = [],
    k: Annotated[int, typer.Option(help="From how many places on a token counts as hidden.")] = 100,
    tokens: Annotated[str, typer.Option(help="Which tokens of a secret count: all, or the two rarest.")] = "all",
    samples: Annotated[int, typer.Option(help="Sampled continuations for each secret.")] = 20,
    settings: options.Settings = None,
    text: options.Text = None,
    device: options.Device = None,
    dtype: options.Dtype = "auto",
    seed: options.Seed = None,
    chat: options.Chat = False,
    require: options.Require = [],
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    show_secrets: options.ShowSecrets = False,
    debug: options.Debug = False,
    secret: options.Secret = None,
) -> None:
    """Measure how well a model hides what FILE says, under attack, and what is left of the rest.

    Lines with retain are what must still be there. With --edit or --base the cost on ordinary text is measured too.
    Every figure in the table can be a goal for --require, which looks at the column "after"; with --never-learned what
    it is over that model's as well, as in "exposure, top, over never learned<=0.5".

    Example: revs-tars evaluate secrets.csv --model ./my-model --edit edit.safetensors -o result.json
    """
    session = session_of(context)
    _check_goals_are_metrics(require)
    output = None if output is None else options.free(output, overwrite, file, *edits)
    if edits and base is not None:
        raise InputError("--edit and --base are two ways to say what changed; leave one out.")
    requested = read_requests_file(file, session)
    from ..edits.edit_set import EditSet
    from ..evaluation import DEFAULT_ATTACKS
    from ..evaluation.metrics import DIRECTIONS
    from ..model.processes import writes
    from ..report.results import edit_content, result, write_result
    from .loading import load_model, ordinary_text

    needs = {"guidance": never_learned, "merging": never_learned, "in-context": requested.retain}
    needed = {"in-context": "lines with retain"}
    for name in attack:
        if name in needs and not needs[name]:
            raise InputError(f"--attack {name} needs {needed.get(name, '--never-learned MODEL')}.")
    options.check_attacks(attack)
    applied = [EditSet.load(edit) for edit in edits]
    chat = chat or any(edit.settings.get("chat_template") for edit in applied)
    first = load_model(base or model, device, dtype, progress=not quiet)
    asking = Measurement(
        requested,
        session,
        module_names(first, settings),
        {
            "attacks": attack or DEFAULT_ATTACKS,
            "k": k,
            "positions": tokens,
            "n_samples": samples,
            "seed": seed or 0,
            "chat_template": chat,
            "progress": not quiet,
        },
        None if never_learned is None else load_model(never_learned, device, dtype, progress=not quiet).model,
    )
    if not applied and base is None:
        asking.measure("after", first)
    else:
        reference = ordinary_text(first, text, seed or 0, progress=not quiet)
        asking.measure("before", first, reference)
        if base is not None:
            del first  # one model at a time in memory
            first = load_model(model, device, dtype, progress=not quiet)
        for edit in applied:
            edit.apply_beside(first.model)
        asking.measure("after", first, reference)
    figures = asking.reports["after"].summary
    control = asking.reports["after"].controls.get("never learned", {})
    reports = {moment: report.to_dict() for moment, report in asking.reports.items()}
    content = result(
        "evaluation",
        {
            "model": Path(first.name).name,
            "edits": [edit_content(edit) for edit in applied],
            "texts": asking.texts(),
            **reports,
        },
        redacted=not show_secrets,
    )
    if output is not None and writes():
        write_result(output, content)
    if json:
        print_json(reports)
    else:
        before = asking.reports.get("before")
        rows = [
            {
                "figure": name,
                **({"before": before.summary.get(name)} if before else {}),
                "after": value,
                **({"never learned": control.get(name)} if control else {}),
                "better": DIRECTIONS[name],
            }
            for name, value in figures.items()
        ]
        print_table(f"{len(requested.forget or requested.concepts)} to forget, k = {k}", rows)
        if output is not None:
            typer.echo(f"The result: {output}; revs-tars report {output} -o report.html draws it.")
    over = {f"{name}, over never learned": figures[name] - value for name, value in control.items() if name in figures}
    check_goals(require, options.as_goals({**figures, **over}))


def _check_goals_are_metrics(goals: list[str]) -> None:
    """Refuses goals for what nothing measures, before any work."""
    from ..evaluation.metrics import DIRECTIONS

    check_goal_names(goals, [*DIRECTIONS, *(f"{name}, over never learned" for name in DIRECTIONS)])
