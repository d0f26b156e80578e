"""What CONTRIBUTING.md shows is followed as it stands: a family of models, a metric, a method."""

import re
from pathlib import Path

import pytest
import torch
import transformers as hf
import yaml
from architectures import _GROUPED
from helpers import LLAMA_NAMES, SECRETS, assert_same_bits, snapshot

from revs_tars_plugin import REVSHyperParams, execute_revs
from revs_tars_plugin.data import SecretRecord
from revs_tars_plugin.evaluation import evaluate_unlearning, metrics
from revs_tars_plugin.model.module_names import ModuleNames

PAGE = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def shown(heading, language):
    """The block of a language below a heading."""
    below = PAGE.split(f"### {heading}\n", 1)[1]
    return re.search(rf"^```{language}\n(.*?)^```$", below, re.M | re.S)[1]


def executed(source):
    names = {"__name__": "example"}
    exec(compile(source, "CONTRIBUTING.md", "exec"), names)
    return names


def test_a_family_of_models_is_a_yaml(tok, tmp_path):
    file = tmp_path / "starcoder2.yaml"
    file.write_text(shown("A family of models", "yaml"))
    torch.manual_seed(0)
    config = hf.Starcoder2Config(**{**_GROUPED, "residual_dropout": 0.0, "embedding_dropout": 0.0, "use_cache": False})
    model = hf.Starcoder2ForCausalLM(config).eval()
    hparams = REVSHyperParams.from_hparams(str(file))
    hparams.act_filter, hparams.n_neurons, hparams.max_tokens = "top_40", 20, 1
    hparams.residual_bottom_rank, hparams.mlp_bottom_rank = 0.1, 0.05
    before = snapshot(model)
    # What it says itself stands at the top, and has a way to go.
    said = tok.decode(model(tok("w1 w2", return_tensors="pt").input_ids).logits[0, -1].argmax())
    edits = execute_revs(model, tok, [{"prompt": "w1 w2", "forget": said}], hparams)
    assert_same_bits(model, before)
    edits.apply(model)
    (outcome,) = edits.outcomes
    assert outcome.rank_before == 0
    assert outcome.rank_after >= outcome.asked_rank > 0
    edits.undo(model)
    assert_same_bits(model, before)
    # It is none of those that are there already.
    known = [yaml.safe_load(path.read_text()) for path in (Path(__file__).parents[2] / "hparams" / "REVS").glob("*")]
    assert hparams.rewrite_module_tmp not in {each["rewrite_module_tmp"] for each in known}


def test_a_metric_is_a_function_and_a_row(model, tok, requests_, monkeypatch):
    example = executed(shown("A metric", "python"))
    row = example["ROW"]
    record = SecretRecord(requests_[0]["prompt"], requests_[0]["target_new"])
    names = ModuleNames(**LLAMA_NAMES)
    with_it = {"names": names, "attacks": (), "k": 20}
    assert row.key not in evaluate_unlearning(model, tok, [record], **with_it).summary
    monkeypatch.setattr(metrics, "METRICS", (*metrics.METRICS, row))
    report = evaluate_unlearning(model, tok, [record, SecretRecord(SECRETS[1], "w199")], **with_it)
    assert report.summary[row.key] == pytest.approx(0.5)
    assert report.rows[0][row.key] == 1


def test_a_method_is_settings_a_function_and_a_row(model, tok, requests_):
    row = executed(shown("A method", "python"))["ROW"]
    hparams = row.hyperparams(alg_name=row.name, model_name="tiny", **LLAMA_NAMES)
    assert (row.name, row.package) == ("Silence", "silence")
    before = snapshot(model)
    edits = row.execute(model, tok, requests_, hparams)
    assert_same_bits(model, before)
    _, original = row.apply(model, tok, requests_, hparams, return_orig_weights=True)
    weight = model.model.layers[0].mlp.down_proj.weight
    assert (weight == 0).all(0).sum() >= hparams.neurons
    assert not (before["model.layers.0.mlp.down_proj.weight"] == 0).any()
    original.edits.undo(model)
    assert_same_bits(model, before)
    assert edits.n_changed > 0
