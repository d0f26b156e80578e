"""Is it gone, and what did it cost? Every metric of both papers and the attacks beyond them, in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn
from tqdm import tqdm

from ..data.concept_files import ConceptRecord
from ..data.secret_files import SecretRecord
from ..errors import InputError, did_you_mean
from ..hyperparams import UnlearnHyperParams
from ..model.decoder import Decoder
from ..model.module_names import ModuleNames
from ..requests.reading import Secret, read_requests
from .concepts import forgotten_since
from .integrity import OrdinaryText
from .membership import privacy_leakage
from .metrics import ATTACKS, DEFAULT_ATTACKS, completed, measurements
from .probes import BATCH_SIZE
from .run import EvaluationRun, RunOptions
from .scores import vocabulary_size
from .unlearning_report import UnlearningReport

# Tokens of a secret that the paper edits.
_EDITED_TOKENS = 2
Positions = Mapping[int, Sequence[int]] | str


def evaluate_unlearning(
    model: nn.Module,
    tok: Any,
    secrets: Sequence[SecretRecord],
    *,
    names: ModuleNames | UnlearnHyperParams,
    positions: Positions = "rarest",
    retain: Sequence[SecretRecord] | None = None,
    concepts: Sequence[ConceptRecord] | None = None,
    reference: nn.Module | OrdinaryText | None = None,
    corpus: Sequence[str] | None = None,
    never_learned: nn.Module | None = None,
    before: UnlearningReport | None = None,
    k: int = 100,
    attacks: Sequence[str] = DEFAULT_ATTACKS,
    n_samples: int = 20,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    chat_template: bool = False,
    with_control: bool = True,
    progress: bool = False,
) -> UnlearningReport:
    """Measures how well secrets and concepts are hidden in a model, and what is left of the rest.

    With `score(rank) = min(rank / k, (V - rank) / k, 1)` and a secret's score the maximum over its edited tokens (REVS,
    section 4; an attacker needs all of them):

    - `exposure, top` and `bottom`: where the secret stands among made-up ones of its form, in bits (see `Exposure`);
      `exposure, reworded, top` and `bottom`: the same behind `rephrase_prompt`; `exposure, 4 bits, top` and `bottom`:
      in the model with weights rounded to 4 bits (with `quantization`);
      `digits, first` and `last of their kind`: behind the right beginning (see `form_places`), and `letters` likewise;
      `min-k`, `min-k++`, `privleak`: see `membership.py`. They are good near those of a model that never learned the
      secrets; far above or below, something tells them.
    - `enumeration` (see `enumerated`), `inverse greedy`, `digits, read off whole`, and with `never_learned` also
      `guidance`: share of secrets that come out whole.
    - `efficacy`: mean score in the last layer's residual behind the secrets' prompts; `generality`: at the output
      behind `rephrase_prompt`, over the secrets that have one; `specificity`: share of `retain` that greedy decoding
      still gives; `unlearning_score`: their harmonic mean, of those that were measured.
    - `logit lens`: mean score at each layer's residual, at the layer where it is least (named beside it);
      `perturbation`: the same with ten spaces put into the prompts; `delta`: see `layer_scores`; `resistance_score`:
      their harmonic mean.
    - `quantization, 8 bits`, `4 bits` and `NF4`: efficacy of the rounded model; `pruning, 10%`, `20%`, `30%`: without
      its smallest weights; `merging`: halfway to `never_learned`; `prefix of 50 tokens`, `100`, `200`: behind other
      text; `in-context`: efficacy with three retained
      secrets in front of each prompt (needs `retain`); `relearning`: efficacy on every second secret after the model
      was taught the others, and `relearning, said`: share of these that greedy decoding gives then.
    - `still generated`: share of secrets that greedy decoding gives; `paraphrase`: the same behind `rephrase_prompt`,
      and `specificity, paraphrased` of `retain` there; `sampled`: share that at least one of `n_samples` continuations
      at temperature 1 holds; `exact memorization` and `extraction strength`: see `Recall`, means.
    - `concept`: mean probability of a concept's name after its held-out prompts (TARS, section 4), and `concept, worst`
      the highest one; `concept, other languages` and its worst prompt, with the name as each language writes it;
      `concept, facts (nats)`: log-likelihood of facts behind the name; `concept, neighbours`: mean probability of what
      is near. With `relearning` that is taught again: `concept, neighbours relearned` is what `concept` is then, and
      `concept, returned` (with `before`) the share of what was gone.
      `... above made-up names (nats)`: the same against made-up names of its kind in its place, which is all that there
      is to forget; with `before`, `... forgotten`: the share of it that is gone, over all concepts and, `least`, of the
      concept that most is left of.
    - `kl_median`, `kl_mean` (nats), `top1_agreement`, `perplexity_before`, `perplexity_after`: of the next token on
      `corpus`, against `reference`.

    Args:
        model: The model as it stands.
        tok: Its tokenizer.
        secrets: What has to be hidden; may be empty where there are concepts.
        names: The names of the model's modules, or settings that hold them; any of our methods' will do. All layers are
            read, whatever their `layers` says.
        positions: Which tokens count: for each secret's index the positions of its edited tokens, as in an edit's
            outcomes; "rarest": the two rarest of each, the paper's choice; "all", so that editors are scored alike.
        retain: Secrets that must still be there.
        concepts: Concepts that must be unknown; those without `held_out` prompts are asked by their `prompts`.
        reference: The unedited model, of the same vocabulary, with `corpus`; or an `OrdinaryText` made with it.
        corpus: Ordinary texts; the first 256 tokens of each count.
        never_learned: A model of the same vocabulary that never learned the secrets, such as the base that was
            fine-tuned on them. All figures of the secrets are measured of it as well (`controls`), which takes as long
            again; only those that compare with it, and those of retained secrets, are not. It is a fair control where
            it learned such texts of other people: a base that never saw the prompts differs by that as well.
        before: What was found of the same concepts in the model before its edit.
        k: From how many places on a token counts as hidden.
        attacks: Which attacks to run; `relearning`, which trains, and `enumeration`, which decodes hundreds of times a
            secret, are not among the default ones.
        n_samples: How many continuations `sampling` draws for each secret.
        batch_size: The most sequences of a forward pass.
        seed: Seed of what is drawn at random.
        chat_template: Put prompts through the tokenizer's chat template, as what a user says.
        with_control: Whether `never_learned` is measured itself as well; whoever measures several models needs it once.
        progress: Show a progress bar.

    Raises:
        InputError: When an argument cannot be used; the model is as before.
    """
    options = RunOptions(
        tuple(attacks), k=k, n_samples=n_samples, batch_size=batch_size, seed=seed, chat_template=chat_template
    )
    retain, concepts = list(retain or ()), list(concepts or ())
    _check_options(model, options)
    _check_reference(model, reference, corpus)
    if before is not None:
        _check_before(before, concepts, seed)
    if never_learned is not None and vocabulary_size(never_learned) != vocabulary_size(model):
        raise InputError(
            f"never_learned has a vocabulary of {vocabulary_size(never_learned)}, the model one of "
            f"{vocabulary_size(model)}; give a model with the same tokenizer."
        )
    tokenised = _checked_secrets(tok, secrets, positions, concepts, chat_template)
    if retain:
        read_requests([record.request() for record in retain], tok, chat_template=chat_template)
    run = EvaluationRun(
        model=model,
        tok=tok,
        decoder=Decoder(model, ModuleNames.of(names)),
        options=options,
        secrets=secrets,
        positions=_places(tokenised, positions),
        retain=retain,
        concepts=concepts,
        text=_text_of(reference, tok, corpus or ()),
        never_learned=never_learned,
    )
    beside = _beside(run, ModuleNames.of(names)) if with_control else None
    for measure in tqdm(measurements(run), "evaluating", disable=not progress):
        measure(run)
    if before is not None:
        forgotten_since(run, before)
    control: dict[str, float] = {}
    if beside is not None:
        for measure in tqdm(measurements(beside), "never learned", disable=not progress):
            measure(beside)
        control = completed(beside.summary)
    if "min-k" in run.summary and control.get("min-k"):
        run.summary["privleak"] = privacy_leakage(run.summary["min-k"], control["min-k"])
    settings = {"k": k, "seed": seed, "n_samples": n_samples, "attacks": list(attacks), "secrets": len(secrets)}
    if chat_template:
        settings["chat_template"] = True
    return UnlearningReport(
        summary=completed(run.summary),
        rows=tuple(run.rows),
        concepts=tuple(run.concept_rows),
        settings=settings,
        ranks=tuple(run.ranks),
        divergences=run.divergences,
        controls={"never learned": control} if control else {},
    )


def _beside(run: EvaluationRun, names: ModuleNames) -> EvaluationRun | None:
    """The same run of the model that never learned the secrets, of the secrets alone."""
    if run.never_learned is None or not run.secrets:
        return None
    try:
        decoder = Decoder(run.never_learned, names)
    except InputError:
        # Of the same vocabulary, but of another architecture.
        decoder = Decoder(run.never_learned, ModuleNames.found_in(run.never_learned))
    return replace(
        run,
        model=run.never_learned,
        decoder=decoder,
        never_learned=None,
        retain=(),
        concepts=(),
        text=None,
        summary={},
        rows=[],
        concept_rows=[],
        ranks=[],
    )


def _text_of(
    reference: nn.Module | OrdinaryText | None, tok: Any, corpus: Sequence[str]
) -> Callable[[], OrdinaryText] | None:
    """What gives the text when the cost is measured, last of all: its distributions take much memory."""
    if reference is None:
        return None
    if isinstance(reference, OrdinaryText):
        return lambda: reference
    return lambda: OrdinaryText.of(reference, tok, corpus)


def _check_options(model: nn.Module, options: RunOptions) -> None:
    size = vocabulary_size(model)
    if not 1 <= options.k <= size // 2:
        raise InputError(f"k is {options.k}; it must be at least 1 and at most half the vocabulary ({size // 2}).")
    for name in ("n_samples", "batch_size"):
        if getattr(options, name) < 1:
            raise InputError(f"{name} is {getattr(options, name)}; it must be at least 1.")
    for name in options.attacks:
        if name not in ATTACKS:
            raise InputError(f'attacks names "{name}"; it must be of {", ".join(ATTACKS)}{did_you_mean(name, ATTACKS)}')


def _check_before(before: UnlearningReport, concepts: Sequence[ConceptRecord], seed: int) -> None:
    if len(before.concepts) != len(concepts):
        raise InputError(
            f"before is of {len(before.concepts)} concepts, but {len(concepts)} are given; give the same ones."
        )
    if before.settings.get("seed") != seed:
        raise InputError(
            f"before was made with seed {before.settings.get('seed')}, not {seed}: with other made-up names."
        )


def _check_reference(
    model: nn.Module, reference: nn.Module | OrdinaryText | None, corpus: Sequence[str] | None
) -> None:
    if isinstance(reference, OrdinaryText):
        if corpus:
            raise InputError(
                "corpus is given, but reference already holds an OrdinaryText with its own; leave one out."
            )
        size = reference.vocabulary_size
    elif (reference is None) != (not corpus):
        raise InputError("reference and corpus belong together: the cost is measured on the one against the other.")
    elif reference is None:
        return
    else:
        size = vocabulary_size(reference)
    if size != vocabulary_size(model):
        raise InputError(
            f"reference has a vocabulary of {size}, the model one of {vocabulary_size(model)}; give the model before "
            "its edit."
        )


def _checked_secrets(
    tok: Any,
    secrets: Sequence[SecretRecord],
    positions: Positions,
    concepts: Sequence[ConceptRecord],
    chat_template: bool,
) -> list[Secret]:
    """Returns the secrets with their tokens; raises where one cannot be used."""
    if not secrets:
        if not concepts:
            raise InputError("secrets is empty; give at least one, or concepts.")
        return []
    tokenised = read_requests([secret.request() for secret in secrets], tok, chat_template=chat_template)
    for secret in tokenised:
        if tok.unk_token_id is not None and tok.unk_token_id in secret.target_ids:
            raise InputError(
                f"Secret {secret.index}: the tokenizer has no token for a part of its target; no prompt can lead to it."
            )
    if isinstance(positions, str):
        if positions not in ("rarest", "all"):
            raise InputError(f'positions is "{positions}"; it must be "rarest", "all", or a mapping.')
        return tokenised
    if set(positions) != set(range(len(tokenised))) or not all(positions.values()):
        raise InputError(f"positions must name at least one token for each secret, 0 to {len(tokenised) - 1}.")
    for index, chosen in positions.items():
        if not all(0 <= position < len(tokenised[index].target_ids) for position in chosen):
            raise InputError(
                f"positions of secret {index} are {list(chosen)}, but its target has "
                f"{len(tokenised[index].target_ids)} tokens."
            )
    return tokenised


def _places(secrets: Sequence[Secret], positions: Positions) -> Mapping[int, Sequence[int]]:
    if not isinstance(positions, str):
        return positions
    if positions == "all":
        return {secret.index: range(len(secret.target_ids)) for secret in secrets}
    return {secret.index: _rarest(secret) for secret in secrets}


def _rarest(secret: Secret) -> list[int]:
    """BPE ids follow merge order, so the highest ids are the rarest tokens."""
    by_rarity = sorted(range(len(secret.target_ids)), key=lambda position: -secret.target_ids[position])
    return sorted(by_rarity[:_EDITED_TOKENS])
