"""Every entry point of the host's editors, for REVS and TARS: what stays is all in `weights.edits`, else none of it."""

import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from architectures import said
from helpers import assert_same_bits, snapshot, tiny_settings, tiny_tars

from revs_tars_plugin import EditSet, InputError
from revs_tars_plugin.requests.forgotten import GuessWarning

PROMPTS = ["w1 w2 w3", "w50 w60 w70 w80", "w100 w110 w120"]
UNRELATED = {"unrelated": {"prompt": ["w9 w8 w7"], "ground_truth": ["w5"]}}
SEVERAL = {"several": {"prompt": [["w9 w8 w7", "w30 w40"]], "ground_truth": [["w5", "w6"]]}}
METHODS = {"REVS": tiny_settings, "TARS": tiny_tars}


@pytest.fixture(params=METHODS)
def method(request, host, model, tok, tmp_path):
    """One of the host's editors set to a method, with the tiny model and facts that it knows."""
    from easyeditor import BaseEditor

    tok.chat_template = "{% for message in messages %}{{ message.content }} {% endfor %}"
    editor = BaseEditor.__new__(BaseEditor)
    editor.hparams = METHODS[request.param](stats_dir=str(tmp_path / "stats"))
    editor.model, editor.tok, editor.model_name, editor.device = model, tok, "tiny-llama", "cpu"
    editor.alg_name, editor.apply_algo = request.param, host.algorithms[request.param]
    targets = [tok.decode([said(model, tok, prompt)]) for prompt in PROMPTS]
    return SimpleNamespace(
        editor=editor,
        prompts=list(PROMPTS),
        targets=targets,
        model=model,
        requests=[
            {
                "prompt": prompt,
                "forget": target,
                "target_new": target,
                "ground_truth": None,
                "locality": {},
                "portability": {},
            }
            for prompt, target in zip(PROMPTS, targets, strict=True)
        ],
    )


def kept(host):
    return {"keep_original_weight": False} if host.generation == "release" else {"sequential_edit": True}


def rolled_back(host):
    return {"keep_original_weight": True} if host.generation == "release" else {"sequential_edit": False}


def says(method, index):
    return method.editor.tok.decode([said(method.model, method.editor.tok, method.prompts[index])])


def edit(host, method, how):
    return method.editor.edit(
        prompts=method.prompts, target_new=method.targets, forget=method.targets, verbose=False, **how
    )


def edit_requests(host, method, how):
    return method.editor.edit_requests(method.requests, verbose=False, **how)


def batch_edit(host, method, how):
    method.editor.hparams.batch_size = 2  # two chunks
    return method.editor.batch_edit(
        prompts=method.prompts, target_new=method.targets, forget=method.targets, verbose=False, **how
    )


def normal_edit(host, method, how):
    if host.generation == "release":
        pytest.skip("the release has no normal_edit")
    method.editor.hparams.forget_field = "target_new"
    return method.editor.normal_edit(method.prompts, method.targets, **how)


def edit_dataset(host, method, how):
    if host.generation == "main":
        pytest.skip("branch main has no edit_dataset")
    from easyeditor import CounterFactDataset

    records = [{**request, "case_id": index} for index, request in enumerate(method.requests)]
    Path("records.json").write_text(json.dumps(records), encoding="utf-8")
    method.editor.hparams.batch_size = 2
    return method.editor.edit_dataset(CounterFactDataset("records.json"), verbose=False, **how)


ENTRY_POINTS = [edit, edit_requests, batch_edit, normal_edit, edit_dataset]


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
def test_all_that_is_kept_is_in_edits(host, method, entry_point, tmp_path):
    before = snapshot(method.model)
    assert all(target == says(method, index) for index, target in enumerate(method.targets))
    _, model, weights = entry_point(host, method, kept(host))
    assert model is method.model
    for index, target in enumerate(method.targets):
        assert target != says(method, index)
    edited = snapshot(method.model)
    assert [request["prompt"] for request in weights.edits.requests] == method.prompts
    weights.edits.save(tmp_path / "edit.safetensors")
    weights.edits.undo(method.model)
    assert_same_bits(method.model, before)
    loaded = EditSet.load(tmp_path / "edit.safetensors")
    loaded.apply(method.model)
    assert_same_bits(method.model, edited)
    loaded.undo(method.model)


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
def test_after_a_rollback_there_is_nothing_to_undo_or_save(host, method, entry_point, tmp_path):
    before = snapshot(method.model)
    _, _, weights = entry_point(host, method, rolled_back(host))
    assert_same_bits(method.model, before)
    assert weights.edits.edits == ()
    assert all(outcome.reached for outcome in weights.edits.outcomes)
    assert len(weights.edits.requests) == 3
    for refused in (
        lambda: weights.edits.undo(method.model),
        lambda: weights.edits.save(tmp_path / "edit.safetensors"),
    ):
        with pytest.raises(InputError, match="the model was restored after it"):
            refused()
    assert not list(tmp_path.iterdir())


def test_a_call_that_fails_on_the_way_leaves_nothing_behind(host, method):
    """The first prompt's edit was in place already when the second one's request was read."""
    before = snapshot(method.model)
    with pytest.raises(InputError, match="nothing to forget"):
        method.editor.edit(
            prompts=method.prompts[:2],
            target_new=method.targets[:2],
            forget=[method.targets[0], ""],
            verbose=False,
            **kept(host),
        )
    assert_same_bits(method.model, before)


def test_a_call_whose_evaluation_fails_leaves_nothing_behind(host, method, monkeypatch):
    before = snapshot(method.model)
    module = host.module("editors.editor")
    measure, calls = module.compute_edit_quality, []

    def fails_after_the_edit(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            assert any(not torch.equal(value, before[name]) for name, value in method.model.state_dict().items())
            raise RuntimeError("no more memory")
        return measure(*args, **kwargs)

    monkeypatch.setattr(module, "compute_edit_quality", fails_after_the_edit)
    with pytest.raises(RuntimeError, match="no more memory"):
        method.editor.edit(
            prompts=method.prompts[:1],
            target_new=method.targets[:1],
            forget=method.targets[:1],
            verbose=False,
            **rolled_back(host),
        )
    assert_same_bits(method.model, before)


def test_what_is_forgotten_is_said_by_the_call_or_the_settings(host, method):
    """The answers come as lists, as ZsRE and KnowEdit have them; the new answer stays as likely as it was."""
    arguments = {"prompts": method.prompts[:1], "target_new": ["w199"], "verbose": False, **kept(host)}
    answers = [[method.targets[0], "w150"]]
    with warnings.catch_warnings():
        warnings.simplefilter("error", GuessWarning)
        _, model, weights = method.editor.edit(**arguments, forget=answers)
        assert method.targets[0] != says(method, 0)
        weights.edits.undo(model)
        method.editor.hparams.forget_field = "ground_truth"
        _, model, weights = method.editor.edit(**arguments, ground_truth=[[[method.targets[0]]]])
        assert method.targets[0] != says(method, 0)
        weights.edits.undo(model)
        method.editor.hparams.forget_field = "forget"
        with pytest.raises(InputError, match='its "forget" is empty'):
            method.editor.edit(**arguments)
        with pytest.raises(InputError, match="forget has 2 entries for 1 prompts"):
            method.editor.edit(**arguments, forget=["a", "b"])
    method.editor.hparams.forget_field = ""
    with pytest.warns(GuessWarning, match='"target_new"') as told:
        _, model, weights = method.editor.edit(**{**arguments, "target_new": method.targets[:1]})
    assert sum(issubclass(warning.category, GuessWarning) for warning in told) == 1
    weights.edits.undo(model)


def test_requests_made_by_the_caller_take_forget_too(host, method):
    requests = [{key: value for key, value in request.items() if key != "forget"} for request in method.requests[:1]]
    requests[0]["target_new"] = "w199"
    _, model, weights = method.editor.edit_requests(requests, forget=[method.targets[0]], verbose=False, **kept(host))
    assert method.targets[0] != says(method, 0)
    assert "forget" not in requests[0]
    weights.edits.undo(model)


def test_an_editor_without_a_method_still_works(host, method):
    """The host's ConceptEditor has one, for prompts alone."""
    if host.generation == "release":
        pytest.skip("the release has no ConceptEditor")
    from easyeditor import ConceptEditor

    editor = other_editor(ConceptEditor, method)
    del editor.apply_algo
    editor.alg_name = "prompt"
    before = snapshot(method.model)
    metrics, _, _ = editor.edit(
        prompts=[method.prompts[0]], target_new=[method.targets[0]], subject=["w1"], verbose=False
    )
    assert len(metrics) == 1
    assert_same_bits(method.model, before)


def test_metrics_with_generated_text_and_lists_of_prompts(host, method, monkeypatch):
    """`test_generation`, locality and portability, each with one prompt and with several, are the host's own."""
    # The host counts words with a model that nltk would download.
    monkeypatch.setattr("nltk.word_tokenize", str.split)
    metrics, _, _ = method.editor.edit(
        prompts=method.prompts[:1],
        target_new=method.targets[:1],
        forget=method.targets[:1],
        locality_inputs={**UNRELATED, **SEVERAL},
        portability_inputs={**UNRELATED, **SEVERAL},
        test_generation=True,
        verbose=False,
        **rolled_back(host),
    )
    pre, post = metrics[0]["pre"], metrics[0]["post"]
    assert (pre["rewrite_acc"][0], post["rewrite_acc"][0]) == (1, 0)
    assert post["fluency"]["ngram_entropy"] > 0
    assert [len(post["locality"][f"{name}_acc"]) for name in ("unrelated", "several")] == [1, 2]
    assert all(0 <= share <= 1 for share in post["locality"]["several_acc"])
    assert len(post["portability"]["several_acc"]) == 2


@pytest.mark.parametrize(("name", "key"), [("ppl", "rewrite_ppl"), ("ood_ppl", "ood_acc")])
def test_perplexity_and_out_of_distribution_metrics(host, method, name, key):
    if host.generation == "release" and name == "ood_ppl":
        pytest.skip("the release has no ood_ppl")
    metrics, _, _ = method.editor.edit_requests(
        method.requests[:1], eval_metric=name, verbose=False, **rolled_back(host)
    )
    before, after = metrics[0]["pre"][key], metrics[0]["post"][key]
    if name == "ppl":
        assert after > 2 * before
    else:
        assert 0 <= after <= 1


def test_generate_edit(host, method, monkeypatch):
    """The host lets the model answer in its chat template, 512 tokens a prompt; a few are enough here."""
    if host.generation == "release":
        pytest.skip("the release has no generate_edit")
    generate = method.model.generate
    monkeypatch.setattr(
        method.model, "generate", lambda *args, **kwargs: generate(*args, **{**kwargs, "max_new_tokens": 4})
    )
    before = snapshot(method.model)
    results, model, weights = method.editor.generate_edit(
        prompts=method.prompts[:1],
        target_new=method.targets[:1],
        forget=method.targets[:1],
        rephrase_prompts=method.prompts[:1],
        portability_inputs={"por_hop": SEVERAL["several"]},
        locality_inputs={"loc_hop": SEVERAL["several"]},
        sequential_edit=True,
        verbose=False,
    )
    assert results[0]["pre"].keys() == results[0]["post"].keys()
    assert method.targets[0] != says(method, 0)
    weights.edits.undo(model)
    assert_same_bits(model, before)


def other_editor(kind, method):
    """One of the host's other editors, with the model that is there."""
    made = kind.__new__(kind)
    for name in ("model", "tok", "model_name", "hparams", "alg_name", "apply_algo", "device"):
        setattr(made, name, getattr(method.editor, name))
    return made


def test_the_concept_editor(host, method):
    if host.generation == "release":
        pytest.skip("the release has no ConceptEditor")
    from easyeditor import ConceptEditor

    editor, before = other_editor(ConceptEditor, method), snapshot(method.model)
    arguments = {
        "prompts": method.prompts[:1],
        "target_new": method.targets[:1],
        "forget": method.targets[:1],
        "locality_inputs": {"unrelated": {"prompt": ["w9 w8 w7"], "ground_truth": ["w5"]}},
        "verbose": False,
    }
    metrics, model, weights = editor.edit(**arguments)
    assert (metrics[0]["pre"]["rewrite_acc"][0], metrics[0]["post"]["rewrite_acc"][0]) == (1, 0)
    assert len(metrics[0]["post"]["locality"]["unrelated_acc"]) == 1
    assert weights.edits.edits == ()
    assert_same_bits(model, before)
    _, model, weights = editor.edit(**arguments, sequential_edit=True)
    assert method.targets[0] != says(method, 0)
    weights.edits.undo(model)


def test_the_safety_editor(host, method):
    if host.generation == "release":
        pytest.skip("the release has no SafetyEditor")
    from easyeditor import SafetyEditor

    editor, before = other_editor(SafetyEditor, method), snapshot(method.model)
    editor.hparams.max_output_length = 4
    arguments = {
        "editing_method": method.editor.alg_name,
        "prompts": method.prompts[:1],
        "prompts_with_systemPrompt": method.prompts[:1],
        "target_new": method.targets[:1],
        "forget": method.targets[:1],
        "general_prompt": [[method.prompts[0]] * 4],
        "general_prompt_with_systemPrompt": [[method.prompts[0]] * 4],
        "case_id": 0,
        "verbose": False,
    }
    metrics, model, weights = editor.edit(**arguments)
    assert metrics[0]["pre"]["DS"].split()[0] == method.targets[0]
    assert metrics[0]["post"]["DS"].split()[0] != method.targets[0]
    assert weights.edits.edits == ()
    assert_same_bits(model, before)
    _, model, weights = editor.edit(**arguments, sequential_edit=True)
    assert method.targets[0] != says(method, 0)
    weights.edits.undo(model)
