"""Every family in bfloat16 and float16: what is reported is what the cast weights do, and every bit comes back."""

import logging

import pytest
import torch
from architectures import FAMILIES, logits_after, request_for, settings_of
from helpers import assert_same_bits, snapshot

from revs_tars_plugin import execute_revs, execute_tars
from revs_tars_plugin.requests.reading import read_requests

HALF = [torch.bfloat16, torch.float16]
# Half precision ties many tokens, and a batch may round otherwise than a single pass.
ROUNDING = 3


def half(name, dtype):
    return FAMILIES[name].make().to(dtype)


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("localization", ["neurons", "covariance"])
@pytest.mark.parametrize("name", FAMILIES)
def test_revs_reports_the_rank_of_the_cast_weights(name, localization, dtype, tok, tmp_path, caplog):
    model = half(name, dtype)
    before = snapshot(model)
    request = request_for(model, tok)
    hparams = settings_of(FAMILIES[name], "REVS", tmp_path, localization=localization)
    with caplog.at_level(logging.WARNING):
        edits = execute_revs(model, tok, [request], hparams)
    assert_same_bits(model, before)
    (outcome,) = edits.outcomes
    assert outcome.rank_before <= ROUNDING
    # Where the cast undoes it in spite of the repairs, it is said.
    assert outcome.reached or "ended at rank" in caplog.text
    assert outcome.rank_after > 30
    edits.apply(model)
    assert {value.dtype for value in model.state_dict().values() if value.is_floating_point()} == {dtype}
    (secret,) = read_requests([request], tok)
    found = logits_after(model, secret.context(0))
    assert abs(int((found > found[secret.target_ids[0]]).sum()) - outcome.rank_after) <= ROUNDING
    edits.undo(model)
    assert_same_bits(model, before)


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_tars_reports_the_probability_of_the_cast_weights(name, dtype, tok, tmp_path):
    model = half(name, dtype)
    before = snapshot(model)
    request = request_for(model, tok)
    changes = {"matrices": ["down"], "min_probability": 0.001, "goal_probability": 0.0005}
    edits = execute_tars(model, tok, [request], settings_of(FAMILIES[name], "TARS", tmp_path, **changes))
    assert_same_bits(model, before)
    (outcome,) = edits.outcomes
    assert max(outcome.after) < 0.7 * max(outcome.before)
    edits.apply(model)
    (secret,) = read_requests([request], tok)
    found = logits_after(model, secret.prompt_ids).softmax(dim=-1)
    # The name's other spellings count as well, so its own token is at most that likely.
    assert float(found[secret.target_ids[0]]) <= max(outcome.after) * 1.05 + 1e-4
    edits.undo(model)
    assert_same_bits(model, before)
