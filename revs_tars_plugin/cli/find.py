"""`find`: from a model and a corpus, or a model alone, to the secrets that it gives away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from . import options
from .searching import SearchRequest, search_options, searched, tell, write_findings
from .session import check_goal_names, check_goals, print_json, session_of

More = Annotated[list[str] | None, typer.Argument(metavar="[CORPUS]...", help="More of it.")]
Corpus = Annotated[
    list[str],
    typer.Option(
        metavar="FILE...",
        help="What the model may have learned: text, JSON lines, CSV; folders of them; or data sets of the hub as "
        "hf://owner/name.",
    ),
]
Fields = Annotated[
    list[str],
    typer.Option(
        "--field",
        help="The field of a record that is its text; several are joined by a space. By default text, prompt with "
        "completion and the like, else all that is text.",
    ),
]
Kinds = Annotated[
    list[str],
    typer.Option("--kind", help="Only this kind, as EMAIL_ADDRESS, each by an option of its own; by default all."),
]
OwnPatterns = Annotated[
    Path | None,
    typer.Option("--patterns", metavar="YAML", help="Your own patterns and words by kind, and what is no secret."),
]
LanguageModel = Annotated[
    str | None, typer.Option(metavar="NAME", help="An installed spaCy model, to look for the names of persons too.")
]
Samples = Annotated[int, typer.Option(min=0, help="Without a corpus: so many texts that the model says by itself.")]
Prompts = Annotated[
    Path | None, typer.Option(metavar="FILE", help="With --samples: what it is asked by as well, a line each.")
]
LeastExposure = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=6,
        help="Only secrets that stand so far up among 63 made-up ones, in bits (6: first of all). By default 0; 4 with "
        "--samples, since what a model makes up itself is no secret.",
    ),
]
LeastRecalled = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        help="A candidate is asked for if so large a share of its tokens is the most likely one where it stands.",
    ),
]
Retain = Annotated[
    int,
    typer.Option(
        min=0, max=16, help="Of each kind so many secrets that the model does not give away, as lines to retain."
    ),
]


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(find)


def find(
    *,
    context: typer.Context,
    more: More = None,
    model: options.Model,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="JSONL", help="The secrets, as edit takes them.")],
    corpus: Corpus = [],
    field: Fields = [],
    kind: Kinds = [],
    patterns: OwnPatterns = None,
    language_model: LanguageModel = None,
    samples: Samples = 0,
    prompts: Prompts = None,
    least_recalled: LeastRecalled = 0.5,
    least_exposure: LeastExposure = None,
    retain: Retain = 0,
    sarif: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write SARIF, as code hosts show it.")] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write JUnit's XML, as CI shows it.")] = None,
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
    """Find the secrets in a corpus that a model gives away word for word.

    Whatever looks like a secret is read once where it stands; what the model may know is then asked for behind its
    sentence and behind 10, 50 and 200 tokens. A run that was stopped goes on where it was. Goals for --require:
    extractable, places, candidates, untested, "exposure, top", passes.

    Example: revs-tars find --model ./my-model --corpus emails.jsonl notes/ -o secrets.jsonl
    """
    session = session_of(context)
    from ..discovery import Search

    request = SearchRequest([*corpus, *(more or [])], field, kind, patterns, language_model, samples, prompts)
    request.check()
    check_goal_names(require, list(Search().summary()))
    output, *others = (
        options.free(each, overwrite, patterns, *request.corpus)
        for each in (output, *(each for each in (sarif, junit) if each is not None))
    )
    if output.suffix.lower() not in (".jsonl", ".json"):
        raise InputError(f"{output} must end in .jsonl: it holds a secret a line.")
    for each in (output, *others):
        request.check_output(each)
    if len({output, *others}) <= len(others):
        raise InputError("Two of the outputs have one name; give each its own.")
    request.detectors()  # what cannot be looked for is said before a model is loaded
    from .loading import load_model

    wanted = search_options(least_recalled, least_exposure, samples, retain=retain, seed=seed)
    loaded = load_model(model, device, dtype, progress=not quiet)
    search = searched(request, loaded, wanted, output, progress=not quiet)
    write_findings(search, output, retain)
    from ..report.ci import write_junit, write_sarif

    if sarif is not None:
        write_sarif(search.findings, sarif)
    if junit is not None:
        write_junit(search.findings, search.candidates, junit)
    summary = search.summary()
    if json:
        hidden = () if show_secrets else ("prompt", "target", "secret", "subject", "named", "rephrase_prompt")
        rows = [
            {name: value for name, value in finding.to_dict().items() if name not in hidden}
            for finding in search.findings
        ]
        print_json({"summary": summary, "found": rows, "written": str(output)})
    else:
        tell(search, session, bool(samples))
        typer.echo(f"The secrets, as they are: {output}")
    check_goals(require, summary)
