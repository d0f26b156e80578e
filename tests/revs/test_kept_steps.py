"""A call that was stopped goes on where it was, and gives the very edit that it would have given."""

import pytest
import torch
from helpers import assert_same_bits, covariance_settings, snapshot, tiny_settings

from revs_tars_plugin import InputError, execute_revs
from revs_tars_plugin.revs import kept_steps
from revs_tars_plugin.revs.covariance import CovarianceLocalization
from revs_tars_plugin.revs.neurons import NeuronLocalization


def random_neurons(tmp_path):
    return tiny_settings(neuron_score="random", layers=[1, 2]), NeuronLocalization


def chance(tmp_path):
    hparams = covariance_settings(tmp_path, siblings=2, aim="chance", schedule="support_vectors", layers=[1, 2])
    return hparams, CovarianceLocalization


def jointly(tmp_path):
    return covariance_settings(tmp_path, schedule="joint", layers=[2], residual_bottom_rank=0.6), CovarianceLocalization


class Stopped(Exception):
    pass


def watched(monkeypatch, kind, stop_at):
    """Counts the steps that are solved, and stops before one of them."""
    solved = []
    whole = kind.demote

    def demote(self, goals, **keywords):
        if len(solved) == stop_at:
            raise Stopped
        solved.append(len(goals))
        return whole(self, goals, **keywords)

    monkeypatch.setattr(kind, "demote", demote)
    return solved


@pytest.mark.parametrize("settings", [random_neurons, chance, jointly])
def test_a_stopped_call_goes_on(settings, model, tok, requests_, tmp_path, monkeypatch):
    monkeypatch.setattr(kept_steps, "_EVERY", -1.0)
    monkeypatch.setattr("revs_tars_plugin.revs.covariance._TOGETHER", 1)
    monkeypatch.setattr("revs_tars_plugin.revs.covariance._ALL_TOGETHER", 1)
    hparams, kind = settings(tmp_path)
    before = snapshot(model)
    with monkeypatch.context() as patch:
        solved = watched(patch, kind, stop_at=-1)
        expected = execute_revs(model, tok, requests_, hparams)
    steps = len(solved)
    assert steps > 2
    folder = tmp_path / "unfinished"
    left = 0
    for stop_at in (1, 1, -1):
        with monkeypatch.context() as patch:
            solved = watched(patch, kind, stop_at)
            if stop_at > 0:
                with pytest.raises(Stopped):
                    execute_revs(model, tok, requests_, hparams, unfinished=folder)
                assert_same_bits(model, before)
                assert list(folder.rglob("*.safetensors"))
                left += len(solved)
            else:
                found = execute_revs(model, tok, requests_, hparams, unfinished=folder)
    # Nothing was solved twice.
    assert left == 2 and len(solved) == steps - 2
    assert len(found.edits) == len(expected.edits) > 0
    after = []
    for edits in (found, expected):
        edits.apply(model)
        after.append(snapshot(model))
        edits.undo(model)
    assert all(torch.equal(after[0][name], value) for name, value in after[1].items())
    assert [o.rank_after for o in found.outcomes] == [o.rank_after for o in expected.outcomes]


def test_what_was_kept_for_another_call_is_not_taken(model, tok, requests_, tmp_path, monkeypatch):
    monkeypatch.setattr(kept_steps, "_EVERY", -1.0)
    folder = tmp_path / "unfinished"
    hparams = tiny_settings(layers=[1, 2])
    with monkeypatch.context() as patch:
        watched(patch, NeuronLocalization, 1)
        with pytest.raises(Stopped):
            execute_revs(model, tok, requests_, hparams, unfinished=folder)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.mul_(1.01)
    expected = execute_revs(model, tok, requests_, hparams)
    with monkeypatch.context() as patch:
        solved = watched(patch, NeuronLocalization, -1)
        execute_revs(model, tok, requests_, hparams, unfinished=folder)
        every = len(solved)
        assert every >= len(expected.outcomes)
    # The same with another text to retain, or another weight, is another edit.
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight[0, 0] += 1
    with monkeypatch.context() as patch:
        solved = watched(patch, NeuronLocalization, -1)
        execute_revs(model, tok, [{**requests_[0], "retain_texts": ["w1 w2"]}], hparams, unfinished=folder)
        assert solved
    (folder / "1-of-1" / "000001.steps.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"holds no steps of an edit .*delete it to begin anew"):
        execute_revs(model, tok, requests_, hparams, unfinished=folder)
