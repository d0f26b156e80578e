"""FT-L-delete, what REVS is compared with: it lowers secrets, stays in its box, and is undone to the bit."""

import pytest
import torch
from helpers import LLAMA_NAMES, assert_same_bits, snapshot

from revs_tars_plugin import InputError
from revs_tars_plugin.ft_l_delete import FTLDeleteHyperParams, execute_ft_l_delete
from revs_tars_plugin.ft_l_delete.unlikelihood import unlikelihood


def settings(**changes):
    found = {"alg_name": "FT-L-delete", "model_name": "tiny", **LLAMA_NAMES, "layers": [1, 2], "lr": 0.01}
    return FTLDeleteHyperParams(**{**found, "norm_constraint": 0.2, "num_steps": 60, **changes})


def test_unlikelihood_by_hand(model):
    pairs = [((1, 2, 3), (5, 6)), ((7,), (9,))]
    with torch.no_grad():
        first = model(torch.tensor([[1, 2, 3, 5]])).logits[0].softmax(-1)
        second = model(torch.tensor([[7]])).logits[0].softmax(-1)
        loss, probabilities = unlikelihood(model, pairs)
    p = [[float(first[2, 5]), float(first[3, 6])], [float(second[0, 9])]]
    assert probabilities.tolist() == pytest.approx([sum(own) / len(own) for own in p], rel=1e-4)
    expected = [sum(-torch.log1p(torch.tensor(-x)).item() for x in own) / len(own) for own in p]
    assert float(loss) == pytest.approx(sum(expected) / 2, rel=1e-3)


def test_secrets_are_lowered_within_the_box_and_undone(model, tok, requests_):
    before = snapshot(model)
    edits = execute_ft_l_delete(model, tok, requests_, settings())
    assert_same_bits(model, before)
    for outcome in edits.outcomes:
        assert outcome.before > 0.05
        assert outcome.after <= 0.01
    edits.apply(model)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"model.layers.{layer}.mlp.down_proj.weight" for layer in (1, 2)}
    for name in changed:
        moved = (model.get_parameter(name).detach() - before[name]).abs()
        assert 0 < float(moved.max()) <= 0.2 * 1.001
    edits.undo(model)
    assert_same_bits(model, before)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_a_narrow_box_does_not_reach_and_says_so(model, tok, requests_, caplog):
    edits = execute_ft_l_delete(model, tok, requests_, settings(norm_constraint=1e-4, num_steps=3))
    assert max(outcome.after for outcome in edits.outcomes) > 0.01
    assert "raise num_steps or norm_constraint" in caplog.text


def test_nothing_stays_changed_when_it_is_interrupted(model, tok, requests_, monkeypatch):
    before = snapshot(model)
    steps = []

    def interrupt(*_args, **_kwargs):
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return original(*_args, **_kwargs)

    original = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", interrupt)
    model.requires_grad_(False)
    with pytest.raises(KeyboardInterrupt):
        execute_ft_l_delete(model, tok, requests_, settings())
    assert len(steps) == 3
    assert_same_bits(model, before)
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": 0}, "num_steps is 0"),
        ({"lr": 0}, "lr is 0"),
        ({"norm_constraint": -1}, "norm_constraint is -1"),
        ({"goal_probability": 1}, "goal_probability is 1"),
        ({"alg_name": "FT"}, 'alg_name is "FT", but these are the settings of "FT-L-delete"'),
    ],
)
def test_settings_that_cannot_be_used_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        settings(**changes)


def test_the_packaged_settings_load():
    assert FTLDeleteHyperParams.from_hparams("smollm2-135m").layers == [20]
