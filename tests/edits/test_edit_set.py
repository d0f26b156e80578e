"""Edits are exact: applied and undone to the bit, or refused as a whole."""

import pytest
import torch
from helpers import assert_same_bits, snapshot
from transformers.pytorch_utils import Conv1D

from revs_tars_plugin.edits.apply import OriginalWeights
from revs_tars_plugin.edits.trial import TrialEdits
from revs_tars_plugin.errors import EditConflictError
from revs_tars_plugin.model.matrices import FeedForwardMatrix

NAME = "model.layers.1.mlp.down_proj.weight"


def matrix_of(model, name=NAME, neuron_dim=1):
    return FeedForwardMatrix(model.get_submodule(name.removesuffix(".weight")), name, neuron_dim)


def an_edit(model, indices=(3, 9), scale=2.0, name=NAME):
    indices, matrix = torch.tensor(indices), matrix_of(model, name)
    with TrialEdits() as trial:
        trial.write_neurons(matrix, indices, matrix.neurons(indices) * scale)
        return trial.collect("TEST", ())


def test_a_trial_changes_the_weights_only_while_it_lasts(model):
    before = snapshot(model)
    weight = model.get_parameter(NAME)
    with TrialEdits() as trial:
        trial.write_neurons(matrix_of(model), torch.tensor([4]), torch.ones(1, 32))
        trial.write_neurons(matrix_of(model), torch.tensor([4, 5]), torch.zeros(2, 32))
        assert not weight.detach()[:, 4:6].any()
    assert_same_bits(model, before)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_trial_that_breaks_off_puts_everything_back(model, error):
    before = snapshot(model)
    with pytest.raises(error), TrialEdits() as trial:
        trial.write_neurons(matrix_of(model), torch.tensor([4]), torch.ones(1, 32))
        raise error
    assert_same_bits(model, before)


def test_a_second_interrupt_waits_until_everything_is_back(model, monkeypatch):
    import revs_tars_plugin.edits.trial as module

    before = snapshot(model)
    write, calls = module.write_neurons, []

    def interrupted_once(*args):
        calls.append(args)
        if len(calls) == 1:
            raise KeyboardInterrupt
        write(*args)

    trial = TrialEdits()
    trial.write_neurons(matrix_of(model), torch.tensor([4]), torch.ones(1, 32))
    monkeypatch.setattr(module, "write_neurons", interrupted_once)
    with pytest.raises(KeyboardInterrupt):
        trial.__exit__(None, None, None)
    assert_same_bits(model, before)


def test_apply_and_undo(model):
    before = snapshot(model)
    edits = an_edit(model)
    assert_same_bits(model, before)
    edits.apply(model)
    changed = model.get_parameter(NAME).detach() != before[NAME]
    assert changed.any(dim=0).nonzero().flatten().tolist() == [3, 9]
    edits.undo(model)
    assert_same_bits(model, before)


def test_conv1d_keeps_its_neurons_in_rows():
    torch.manual_seed(0)
    model = torch.nn.Sequential(Conv1D(6, 10))
    before = snapshot(model)
    weight = model.get_parameter("0.weight")
    with TrialEdits() as trial:
        trial.write_neurons(matrix_of(model, "0.weight", 0), torch.tensor([7]), torch.ones(1, 6))
        edits = trial.collect("TEST", ())
    edits.apply(model)
    assert (weight.detach()[7] == 1).all()
    edits.undo(model)
    assert_same_bits(model, before)


def test_applying_twice_or_undoing_what_is_not_there_is_refused(model):
    edits = an_edit(model)
    with pytest.raises(EditConflictError, match="not applied"):
        edits.undo(model)
    edits.apply(model)
    after = snapshot(model)
    with pytest.raises(EditConflictError, match="already applied"):
        edits.apply(model)
    assert_same_bits(model, after)


def test_another_base_is_refused_before_anything_changes(model):
    first = an_edit(model, name="model.layers.0.mlp.down_proj.weight")
    edits = an_edit(model)
    both = type(edits)("TEST", first.edits + edits.edits)
    with torch.no_grad():
        model.get_parameter(NAME)[0, 3] += 1
    before = snapshot(model)
    with pytest.raises(EditConflictError, match=r"layers\.1"):
        both.apply(model)
    assert_same_bits(model, before)


def test_overlapping_edits_are_undone_last_first(model):
    before = snapshot(model)
    first = an_edit(model)
    first.apply(model)
    second = an_edit(model, indices=(9, 11), scale=3.0)
    second.apply(model)
    with pytest.raises(EditConflictError, match="undo later edits first"):
        first.undo(model)
    second.undo(model)
    first.undo(model)
    assert_same_bits(model, before)


def test_an_edit_that_breaks_off_while_being_applied_is_rolled_back(model, monkeypatch):
    import revs_tars_plugin.edits.weight_edits as module

    first = an_edit(model, name="model.layers.0.mlp.down_proj.weight")
    both = type(first)("TEST", first.edits + an_edit(model).edits)
    before = snapshot(model)
    write, calls = module.write_neurons, []

    def breaks_at_the_second(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write(*args)

    monkeypatch.setattr(module, "write_neurons", breaks_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        both.apply(model)
    assert_same_bits(model, before)


def test_original_weights_are_rebuilt_from_the_edited_ones(model):
    before = snapshot(model)
    edits = an_edit(model)
    edits.apply(model)
    original = OriginalWeights(model, edits)
    assert list(original) == [NAME]
    assert torch.equal(original[NAME], before[NAME])
    assert not torch.equal(model.get_parameter(NAME), before[NAME])
    assert not dict(original.kept())
    assert original.kept().edits is edits
