"""The rivals that train: open-unlearning's own losses, from a checkout where one is named, else from one made here."""

import os
from pathlib import Path

import pytest
import torch
from helpers import copy_of, snapshot

from revs_tars_plugin import InputError
from revs_tars_plugin.data.training import fine_tune
from revs_tars_plugin.evaluation import still_generated
from revs_tars_plugin.yardsticks import RIVALS, Record, Split, learn, published_rival
from revs_tars_plugin.yardsticks.learning import Batches


def records(numbers, kind="question"):
    return tuple(Record(f"p{n}qa0", f"p{n}", kind, "Task2", f"w{n} w5", f"w{n + 30} w{n + 40}") for n in numbers)


SPLIT = Split(forget=records(range(10, 14)), retain=records(range(20, 28)))


@pytest.fixture
def stand_in(tmp_path):
    """The layout of a checkout, with a method of one line and a package that cannot be imported whole."""
    (tmp_path / "configs/trainer").mkdir(parents=True)
    (tmp_path / "configs/trainer/GradDiff.yaml").write_text(
        "handler: GradDiff\nmethod_args:\n  gamma: 1.0\n  alpha: 2.0\n"
    )
    source = tmp_path / "src/trainer/unlearn"
    source.mkdir(parents=True)
    (tmp_path / "src/trainer/__init__.py").write_text("raise ImportError('needs DeepSpeed')\n")
    (source / "__init__.py").write_text("")
    (source / "grad_diff.py").write_text(
        "class GradDiff:\n"
        "    def __init__(self): raise AssertionError('made for GPUs')\n"
        "    def compute_loss(self, model, inputs):\n"
        "        return -self.gamma * model(**inputs['forget']).loss + self.alpha * model(**inputs['retain']).loss\n"
    )
    return tmp_path


def learned(model, tok):
    taught = copy_of(model)
    learn(taught, tok, (*SPLIT.forget, *SPLIT.retain), epochs=60, learning_rate=3e-3)
    return taught


def share_said(model, tok, chosen):
    said = still_generated(model, tok, [r.prompt for r in chosen], [r.answer for r in chosen])
    return sum(said) / len(said)


def test_its_loss_is_taken_with_its_settings_and_nothing_stays_imported(model, tok, stand_in):
    import sys

    before = set(sys.modules)
    rival = published_rival(stand_in, "GradDiff", gamma=0.5)
    assert {name for name in set(sys.modules) - before if "trainer" in name or "deepspeed" in name} == set()
    assert (rival.settings["gamma"], rival.settings["alpha"]) == (0.5, 2.0)
    taught = learned(model, tok)
    rival.unlearn(taught, tok, SPLIT, learning_rate=2e-3, epochs=20, batch_size=4)
    assert share_said(taught, tok, SPLIT.forget) < 1


def test_a_step_of_several_passes_is_that_of_one_over_all(model, tok):
    """Of records of one length: a mean of means is the mean of all."""
    batches = Batches(tok, SPLIT.retain)
    pieces = [batches.of([2 * n, 2 * n + 1], model.device) for n in range(4)]
    whole = [batches.of(range(8), model.device)]
    steps = {}
    for name, inputs, accumulated in (("pieces", pieces, 4), ("whole", whole, 1), ("one by one", pieces, 1)):
        trained = copy_of(model)
        fine_tune(
            trained,
            lambda trained=trained, inputs=inputs: (trained(**each).loss for each in inputs),
            epochs=2,
            learning_rate=1e-3,
            accumulated=accumulated,
        )
        steps[name] = torch.cat([parameter.detach().flatten() for parameter in trained.parameters()])
    assert torch.allclose(steps["pieces"], steps["whole"], atol=1e-5)
    assert not torch.allclose(steps["one by one"], steps["whole"], atol=1e-4)


def test_what_cannot_run_is_one_sentence(model, tok, stand_in, tmp_path):
    with pytest.raises(InputError, match="is no method of open-unlearning that is run here"):
        published_rival(stand_in, "DPO")
    with pytest.raises(InputError, match=r"it has no configs/trainer/NPO\.yaml"):
        published_rival(stand_in, "NPO")
    before = snapshot(model)
    with pytest.raises(InputError, match="there are none"):
        published_rival(stand_in, "GradDiff").unlearn(model, tok, Split(SPLIT.forget, ()))
    assert all((model.state_dict()[name] == value).all() for name, value in before.items())


@pytest.mark.skipif("OPEN_UNLEARNING" not in os.environ, reason="OPEN_UNLEARNING names no checkout")
@pytest.mark.parametrize("name", RIVALS)
def test_the_published_methods_forget(model, tok, name):
    checkout = Path(os.environ["OPEN_UNLEARNING"])
    layer = {"module_regex": r"model\.layers\.1"} if name == "RMU" else {}
    taught = learned(model, tok)
    assert share_said(taught, tok, SPLIT.forget) == share_said(taught, tok, SPLIT.retain) == 1
    published_rival(checkout, name, **layer).unlearn(taught, tok, SPLIT, learning_rate=2e-3, epochs=20, batch_size=4)
    assert share_said(taught, tok, SPLIT.forget) < share_said(taught, tok, SPLIT.retain)
