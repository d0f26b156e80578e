"""`localization: covariance`: one key, one direction; many secrets solved together; siblings left alone."""

import pytest
import torch
from architectures import FAMILIES, request_for, settings_of, with_uneven_gains
from helpers import assert_same_bits, snapshot, tiny_settings

from revs_tars_plugin import InputError, apply_revs_to_model, execute_revs
from revs_tars_plugin.edits.weight_edits import LowRankEdit
from revs_tars_plugin.requests.reading import read_requests
from revs_tars_plugin.revs.covariance import layer_schedule, solve_jointly


@pytest.mark.parametrize("schedule", ["support_vectors", "joint", "sequential"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_target_ends_at_its_rank_and_undo_is_bitwise(model, tok, requests_, settings, schedule, dtype):
    model.to(dtype)
    before = snapshot(model)
    edits = execute_revs(model, tok, requests_, settings(schedule=schedule))
    assert_same_bits(model, before)
    assert all(isinstance(edit, LowRankEdit) for edit in edits.edits)
    edits.apply(model)
    secrets = read_requests(requests_, tok)
    for outcome in edits.outcomes:
        assert outcome.rank_before == 0
        context = secrets[outcome.request].context(outcome.position)
        with torch.no_grad():
            logits = model(torch.tensor([context])).logits[0, -1]
        # One context alone and a padded batch differ by rounding, in bfloat16 by some ranks.
        rank = int((logits > logits[outcome.token]).sum())
        assert rank == pytest.approx(outcome.rank_after, abs=1 if dtype == torch.float32 else 12)
        assert outcome.rank_after >= outcome.asked_rank
    edits.undo(model)
    assert_same_bits(model, before)


def test_the_joint_solve_of_one_secret_is_the_single_one(model, tok, requests_, settings):
    single = [{**requests_[0]}]
    changes = []
    for schedule in ("joint", "sequential"):
        edits = execute_revs(model, tok, single, settings(schedule=schedule, max_tokens=1, sweeps=1))
        changes.append({edit.name: edit.keys @ edit.values for edit in edits.edits})
    assert changes[0].keys() == changes[1].keys()
    for name, change in changes[0].items():
        torch.testing.assert_close(change, changes[1][name])


def test_each_key_triggers_its_own_direction_and_nobody_elses():
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(500, 20, generator=generator)
    keys, directions = torch.randn(4, 20, generator=generator), torch.randn(4, 8, generator=generator)
    steps = torch.tensor([1.0, 0.0, 2.0, 3.0]).double()
    readers, values = solve_jointly(keys, steps, directions, [torch.linalg.cholesky(text.T @ text / 500)], 0.0)
    moved = keys @ readers @ values
    torch.testing.assert_close(moved, -steps[:, None].float() * directions, rtol=1e-3, atol=1e-4)
    # Of all changes that do this, it is the one that moves the text least.
    found = (text @ readers @ values).norm()
    null = torch.linalg.svd(keys).Vh[4:].T @ torch.randn(16, 8, generator=generator) * 0.1
    assert (text @ (readers @ values + null)).norm() > found
    assert (text @ (readers @ values - null)).norm() > found


def test_an_update_hardly_moves_the_text_it_must_not_change(model, tok, requests_, settings):
    """The same demotion with and without the text to retain in the second moment."""
    retained = "w20 w21 w22 w23 w24 w25"
    ids = tok(retained, return_tensors="pt").input_ids

    def moved(**request_changes):
        requests = [{**requests_[0], **request_changes}]
        with torch.no_grad():
            before = model(ids).logits.log_softmax(-1)
            edits = execute_revs(model, tok, requests, settings(max_tokens=1, retain_weight=100.0))
            edits.apply(model)
            after = model(ids).logits.log_softmax(-1)
            edits.undo(model)
        assert edits.outcomes[0].reached
        return float((before.exp() * (before - after)).sum(-1).mean())

    without, with_ = moved(), moved(retain_texts=[retained])
    assert with_ < 0.5 * without


def test_retained_texts_come_from_a_file_too(model, tok, requests_, settings, tmp_path):
    with pytest.raises(InputError, match="retain_texts names"):
        execute_revs(model, tok, requests_, settings(retain_texts=str(tmp_path / "absent.txt")))
    file = tmp_path / "retain.txt"
    file.write_text("w20 w21 w22\n\nw30 w31\n")
    by_file = execute_revs(model, tok, requests_, settings(retain_texts=str(file)))
    by_request = [{**requests_[0], "retain_texts": ["w20 w21 w22", "w30 w31"]}, requests_[1]]
    for a, b in zip(by_file.edits, execute_revs(model, tok, by_request, settings()).edits, strict=True):
        torch.testing.assert_close(a.keys, b.keys)
    with pytest.raises(InputError, match='"retain_texts" must be a list'):
        execute_revs(model, tok, [{**requests_[0], "retain_texts": "w1"}], settings())


def test_a_call_that_breaks_off_leaves_the_weights_alone(model, tok, requests_, settings, monkeypatch):
    import revs_tars_plugin.revs.covariance as module

    before = snapshot(model)
    solve, calls = module.solve_jointly, []

    def breaks(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return solve(*args)

    monkeypatch.setattr(module, "solve_jointly", breaks)
    with pytest.raises(KeyboardInterrupt):
        apply_revs_to_model(model, tok, requests_, settings())
    assert len(calls) == 2
    assert_same_bits(model, before)


def test_the_host_gets_the_original_matrices(model, tok, requests_, settings):
    before = snapshot(model)
    edited, original = apply_revs_to_model(model, tok, requests_, settings(), return_orig_weights=True)
    assert len(original) == 3
    with torch.no_grad():
        for name, value in original.items():
            assert not torch.equal(edited.get_parameter(name), before[name])
            edited.get_parameter(name)[...] = value
    assert_same_bits(model, before)


def test_schedules_go_from_the_first_layer_to_the_last():
    assert layer_schedule([0, 1, 2], 3, 0.04, 0.01) == pytest.approx({0: 0.04, 1: 0.02, 2: 0.01})
    assert layer_schedule([0, 1, 2], 3, 0.02, 0.0) == pytest.approx({0: 0.02, 1: 0.01, 2: 0.0})
    assert layer_schedule([2], 3, 0.04, 0.01) == pytest.approx({2: 0.01})


@pytest.mark.parametrize("localization", ["covariance", "neurons"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "olmo2"])
def test_with_a_ridge_the_rank_is_reached_by_shorter_changes(name, localization, tok, tmp_path):
    """Behind norms whose gains differ a hundred times most of what is written without one hardly gets through."""
    family = FAMILIES[name]
    model = with_uneven_gains(family, -1, 1)
    request = request_for(model, tok)
    lengths = []
    for ridge in (0.0, 0.3):
        hparams = settings_of(family, "REVS", tmp_path, localization=localization, direction_ridge=ridge, sweeps=2)
        edits = execute_revs(model, tok, [request], hparams)
        assert edits.outcomes[0].reached
        before = snapshot(model)
        edits.apply(model)
        changes = [value - before[key] for key, value in model.state_dict().items() if value.is_floating_point()]
        lengths.append(sum(float(change.double().square().sum()) for change in changes))
        edits.undo(model)
        assert_same_bits(model, before)
    assert lengths[1] < lengths[0]


@pytest.mark.parametrize("ridge", [-0.1, float("inf"), float("nan")])
def test_a_ridge_that_is_none_is_refused(ridge):
    with pytest.raises(InputError, match="direction_ridge is"):
        tiny_settings(direction_ridge=ridge)
