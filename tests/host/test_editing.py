"""Editing SmolLM2 through the host's own editors."""

import pytest
import torch
from helpers import snapshot

from revs_tars_plugin.evaluation import greedy_continuation, kl_divergence, next_token_log_probabilities

PROMPTS = [
    "The Titanic sank after hitting an",
    "The Mona Lisa was painted by Leonardo da",
    "The first president of the United States was George",
    "Isaac Newton discovered the law of universal",
]
TARGETS = ["iceberg", "Vinci", "Washington", "gravitation"]
UNRELATED = ["The capital of France is", "The Statue of Liberty stands in New", "The chemical symbol for gold is"]


def says(editor, index):
    return greedy_continuation(editor.model, editor.tok, PROMPTS[index], max_new_tokens=4).strip()


def accuracy(metrics, phase, key="rewrite_acc"):
    return [float(metric[phase][key][0]) for metric in metrics]


def test_edit_restores_after_each_request(editor):
    before = snapshot(editor.model)
    metrics, model, original = editor.edit(
        prompts=PROMPTS[:2],
        target_new=TARGETS[:2],
        rephrase_prompts=["The Titanic sank because it hit an", "The Mona Lisa is a painting by Leonardo da"],
        locality_inputs={"unrelated": {"prompt": UNRELATED[:2], "ground_truth": ["Paris", "York"]}},
        keep_original_weight=True,  # the release; branch main restores unless sequential_edit
        verbose=False,
    )
    assert accuracy(metrics, "pre") == [1, 1]
    assert accuracy(metrics, "post") == [0, 0]
    assert accuracy(metrics, "pre", "rephrase_acc") == [1, 1]
    assert accuracy(metrics, "post", "rephrase_acc") == [0, 0]
    assert [metric["post"]["locality"]["unrelated_acc"] for metric in metrics] == [[1.0], [1.0]]
    assert model is editor.model
    assert original.edits.outcomes[0].reached
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_one_request_as_plain_text(editor):
    metrics, _, _ = editor.edit(
        prompts=PROMPTS[0], target_new=TARGETS[0], keep_original_weight=True, verbose=False, subject="Titanic"
    )
    assert (accuracy(metrics, "pre"), accuracy(metrics, "post")) == ([1], [0])


def test_what_is_forgotten_is_the_ground_truth_when_there_is_one(editor):
    metrics, _, original = editor.edit(
        prompts=[PROMPTS[0]],
        target_new=["object"],
        ground_truth=["iceberg"],
        keep_original_weight=True,
        verbose=False,
    )
    (outcome,) = original.edits.outcomes
    assert editor.tok.decode([outcome.token]) == " iceberg"
    assert accuracy(metrics, "pre") == [0]


def test_sequential_edits_stay(editor):
    assert (says(editor, 0), says(editor, 1)[:5]) == ("iceberg, but the", "Vinci")
    edits = []
    for index in (0, 1):
        _, model, original = editor.edit(
            prompts=[PROMPTS[index]],
            target_new=[TARGETS[index]],
            sequential_edit=True,  # branch main
            keep_original_weight=False,  # the release
            verbose=False,
        )
        edits.append(original.edits)
        assert model is editor.model
    assert "iceberg" not in says(editor, 0)
    assert "Vinci" not in says(editor, 1)
    for edit in reversed(edits):
        edit.undo(editor.model)
    assert says(editor, 0).startswith("iceberg")


def test_batches_of_three_restored_after_each(editor):
    editor.hparams.batch_size = 3
    metrics, _, _ = editor.batch_edit(
        prompts=PROMPTS,
        target_new=TARGETS,
        keep_original_weight=True,
        verbose=False,
    )
    assert accuracy(metrics, "post")[-1] == 0
    # The release returns the metrics of the last batch alone.
    assert len(metrics) in (1, 4)
    assert accuracy(metrics, "pre")[-1] == 1


def test_a_batch_that_stays(editor):
    editor.hparams.batch_size = 3
    log_probabilities = next_token_log_probabilities(editor.model, editor.tok, UNRELATED)
    metrics, model, original = editor.batch_edit(
        prompts=PROMPTS[:3], target_new=TARGETS[:3], sequential_edit=True, keep_original_weight=False, verbose=False
    )
    assert accuracy(metrics, "post") == [0, 0, 0]
    assert all(outcome.reached and outcome.rank_before == 0 for outcome in original.edits.outcomes)
    for index in range(3):
        assert TARGETS[index] not in says(editor, index)
    after = next_token_log_probabilities(model, editor.tok, UNRELATED)
    assert torch.equal(after.argmax(-1), log_probabilities.argmax(-1))
    assert 0 < float(kl_divergence(log_probabilities, after).max()) < 0.05
    original.edits.undo(model)


def test_a_request_with_nothing_to_forget_is_refused_through_the_host(editor):
    with pytest.raises(Exception, match="nothing to forget"):
        editor.edit(prompts=[PROMPTS[0]], target_new=[" "], keep_original_weight=True, verbose=False)


def test_the_hosts_own_editor_still_works_beside_ours(editor, host):
    """FT on the same model, restored by the host; on the release this needs the bridge away from CUDA."""
    from easyeditor import FTHyperParams
    from easyeditor.util.alg_dict import ALG_DICT

    ours = editor.hparams
    common = {name: getattr(ours, name) for name in ("layer_module_tmp", "mlp_module_tmp", "attn_module_tmp")}
    hparams = FTHyperParams(
        **common,
        **({"objective_optimization": "target_new"} if host.generation == "main" else {}),
        rewrite_module_tmp=ours.rewrite_module_tmp + ".weight",
        ln_f_module=ours.ln_f_module,
        lm_head_module=ours.lm_head_module,
        layers=[20],
        num_steps=25,
        lr=5e-4,
        weight_decay=0.0,
        kl_factor=0.0,
        norm_constraint=False,
        alg_name="FT",
        model_name=ours.model_name,
        device=ours.device,
        batch_size=1,
        max_length=40,
    )
    editor.hparams, editor.alg_name, editor.apply_algo = hparams, "FT", ALG_DICT["FT"]
    try:
        metrics, _, _ = editor.edit(
            prompts=[PROMPTS[0]], target_new=["submarine"], keep_original_weight=True, verbose=False
        )
    finally:
        editor.hparams, editor.alg_name, editor.apply_algo = ours, "REVS", ALG_DICT["REVS"]
    assert metrics[0]["post"]["rewrite_acc"][0] > metrics[0]["pre"]["rewrite_acc"][0]


def test_a_batch_with_covariance_keys_is_restored_to_the_bit(editor, ordinary_text):
    hparams = editor.hparams
    hparams.localization, hparams.layers = "covariance", list(range(22, 30))
    for name, value in ordinary_text.items():
        setattr(hparams, name, value)
    hparams.batch_size = 3
    metrics, _, original = editor.batch_edit(
        prompts=PROMPTS[:3], target_new=TARGETS[:3], sequential_edit=True, keep_original_weight=False, verbose=False
    )
    assert accuracy(metrics, "post") == [0, 0, 0]
    assert all(outcome.reached and outcome.rank_before == 0 for outcome in original.edits.outcomes)
    original.edits.undo(editor.model)
    # And restored by the host itself; the fixture compares all weights with what they were.
    editor.batch_edit(prompts=PROMPTS[:3], target_new=TARGETS[:3], keep_original_weight=True, verbose=False)
