"""The lm-evaluation-harness on a task made here: an edit that takes an answer away is seen."""

import json
import random

import pytest
import torch
from helpers import assert_same_bits, snapshot, tiny_settings

from revs_tars_plugin import InputError, execute_revs
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
# The same questions answered in the model's own words.
SAID = """
task: tiny_said
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
output_type: generate_until
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[label]}}}}"
generation_kwargs:
  until: ["never said"]
  max_gen_toks: 1
  do_sample: false
metric_list:
  - metric: exact_match
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
    (tmp_path / "said.yaml").write_text(SAID.format(data=tmp_path / "data.jsonl"))
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


def test_the_harness_reads_an_exported_adapter(model, tok, task_folder, tmp_path):
    """As the documented command does: the base by its folder, the adapter by its own; edited weights give the same."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    tok.pad_token = tok.eos_token = "<unk>"
    model.save_pretrained(tmp_path / "base")
    tok.save_pretrained(tmp_path / "base")
    rows = list(map(json.loads, (task_folder / "data.jsonl").read_text().splitlines()))
    requests = [{"prompt": row["question"], "target_new": row["choices"][row["label"]]} for row in rows[:3]]
    edits = execute_revs(model, tok, requests, tiny_settings(max_tokens=1))
    edits.to_peft(tmp_path / "adapter", base_model=str(tmp_path / "base"))
    tasks = ["tiny_capitals", "tiny_said"]
    before = general_capability(model, tok, tasks, include_path=task_folder)
    edits.apply(model)
    after = general_capability(model, tok, tasks, include_path=task_folder)
    assert before == {"tiny_capitals": {"acc": 1.0}, "tiny_said": {"exact_match": 1.0}}
    assert after["tiny_said"]["exact_match"] <= 0.5
    adapted = lm_eval.simple_evaluate(
        model=HFLM(pretrained=str(tmp_path / "base"), peft=str(tmp_path / "adapter"), device="cpu", batch_size=4),
        tasks=tasks,
        task_manager=TaskManager(include_path=str(task_folder)),
        bootstrap_iters=0,
    )["results"]
    for task, metrics in after.items():
        for metric, value in metrics.items():
            assert adapted[task][f"{metric},none"] == value


def test_what_cannot_be_run_is_named(model, tok, tmp_path):
    tok.pad_token = tok.eos_token = "<unk>"
    with pytest.raises(InputError, match="names no_such_task, which"):
        general_capability(model, tok, ["no_such_task"])
    with pytest.raises(InputError, match="tasks is empty"):
        general_capability(model, tok, [])
    (tmp_path / "tiny.yaml").write_text(TASK.format(data=tmp_path / "none.jsonl"))
    with pytest.raises(InputError, match="data of tiny_capitals is not at hand"):
        general_capability(model, tok, ["tiny_capitals"], include_path=tmp_path)
