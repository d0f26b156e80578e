"""Whatever stops a method in the middle, no weight is left changed; several edits come off in any order or say why."""

import itertools
import random

import pytest
import torch
from helpers import assert_same_bits, covariance_settings, snapshot, tiny_settings, tiny_tars

from revs_tars_plugin import EditConflictError, execute_revs, execute_tars

ATTEMPTS = 50


class InterruptAt:
    """Stops with Ctrl-C at the n-th run of a layer."""

    def __init__(self, model, layer, count):
        self.left = count
        self.handle = model.model.layers[layer].register_forward_pre_hook(self)

    def __call__(self, *_):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.handle.remove()


def methods(tmp_path):
    yield execute_revs, tiny_settings()
    yield execute_revs, covariance_settings(tmp_path)
    yield execute_tars, tiny_tars(n_edits=10, affinity="cosine", goal_probability=0.0001, min_probability=0.001)


def test_fifty_interrupts_at_random_moments(model, tok, requests_, tmp_path):
    before = snapshot(model)
    rng = random.Random(0)
    chosen = list(methods(tmp_path))
    stopped = 0
    for attempt in range(ATTEMPTS):
        execute, hparams = chosen[attempt % len(chosen)]
        with InterruptAt(model, rng.randrange(3), rng.randrange(1, 12)):
            try:
                execute(model, tok, requests_, hparams)
            except KeyboardInterrupt:
                stopped += 1
        assert_same_bits(model, before)
        assert not model.training
        assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())
    assert stopped > ATTEMPTS / 2


def edits_of(model, tok, requests, tmp_path, kind):
    """Three edits, each computed with the ones before in place."""
    found = []
    for index, layer in enumerate((0, 1, 2)):
        request = requests[index % 2 : index % 2 + 1]
        layers = [layer] if kind == "other layers" else [1]
        changes = {"layers": layers, "residual_bottom_rank": 5 + 5 * index}
        if kind == "same matrix":
            hparams = covariance_settings(tmp_path, **changes)
        else:
            hparams = tiny_settings(n_neurons=3, act_filter="top_20", **changes)
        edits = execute_revs(model, tok, request, hparams)
        assert edits.edits
        edits.apply(model)
        found.append(edits)
    return found


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_edits_of_other_layers_come_off_in_any_order(model, tok, requests_, tmp_path, order):
    before = snapshot(model)
    edits = edits_of(model, tok, requests_, tmp_path, "other layers")
    for index in order:
        edits[index].undo(model)
    assert_same_bits(model, before)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_edits_of_one_matrix_come_off_last_first_or_are_refused(model, tok, requests_, tmp_path, order):
    before = snapshot(model)
    edits = edits_of(model, tok, requests_, tmp_path, "same matrix")
    stack = [0, 1, 2]
    for index in order:
        state = snapshot(model)
        if index == stack[-1]:
            edits[stack.pop()].undo(model)
        else:
            with pytest.raises(EditConflictError, match="undo later edits first"):
                edits[index].undo(model)
            assert_same_bits(model, state)
    for index in reversed(stack):
        edits[index].undo(model)
    assert_same_bits(model, before)


def test_an_edit_set_reloaded_undoes_the_one_that_was_applied(model, tok, requests_, tmp_path):
    """Neurons carry what stood there before, so another process can take the edit back out of a merged checkpoint."""
    before = snapshot(model)
    edits = execute_revs(model, tok, requests_, tiny_settings())
    edits.apply(model)
    edits.save(tmp_path / "edit.safetensors")
    merged = type(model)(model.config).eval()
    merged.load_state_dict(model.state_dict())
    type(edits).load(tmp_path / "edit.safetensors").undo(merged)
    assert_same_bits(merged, before)
    assert torch.equal(merged.lm_head.weight, model.lm_head.weight)
