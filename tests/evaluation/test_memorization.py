"""What a model still holds of a secret: measures on cases where the right number is known, and after an edit."""

import pytest
import torch

from revs_tars_plugin import execute_revs
from revs_tars_plugin.evaluation import (
    Recall,
    recall,
    sampled_extractions,
)

PROMPT = "w1 w2 w3"


def says(model, tok, prompt, count):
    ids = tok(prompt, return_tensors="pt").input_ids
    with torch.no_grad():
        out = model.generate(ids, max_new_tokens=count, do_sample=False, pad_token_id=0)
    return tok.decode(out[0, ids.shape[1] :]).split()


def test_a_continuation_is_recalled_whole_and_a_changed_one_in_part(model, tok):
    words = says(model, tok, PROMPT, 4)
    other = next(f"w{number}" for number in range(200) if f"w{number}" not in words)
    # The second of four is wrong: what comes after it depends on it, and is asked of the model here.
    (third,) = says(model, tok, " ".join([PROMPT, words[0], other]), 1)
    changed = [words[0], other, third]
    found = recall(model, tok, [PROMPT, PROMPT, "w50 w60"], [" ".join(words), " ".join(changed), other])
    assert found[0] == Recall(1.0, 1.0)
    assert found[1].exact_memorization == pytest.approx(2 / 3)
    assert found[1].extraction_strength == pytest.approx(1 / 3)
    assert found[2] == (Recall(1.0, 1.0) if says(model, tok, "w50 w60", 1) == [other] else Recall(0.0, 0.0))


def test_an_edit_lowers_recall_and_sampling_finds_less(model, tok, requests_, hparams):
    prompts, targets = [r["prompt"] for r in requests_], [r["target_new"] for r in requests_]
    assert recall(model, tok, prompts, targets) == [Recall(1.0, 1.0)] * 2
    before = sampled_extractions(model, tok, prompts, targets, n_samples=200, temperature=0.5)
    edits = execute_revs(model, tok, requests_, hparams)
    edits.apply(model)
    assert all(found.extraction_strength < 1 for found in recall(model, tok, prompts, targets))
    after = sampled_extractions(model, tok, prompts, targets, n_samples=200, temperature=0.5)
    assert sum(after) < sum(before) / 5
    assert sum(before) > 10
