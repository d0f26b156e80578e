"""`bench`: the field's own benchmarks, with the methods that people compare with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import options
from .benchmark_run import BenchmarkOptions, run_benchmark

benchmarks = typer.Typer(help="The field's own benchmarks, on their published files.", no_args_is_help=True)

_Folder = Annotated[
    Path,
    typer.Argument(metavar="FOLDER", help="The published files, or the Hugging Face data set (owner/name)."),
]
_Model = Annotated[
    str, typer.Option("--model", "-m", help='The base that learns the records: a folder, a hub id, or "demo".')
]
_Learned = Annotated[
    Path | None, typer.Option(metavar="CHECKPOINT", help="A model that learned them already, in place of that.")
]
_RetainOnly = Annotated[
    Path | None, typer.Option(metavar="CHECKPOINT", help="A model that learned the records to retain alone.")
]
_Epochs = Annotated[int, typer.Option(help="How many times the base reads the records.")]
_Method = Annotated[
    list[str],
    typer.Option(
        metavar="NAME[:SETTINGS]",
        help="REVS, TARS or FT-L-delete, with a YAML or a packaged name; FT, ROME, MEMIT, AlphaEdit and others of "
        "EasyEdit, with a YAML; GradDiff, NPO, SimNPO, RMU of the checkout of open-unlearning that OPEN_UNLEARNING "
        "names, with KEY=VALUE; published-REVS of the checkout that REVS_REFERENCE names; each an option of its own. "
        "Default: ours, and those four where there is a checkout.",
    ),
]
_LearningRate = Annotated[
    list[float], typer.Option(help="Of the methods that train; each by an option of its own, as a row of its own.")
]
_Changes = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change one setting of our methods; may be repeated.")
]
_Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FOLDER",
        help="Results in open-unlearning's layout, a folder a row, and benchmark.json for revs-tars report.",
    ),
]
_Markdown = Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")]
_Seed = Annotated[int | None, typer.Option(min=0, max=2**32, help="Of everything that is drawn at random.")]


def add_to(app: typer.Typer) -> None:
    """Adds the group of commands."""
    app.add_typer(benchmarks, name="bench")


def _options(arguments: dict[str, Any]) -> BenchmarkOptions:
    """The options that all commands have, of a command's arguments."""
    names = BenchmarkOptions.__dataclass_fields__
    return BenchmarkOptions(**{name: value for name, value in arguments.items() if name in names})


@benchmarks.command()
def lume(
    *,
    folder: _Folder,
    task: Annotated[list[str], typer.Option(help="Task1, Task2 or Task3, each by an option of its own.")] = ["Task2"],
    people: Annotated[
        int | None,
        typer.Option(help="So many people to forget and to retain, the files' first ones. Default: all."),
    ] = None,
    unseen: Annotated[
        int | None,
        typer.Option(
            help="So many further people, for membership, whom no model may have learned. Default: as many as "
            "--people; none with --learned, which may have learned everybody."
        ),
    ] = None,
    model: _Model = "demo",
    learned: _Learned = None,
    retain_only: _RetainOnly = None,
    epochs: _Epochs = 12,
    method: _Method = [],
    learning_rate: _LearningRate = [1e-5],
    changes: _Changes = [],
    text: options.Text = None,
    device: options.Device = None,
    seed: _Seed = None,
    output: _Output = None,
    require: options.Require = [],
    json: options.Json = False,
    markdown: _Markdown = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Let a model learn LUME's records, forget half of them by several methods, and measure what LUME measures.

    The row of the model that never learned them is the goal: "distance" is how far the others are from it, over LUME's
    own metrics. A model that has learned is kept and taken again. A goal for --require names a row and a figure.

    Example: revs-tars bench lume ./lume --people 25 --method REVS
    """
    asked = _options(locals())
    from ..yardsticks import Lume, published_folder, read_lume, rouge_l_scorer

    rouge_l_scorer()  # where it is missing nobody waits for a model to learn
    if unseen is None and learned is not None:
        unseen = 0
    split = read_lume(published_folder(folder), tasks=task, people=people, unseen=unseen)
    if not split.unseen and not quiet:
        typer.echo("Membership is not measured: nobody is left whom no model learned (--people, --unseen).", err=True)
    title = f"LUME, {', '.join(task)}: {len(split.forget)} records to forget, {len(split.retain)} to retain"
    run_benchmark(Lume(split), asked, "REVS", title)


@benchmarks.command()
def tofu(
    *,
    folder: _Folder,
    forget: Annotated[str, typer.Option(help="forget01, forget05 or forget10.")] = "forget01",
    authors: Annotated[
        int | None, typer.Option(help="So many retained authors, of 20 questions each. Default: all.")
    ] = None,
    model: _Model = "demo",
    learned: _Learned = None,
    retain_only: _RetainOnly = None,
    epochs: _Epochs = 10,
    method: _Method = [],
    learning_rate: _LearningRate = [1e-5],
    changes: _Changes = [],
    text: options.Text = None,
    device: options.Device = None,
    seed: _Seed = None,
    output: _Output = None,
    require: options.Require = [],
    json: options.Json = False,
    markdown: _Markdown = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Let a model learn TOFU's made-up authors, forget some by several methods, and measure what TOFU measures.

    forget_quality is the p-value of its Kolmogorov-Smirnov test against the model that never learned these authors:
    above 0.05 nobody can tell them apart by it. model_utility is what is left of all else.

    Example: revs-tars bench tofu ./tofu --authors 20 --method REVS
    """
    asked = _options(locals())
    from ..yardsticks import Tofu, published_folder, read_tofu, rouge_l_scorer

    rouge_l_scorer()  # where it is missing nobody waits for a model to learn
    files = read_tofu(published_folder(folder), forget=forget, authors=authors)
    counts = f"{len(files.split.forget)} questions to forget, {len(files.split.retain)} to retain"
    run_benchmark(Tofu(files), asked, "REVS", f"TOFU, {forget}: {counts}")


@benchmarks.command()
def ssn(
    *,
    file: Annotated[Path, typer.Argument(metavar="CSV", help="The REVS paper's file: prompt, sentence, ssn, name.")],
    secrets: Annotated[int | None, typer.Option(help="So many numbers, half of them to forget. Default: all.")] = None,
    model: _Model = "demo",
    learned: _Learned = None,
    retain_only: _RetainOnly = None,
    epochs: _Epochs = 12,
    method: _Method = [],
    learning_rate: _LearningRate = [1e-5],
    changes: _Changes = [],
    text: options.Text = None,
    device: options.Device = None,
    seed: _Seed = None,
    output: _Output = None,
    require: options.Require = [],
    json: options.Json = False,
    markdown: _Markdown = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Let a model learn the REVS paper's social security numbers in five wordings, and forget half of them by one.

    Efficacy is that of the wording that is edited, generality that of the four others, specificity what is left of the
    numbers to retain; all of every token of a number, at k = 100.

    Example: revs-tars bench ssn ssn.csv --method REVS:smollm2-135m-covariance
    """
    asked = _options(locals())
    from ..yardsticks import read_ssn

    found = read_ssn(file, secrets, seed=seed or 0)
    title = f"SSN: {len(found.forget)} numbers to forget, {len(found.retain)} to retain, k = {found.k}"
    run_benchmark(found, asked, "REVS", title)


@benchmarks.command()
def secrets(
    *,
    forget: Annotated[int, typer.Option(help="How many to forget, at most 24; 24 others are to be retained.")] = 12,
    model: _Model = "demo",
    learned: _Learned = None,
    retain_only: _RetainOnly = None,
    epochs: _Epochs = 12,
    method: _Method = [],
    learning_rate: _LearningRate = [1e-5],
    changes: _Changes = [],
    text: options.Text = None,
    device: options.Device = None,
    seed: _Seed = None,
    output: _Output = None,
    require: options.Require = [],
    json: options.Json = False,
    markdown: _Markdown = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Let a model learn made-up secrets of four kinds, drawn by the seed, and forget some by one of their wordings.

    Measured like ssn. Nothing is read but the model.

    Example: revs-tars bench secrets --seed 2 --method REVS --method FT
    """
    asked = _options(locals())
    from ..yardsticks import drawn

    found = drawn(forget, seed or 0)
    title = f"Secrets: {len(found.forget)} to forget, {len(found.retain)} to retain, seed {seed or 0}, k = {found.k}"
    run_benchmark(found, asked, "REVS", title)


@benchmarks.command()
def concepts(
    *,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="YAML", help="Concepts, or a packaged file: demo (the default), or multilingual, for Gemma 3."
        ),
    ] = None,
    count: Annotated[int | None, typer.Option(help="Only so many, the first ones. Default: all.")] = None,
    relearn: Annotated[
        bool,
        typer.Option(
            "--relearn",
            help="Teach every edited model the neighbours again, to see what comes back; takes the memory of training.",
        ),
    ] = False,
    model: Annotated[
        str, typer.Option("--model", "-m", help='The model that knows them: a folder, a hub id, or "demo".')
    ] = "demo",
    method: _Method = [],
    learning_rate: _LearningRate = [1e-5],
    changes: _Changes = [],
    text: options.Text = None,
    device: options.Device = None,
    seed: _Seed = None,
    output: _Output = None,
    require: options.Require = [],
    json: options.Json = False,
    markdown: _Markdown = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Remove concepts that a model knows by itself with several methods; measure names, facts and what has to stay.

    What the model says of each concept's neighbours has to stay; with --count the other concepts of the file are
    neighbours, too. With --relearn they are taught again: "concept, returned" is the share of the names that comes back
    by it. No model can be had that learned everything else, so there is no row to be near to.

    Example: revs-tars bench concepts --count 5 --method TARS --method FT
    """
    asked = _options({**locals(), "learned": None, "retain_only": None, "epochs": 0})
    from ..data import read_concepts_file
    from ..yardsticks import Concepts
    from .loading import ordinary_chunks

    known, unrelated = read_concepts_file(file)
    unrelated = unrelated or read_concepts_file()[1]
    chosen = known[:count]
    title = f"Concepts: {len(chosen)} to forget, all at once"

    def of(loaded: Any) -> Concepts:
        # Other text than what the cost is measured on.
        texts = ordinary_chunks(loaded, None, (seed or 0) + 1, count=8, size=64, progress=not quiet)
        return Concepts.of(
            loaded.model,
            loaded.tok,
            chosen,
            unrelated,
            texts,
            neighbours=known[len(chosen) :],
            relearned=relearn,
        )

    run_benchmark(of, asked, "TARS", title)
