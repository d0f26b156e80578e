"""The demo: through EasyEdit's own `BaseEditor` a real model forgets facts and loses a concept: `revs-tars demo`."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..formatting import print_tables, table_of_rows
from .demo_picture import (
    CONCEPT,
    FACTS,
    HELD_OUT_PROMPTS,
    UNRELATED,
    Picture,
    concept_facts,
    concept_record,
    picture_of,
)

if TYPE_CHECKING:
    from ..edits.edit_set import EditSet
    from ..revs.outcomes import TargetOutcome
    from ..tars.outcomes import ConceptOutcome


def show_demo(name: str = "smollm2", *, as_json: bool = False) -> None:
    """Edits a bundled model and prints what it said before and after, as tables or as JSON.

    Args:
        name: "smollm2" or "gemma".
        as_json: Print JSON instead of tables.
    """
    warnings.simplefilter("ignore", FutureWarning)  # what the host imports is deprecated in its own libraries
    with (
        _offline(),
        # JSON stands alone on standard output, whatever the host prints.
        contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext(),
    ):
        demo = _edited(name)
    rows = {
        "facts": _fact_rows(demo),
        "concept": _concept_rows(demo),
        "concept_facts": _concept_fact_rows(demo),
        "unrelated": _unrelated_rows(demo),
    }
    if as_json:
        changed = {"REVS": demo.facts.n_changed, "TARS": demo.concept.n_changed}
        content = {"host": demo.host, **rows, "n_changed": changed, "seconds": demo.seconds}
        print(json.dumps(content, indent=1))  # noqa: T201
        return
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers"))
    print(f"\nEasyEdit ({demo.host}) with alg_name: REVS, then TARS, on {demo.model}; {versions}\n")  # noqa: T201
    found = demo.removed.detectors
    print_tables(
        table_of_rows("Forgotten", rows["facts"], cell=_cell, lines=True, unbroken=True),
        table_of_rows(f"Removed: {CONCEPT}, to the name", rows["concept"], cell=_cell, unbroken=True),
        # Behind a norm the packaged settings take the way to the name alone.
        *([table_of_rows("and from the name", rows["concept_facts"], cell=_cell, unbroken=True)] if found else []),
        table_of_rows("Unrelated", rows["unrelated"], cell=_cell, unbroken=True),
    )
    print(  # noqa: T201
        f"REVS: {demo.seconds['REVS']:.1f} s for the call with the host's evaluation, which reads ordinary text once a "
        "model.\n"
        f"TARS: {demo.removed.seconds:.1f} s for {demo.removed.reversed} reversed vectors"
        f"{f' and {found} neurons that find the name' if found else ''}; "
        f"{demo.seconds['TARS']:.1f} s for the call, which reads it too.\n"
        f"{demo.facts.n_changed:,} and {demo.concept.n_changed:,} of {demo.weights:,} weights changed."
    )


@dataclass(frozen=True)
class _Demo:
    """What the two edits did."""

    host: str
    model: str
    weights: int
    before: Picture
    after: Picture
    facts: EditSet
    concept: EditSet
    targets: Sequence[TargetOutcome]
    removed: ConceptOutcome
    metrics: Sequence[Mapping[str, Any]]
    seconds: Mapping[str, float]


def _edited(name: str) -> _Demo:
    """Edits through the host's own editor, with a bar of four steps of some seconds each."""
    import transformers
    from tqdm import tqdm

    from ..data import demo_model
    from ..data.bundled_model import BUNDLED
    from ..host import register
    from ..hyperparams import packaged_hparams

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    demo_model(name)
    settings = f"{BUNDLED[name].settings}.yaml"
    host = register()
    logging.getLogger("easyeditor").setLevel(logging.WARNING)

    from easyeditor import REVSHyperParams, TARSHyperParams

    # None: shown on a terminal alone.
    with tqdm(total=4, desc="loading the model", bar_format="{desc} {bar} {elapsed}", disable=None) as bar:

        def step(what: str) -> None:
            bar.update()
            bar.set_description(what)

        hparams = REVSHyperParams.from_hparams(packaged_hparams("REVS") / settings)
        hparams.batch_size = len(FACTS)
        editor = _editor(hparams)
        step("REVS: four facts")
        before = picture_of(editor.model, editor.tok)
        start = time.perf_counter()
        metrics, _, weights = editor.batch_edit(
            prompts=[prompt for prompt, _ in FACTS],
            target_new=[target for _, target in FACTS],
            forget=[target for _, target in FACTS],
            # Keep the edit: the first says so to branch main, the second to the release.
            sequential_edit=True,
            keep_original_weight=False,
            verbose=False,
        )
        seconds = {"REVS": time.perf_counter() - start}
        facts = weights.edits

        step("loading the model")
        hparams = TARSHyperParams.from_hparams(packaged_hparams("TARS") / settings)
        prompts = list(concept_record().prompts)
        hparams.batch_size = len(prompts)  # all prompts of a concept go into one call
        # It loads the unedited model again; an edit can be put on any copy of the weights it was computed for.
        editor = _editor(hparams)
        step("TARS: a concept")
        facts.apply(editor.model)
        start = time.perf_counter()
        _, model, weights = editor.batch_edit(
            prompts=prompts,
            target_new=[CONCEPT] * len(prompts),
            forget=[CONCEPT] * len(prompts),
            sequential_edit=True,
            keep_original_weight=False,
            verbose=False,
        )
        seconds["TARS"] = time.perf_counter() - start
        return _Demo(
            host=host.generation,
            model=Path(hparams.model_name).name,
            weights=sum(parameter.numel() for parameter in model.parameters()),
            before=before,
            after=picture_of(model, editor.tok),
            facts=facts,
            concept=weights.edits,
            targets=facts.outcomes,
            removed=weights.edits.outcomes[0],
            metrics=metrics,
            seconds=seconds,
        )


def _editor(hparams: Any) -> Any:
    """EasyEdit's editor; of a model that its release does not know it is given the model itself."""
    from easyeditor import BaseEditor

    from ..data import DEMO_MODEL_NAME

    name = hparams.model_name
    if Path(name).name == DEMO_MODEL_NAME:
        return BaseEditor.from_hparams(hparams)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tok = AutoTokenizer.from_pretrained(name)
    # As the host sets up those that it loads.
    tok.pad_token_id, tok.padding_side = tok.eos_token_id, "left"
    hparams.model_name = (AutoModelForCausalLM.from_pretrained(name), tok)
    try:
        editor = BaseEditor.from_hparams(hparams)
    finally:
        hparams.model_name = name
    editor.model_name = name
    return editor


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """The model comes from a wheel, so nothing is looked up on a hub; read when transformers is first imported."""
    name = "HF_HUB_OFFLINE"
    before = os.environ.get(name)
    os.environ.setdefault(name, "1")
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


def _fact_rows(demo: _Demo) -> list[dict[str, Any]]:
    before, after = demo.before, demo.after
    rows = []
    for index, (prompt, _) in enumerate(FACTS):
        # The first token that was edited, where there are several.
        outcome = next(outcome for outcome in demo.targets if outcome.request == index)
        rows.append(
            {
                "prompt": prompt,
                "says before": _one_line(before.facts[index]),
                "says after": _one_line(after.facts[index]),
                "its probability": (outcome.probability_before, outcome.probability_after),
                "by\nchance": f"{outcome.asked_probability:.0e}",
                "exposed, bits\nfrom the top": (before.exposures[index].top, after.exposures[index].top),
                "from the\nbottom": (before.exposures[index].bottom, after.exposures[index].bottom),
                "host's\nrewrite_acc": round(float(demo.metrics[index]["post"]["rewrite_acc"][0])),
            }
        )
    return rows


def _concept_rows(demo: _Demo) -> list[dict[str, Any]]:
    before, after, prompts = demo.before, demo.after, concept_record().prompts
    return [
        {
            "": "given" if index < len(prompts) else "held out",
            "prompt": prompt,
            "says before": _one_line(before.concept[index]),
            "says after": _one_line(after.concept[index]),
            "probability of the name": (before.concept_probabilities[index], after.concept_probabilities[index]),
        }
        for index, prompt in enumerate((*prompts, *HELD_OUT_PROMPTS))
    ]


def _concept_fact_rows(demo: _Demo) -> list[dict[str, Any]]:
    before, after = demo.before, demo.after
    return [
        {
            "fact": beginning,
            "says before": _one_line(before.concept_facts[index]),
            "says after": _one_line(after.concept_facts[index]),
            "known, nats above\nmade-up names": (before.fact_margins[index], after.fact_margins[index]),
        }
        for index, (beginning, _) in enumerate(concept_facts())
    ]


def _unrelated_rows(demo: _Demo) -> list[dict[str, Any]]:
    from ..evaluation import kl_divergence

    before, after = demo.before, demo.after
    divergences = kl_divergence(before.log_probabilities, after.log_probabilities).tolist()
    same = (before.log_probabilities.argmax(-1) == after.log_probabilities.argmax(-1)).tolist()
    return [
        {
            "prompt": prompt,
            "says before": _one_line(before.unrelated[index]),
            "says after": _one_line(after.unrelated[index]),
            "same first token": "yes" if same[index] else "NO",
            "KL (nats)": divergences[index],
        }
        for index, prompt in enumerate(UNRELATED)
    ]


def _cell(value: Any) -> str:
    if isinstance(value, tuple):
        first, last = value
        return f"{first:.3f} -> {last:.0e}" if 0 <= last < 0.1 < first <= 1 else f"{first:.1f} -> {last:.1f}"
    return f"{value:.5f}" if isinstance(value, float) else str(value)


def _one_line(text: str) -> str:
    return " ".join(text.split())
