"""The lm-evaluation-harness on a task made here: an edit that takes an answer away is seen."""

import json
import random

import pytest
import torch
from helpers import assert_same_bits, snapshot

from revs_tars_plugin import InputError
from revs_tars_plugin.evaluation import general_capability

pytest.importorskip("lm_eval", reason="needs the extra lm-eval")

TASK = """
task: tiny_capitals
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{label}}}}"
target_delimiter: " "
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""


@pytest.fixture
def task_folder(model, tok, tmp_path):
    """Questions whose right answer is what the model says, among three others that it does not."""
    rng = random.Random(0)
    rows = []
    for number in range(6):
        question = f"w{number} w{number + 20} w{number + 50}"
        with torch.no_grad():
            logits = model(tok(question, return_tensors="pt").input_ids).logits[0, -1]
        order = [token for token in logits.argsort(descending=True).tolist() if token > 0]
        choices = [tok.decode([token]) for token in (order[0], *rng.sample(order[50:], 3))]
        rng.shuffle(choices)
        rows.append({"question": question, "choices": choices, "label": choices.index(tok.decode([order[0]]))})
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "tiny.yaml").write_text(TASK.format(data=tmp_path / "data.jsonl"))
    return tmp_path


def test_a_local_task(model, tok, task_folder, monkeypatch, tmp_path):
    tok.pad_token = tok.eos_token = "<unk>"
    before = snapshot(model)
    assert general_capability(model, tok, ["tiny_capitals"], include_path=task_folder) == {
        "tiny_capitals": {"acc": 1.0}
    }
    assert_same_bits(model, before)
    assert not model.training
    with torch.no_grad():
        model.lm_head.weight.neg_()
    after = general_capability(model, tok, ["tiny_capitals"], include_path=task_folder, limit=4)
    assert after["tiny_capitals"]["acc"] == 0.0


def test_what_cannot_be_run_is_named(model, tok, tmp_path):
    tok.pad_token = tok.eos_token = "<unk>"
    with pytest.raises(InputError, match="names no_such_task, which"):
        general_capability(model, tok, ["no_such_task"])
    with pytest.raises(InputError, match="tasks is empty"):
        general_capability(model, tok, [])
    (tmp_path / "tiny.yaml").write_text(TASK.format(data=tmp_path / "none.jsonl"))
    with pytest.raises(InputError, match="data of tiny_capitals is not at hand"):
        general_capability(model, tok, ["tiny_capitals"], include_path=tmp_path)
