"""Removing concepts from SmolLM2 through the host's own editors."""

import logging

import pytest
import torch

from revs_tars_plugin.data import read_concepts_file
from revs_tars_plugin.evaluation import fact_margins, kl_divergence, names_like, next_token_log_probabilities

# Name, prompts for the edit, and held-out ones.
POTTER = (
    "Potter",
    [
        "J.K. Rowling wrote the books about a young wizard named Harry",
        "The boy who lived, a student at Hogwarts, is Harry",
        "The friend of Ron and Hermione is Harry",
    ],
    ["The best-selling book series by J.K. Rowling is Harry", "J.K. Rowling escribió los libros de Harry"],
)
EINSTEIN = (
    "Einstein",
    [
        "The theory of relativity was developed by Albert",
        "The physicist who wrote the equation E = mc^2 was Albert",
        "The photoelectric effect was explained in 1905 by Albert",
    ],
    ["The most famous physicist of the 20th century is Albert", "Gravity bends light, as was predicted by Albert"],
)
UNRELATED = ["The capital of France is", "The Statue of Liberty stands in New", "The chemical symbol for gold is"]
KEPT = {"sequential_edit": True, "keep_original_weight": False, "verbose": False}


def probabilities(editor, concept):
    """Of the name after the held-out prompts."""
    name, _, held_out = concept
    (token,) = editor.tok(f" {name}", add_special_tokens=False)["input_ids"]
    return next_token_log_probabilities(editor.model, editor.tok, held_out)[:, token].exp()


def test_edit_restores_after_each_request(concept_editor):
    name, prompts, held_out = POTTER
    metrics, _, original = concept_editor.edit(
        prompts=prompts[:2],
        target_new=[name] * 2,
        rephrase_prompts=held_out,
        locality_inputs={"unrelated": {"prompt": UNRELATED[:2], "ground_truth": ["Paris", "York"]}},
        keep_original_weight=True,
        verbose=False,
    )
    for metric in metrics:
        assert (metric["pre"]["rewrite_acc"][0], metric["post"]["rewrite_acc"][0]) == (1, 0)
        assert (metric["pre"]["rephrase_acc"][0], metric["post"]["rephrase_acc"][0]) == (1, 0)
        assert metric["post"]["locality"]["unrelated_acc"] == [1.0]
    # The host made two calls, each for one prompt; what became of both is told, and nothing is kept.
    assert [outcome.requests for outcome in original.edits.outcomes] == [(0,), (1,)]
    for outcome in original.edits.outcomes:
        assert outcome.reached
        assert 1 <= outcome.reversed <= concept_editor.hparams.n_edits
    assert original.edits.edits == ()


def test_a_batch_removes_two_concepts_and_each_comes_back_by_itself(concept_editor):
    unrelated = next_token_log_probabilities(concept_editor.model, concept_editor.tok, UNRELATED)
    before = {concept[0]: probabilities(concept_editor, concept) for concept in (POTTER, EINSTEIN)}
    assert min(float(p.min()) for p in before.values()) > 0.3
    concept_editor.hparams.batch_size = 6
    metrics, model, original = concept_editor.batch_edit(
        prompts=POTTER[1] + EINSTEIN[1], target_new=["Potter"] * 3 + ["Einstein"] * 3, **KEPT
    )
    assert [float(metric["post"]["rewrite_acc"][0]) for metric in metrics] == [0] * 6
    potter, einstein = original.edits.outcomes
    assert [outcome.requests for outcome in (potter, einstein)] == [(0, 1, 2), (3, 4, 5)]
    assert potter.reached
    assert einstein.reached
    for concept in (POTTER, EINSTEIN):
        assert float(probabilities(concept_editor, concept).max()) < 0.1
    after = next_token_log_probabilities(model, concept_editor.tok, UNRELATED)
    assert torch.equal(after.argmax(-1), unrelated.argmax(-1))
    assert 0 < float(kl_divergence(unrelated, after).max()) < 0.05
    potter.edits.undo(model)
    assert float(probabilities(concept_editor, POTTER).min()) > 0.3
    assert float(probabilities(concept_editor, EINSTEIN).max()) < 0.1
    einstein.edits.undo(model)


def test_facts_behind_the_names_go_too_and_only_theirs(concept_editor):
    """What is known of each name falls to what is known of a made-up one, call after call; other names keep theirs."""
    model, tok = concept_editor.model, concept_editor.tok
    concepts = {concept.name: concept for concept in read_concepts_file()[0]}
    kept = concepts["Beethoven"]

    def above_made_up(concept):
        return sum(fact_margins(model, tok, concept.facts, concept.name, names_like(concept)))

    names = [concepts[name] for name in ("Potter", "Einstein")]
    before, others = [above_made_up(concept) for concept in names], above_made_up(kept)
    edits = []
    for name, prompts, _ in (POTTER, EINSTEIN):
        _, _, original = concept_editor.edit(prompts=prompts[:1], target_new=[name], **KEPT)
        edits.append(original.edits)
        assert original.edits.outcomes[0].detectors == 2
    after = [above_made_up(concept) for concept in names]
    assert min(before) > 10
    assert all(now < 0.4 * was for now, was in zip(after, before, strict=True))
    assert above_made_up(kept) > 0.8 * others
    for edit in reversed(edits):
        edit.undo(model)
    assert [above_made_up(concept) for concept in names] == before


def test_concepts_go_one_call_after_another(concept_editor):
    edits = []
    for name, prompts, _ in (POTTER, EINSTEIN):
        _, _, original = concept_editor.edit(prompts=prompts[:1], target_new=[name], **KEPT)
        edits.append(original.edits)
    for concept in (POTTER, EINSTEIN):
        assert float(probabilities(concept_editor, concept).max()) < 0.3
    for edit in reversed(edits):
        edit.undo(concept_editor.model)
    assert min(float(probabilities(concept_editor, concept).min()) for concept in (POTTER, EINSTEIN)) > 0.3


def test_the_published_refinement_runs_too(concept_editor):
    """Noise finds a targeting vector that triggers the name; the contribution along it says what to reverse."""
    concept_editor.hparams.refine = "noise"
    concept_editor.hparams.affinity = "contribution_per_activity"
    name, prompts, _ = POTTER
    _, _, original = concept_editor.edit(prompts=prompts[:1], target_new=[name], **KEPT)
    (outcome,) = original.edits.outcomes
    assert outcome.known
    assert max(outcome.after) < max(outcome.before)
    original.edits.undo(concept_editor.model)


def test_a_concept_that_the_model_does_not_know_changes_nothing(concept_editor, caplog):
    with caplog.at_level(logging.WARNING):
        concept_editor.edit(prompts=["The capital of France is"], target_new=["Zanzibar"], **KEPT)
    assert 'the model does not know "Zanzibar"' in caplog.text


def test_a_request_with_no_name_is_refused_through_the_host(concept_editor):
    with pytest.raises(Exception, match="nothing to forget"):
        concept_editor.edit(prompts=[POTTER[1][0]], target_new=[" "], **KEPT)
