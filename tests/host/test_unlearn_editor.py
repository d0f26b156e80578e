"""`UnlearnEditor`: one call for any method of the host, kept or put back to the bit, with our report beside theirs."""

import functools

import pytest
import torch
from helpers import snapshot

from revs_tars_plugin import HostError, InputError
from revs_tars_plugin.evaluation import greedy_continuation
from revs_tars_plugin.host.editors import EDITORS
from revs_tars_plugin.host.registry import REGISTERED
from revs_tars_plugin.hyperparams import packaged_hparams
from revs_tars_plugin.methods import METHODS

PROMPTS = ["The Titanic sank after hitting an", "The Mona Lisa was painted by Leonardo da"]
SECRETS = ["iceberg", "Vinci"]
SUBJECTS = ["Titanic", "Mona Lisa"]
REPHRASED = ["The Titanic sank because it hit an", "The Mona Lisa is a painting by Leonardo da"]
RETAIN = [("The first president of the United States was George", "Washington"), ("The capital of France is", "Paris")]
CORPUS = ["Once upon a time there was a king who lived in a castle with his daughter and many servants."]


@pytest.fixture
def unlearn_editor(host, editor, ordinary_text, monkeypatch):
    """The editor with the model that is there, as `UnlearnEditor.from_hparams` would make it, for any method."""
    from revs_tars_plugin.host.settings import load_settings
    from revs_tars_plugin.host.unlearn_editor import UnlearnEditor

    monkeypatch.setattr(editor, "__class__", UnlearnEditor)
    ours = editor.hparams

    def choose(name, **changes):
        from easyeditor.util.alg_dict import ALG_DICT

        # The paper's settings hide a fact at once, and read no ordinary text.
        file = "smollm2-135m-paper.yaml" if name == "REVS" else "smollm2-135m.yaml"
        hparams = load_settings(host, name, packaged_hparams(name) / file)
        if hasattr(hparams, "mom2_dataset"):
            changes = {**ordinary_text, **changes}
        for key, value in {"device": ours.device, "model_name": ours.model_name, **changes}.items():
            setattr(hparams, key, value)
        editor.hparams, editor.alg_name, editor.apply_algo = hparams, name, ALG_DICT[name]
        return editor

    yield choose
    from easyeditor.util.alg_dict import ALG_DICT

    editor.hparams, editor.alg_name, editor.apply_algo = ours, "REVS", ALG_DICT["REVS"]


def says(editor, prompt):
    return greedy_continuation(editor.model, editor.tok, prompt, max_new_tokens=4).strip()


def test_kept_edits_are_really_there_and_both_measures_agree(unlearn_editor):
    editor = unlearn_editor("REVS")
    found = editor.unlearn(
        PROMPTS,
        SECRETS,
        rephrase_prompts=REPHRASED,
        retain=RETAIN,
        corpus=CORPUS,
        locality_inputs={"unrelated": {"prompt": [p for p, _ in RETAIN], "ground_truth": [t for _, t in RETAIN]}},
    )
    assert found.model is editor.model
    assert [says(editor, prompt).startswith(secret) for prompt, secret in zip(PROMPTS, SECRETS, strict=True)] == [
        False,
        False,
    ]
    assert [metric["pre"]["rewrite_acc"][0] for metric in found.metrics] == [1, 1]
    assert [metric["post"]["rewrite_acc"][0] for metric in found.metrics] == [0, 0]
    assert [metric["post"]["locality"]["unrelated_acc"] for metric in found.metrics] == [[1.0], [1.0]]
    assert [metric["post"]["unlearning"]["efficacy"] for metric in found.metrics] == [1, 1]
    assert found.summary["efficacy"] == found.summary["generality"] == found.summary["specificity"] == 1
    assert (found.summary["pre, rewrite_acc"], found.summary["post, rewrite_acc"]) == (1, 0)
    assert found.summary["post, locality"] == 1
    assert 0 < found.summary["kl_mean"] < 0.1
    assert found.seconds > 0
    assert found.n_changed is None
    (edits,) = found.edits
    edits.undo(editor.model)
    assert [says(editor, prompt).startswith(secret) for prompt, secret in zip(PROMPTS, SECRETS, strict=True)] == [
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("REVS", {"max_tokens": 1}),
        ("TARS", {"n_edits": 2}),
        ("FT-L-delete", {"num_steps": 3}),
        ("MEMIT-delete", {"v_num_grad_steps": 2, "layers": [4, 5]}),
        ("FT", {"num_steps": 3}),
        ("ROME", {"v_num_grad_steps": 2, "context_template_length_params": [[5, 5]]}),
        ("MEMIT", {"v_num_grad_steps": 2, "layers": [4, 5]}),
        ("LoRA", {"num_steps": 2}),
        ("R-ROME", {"v_num_grad_steps": 2, "context_template_length_params": [[5, 5]]}),
        ("EMMET", {"v_num_grad_steps": 2}),
        ("AlphaEdit", {"v_num_grad_steps": 2, "layers": [4]}),
        ("ULTRAEDIT", {}),
    ],
)
def test_every_method_changes_something_and_is_put_back(host, unlearn_editor, name, changes):
    """The fixture compares all weights afterwards; few steps, since this is not about how well they edit."""
    if name not in host.algorithms:
        pytest.skip(f"the release has no {name}")
    editor = unlearn_editor(name, **changes)
    size = getattr(editor.hparams, "batch_size", None)
    flags = [parameter.requires_grad for parameter in editor.model.parameters()]
    if name == "LoRA" and host.generation == "release":
        # The release makes an AdaLoRA as peft of today does not let it; the failure leaves nothing behind either.
        with pytest.raises(ValueError, match="total_step"):
            editor.unlearn(PROMPTS, SECRETS, subjects=SUBJECTS, attacks=[], keep=False)
        assert editor.model.config.use_cache
        assert not editor.model.is_gradient_checkpointing
        return
    found = editor.unlearn(PROMPTS, SECRETS, subjects=SUBJECTS, attacks=[], keep=False)
    assert found.n_changed > 1000
    assert len(found.metrics) == 2
    assert {metric["case_id"] for metric in found.metrics} == {0, 1}
    written = [metric["requested_rewrite"]["target_new"] for metric in found.metrics]
    assert written == (SECRETS if name in REGISTERED else ["unknown"] * 2)
    assert [says(editor, prompt).startswith(secret) for prompt, secret in zip(PROMPTS, SECRETS, strict=True)] == [
        True,
        True,
    ]
    assert [parameter.requires_grad for parameter in editor.model.parameters()] == flags
    assert name in METHODS or all(parameter.grad is None for parameter in editor.model.parameters())
    assert getattr(editor.hparams, "batch_size", None) == size
    assert editor.model.config.use_cache
    assert not editor.model.is_gradient_checkpointing


def test_an_external_memory_leaves_the_weights_alone_and_is_taken_away(host, unlearn_editor):
    if host.generation == "release":
        pytest.skip("the release has no GRACE")
    editor = unlearn_editor("GRACE", n_iter=2)
    modules = dict(editor.model.named_modules())
    found = editor.unlearn(PROMPTS, SECRETS, attacks=[], keep=False)
    assert found.n_changed == 0
    assert dict(editor.model.named_modules()) == modules


def test_the_host_says_how_its_methods_pad_and_what_they_read(host, unlearn_editor):
    """Where the host pads for them on the right, EMMET, AlphaEdit and R-ROME write nothing on the left."""
    from revs_tars_plugin.host.host_methods import needs_subject, padding_side, reads_moments

    editor = unlearn_editor("REVS")
    sides, subjects, moments = {}, set(), set()
    for name in EDITORS:
        if name not in host.algorithms:
            assert host.generation == "release"
            continue
        hparams = unlearn_editor(name).hparams
        sides[name] = padding_side(host, editor.model, hparams)
        subjects |= {name} if needs_subject(hparams) else set()
        moments |= {name} if name not in REGISTERED and reads_moments(hparams) else set()
    known = sides.keys()
    on_the_right = {name for name, side in sides.items() if side == "right"}
    assert on_the_right == {"ROME", "R-ROME", "MEMIT", "EMMET", "AlphaEdit"} & known
    assert subjects == {"ROME", "R-ROME", "MEMIT", "EMMET", "AlphaEdit", "MEMIT-delete"} & known
    assert moments == {"MEMIT", "EMMET", "AlphaEdit"} & known


def test_the_deleting_methods_lower_what_they_are_asked_to(unlearn_editor):
    editor = unlearn_editor("MEMIT-delete", layers=[4, 5, 6], mom2_update_weight=100)
    found = editor.unlearn(PROMPTS, SECRETS, subjects=SUBJECTS, attacks=[], keep=False)
    assert found.summary["still generated"] < 1
    assert found.summary["efficacy"] > 0
    editor = unlearn_editor("FT-L-delete", norm_constraint=0.01, lr=1e-3)
    found = editor.unlearn(PROMPTS, SECRETS, attacks=[], keep=False)
    assert found.summary["still generated"] == 0
    assert all(outcome.after < outcome.before for outcome in found.edits[0].outcomes)


def test_a_deleting_method_runs_through_the_hosts_own_editor(unlearn_editor):
    editor = unlearn_editor("FT-L-delete", norm_constraint=0.01, lr=1e-3, batch_size=2)
    metrics, model, original = editor.batch_edit(
        prompts=PROMPTS, target_new=SECRETS, sequential_edit=True, keep_original_weight=False, verbose=False
    )
    assert float(metrics[-1]["post"]["rewrite_acc"][0]) == 0
    original.edits.undo(model)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((PROMPTS, SECRETS[:1]), "secrets has 1 entries, prompts 2"),
        ((PROMPTS[0], SECRETS[0]), "must be lists of texts"),
        (([], []), "prompts is empty"),
    ],
)
def test_wrong_lists_are_named(unlearn_editor, arguments, message):
    with pytest.raises(InputError, match=message):
        unlearn_editor("REVS").unlearn(*arguments)


def test_wrong_subjects_are_named(unlearn_editor):
    editor = unlearn_editor("ROME")
    with pytest.raises(InputError, match="ROME needs subjects"):
        editor.unlearn(PROMPTS, SECRETS)
    with pytest.raises(InputError, match="subjects: entry 1 does not stand in its prompt"):
        editor.unlearn(PROMPTS, SECRETS, subjects=["Titanic", "Rome"])


def test_a_failing_evaluation_takes_the_edit_back(unlearn_editor):
    editor = unlearn_editor("REVS", max_tokens=1)
    before = snapshot(editor.model)
    with pytest.raises(InputError, match="attacks names"):
        editor.unlearn(PROMPTS, SECRETS, attacks=["lens"])
    assert all(torch.equal(value, before[name]) for name, value in editor.model.state_dict().items())


def test_a_method_that_answers_otherwise_is_refused(unlearn_editor):
    editor = unlearn_editor("REVS")
    editor.apply_algo = lambda model, *_args, **_kwargs: (model, {}, "examples")
    with pytest.raises(HostError, match="answers otherwise than a method that edits weights"):
        editor.unlearn(PROMPTS, SECRETS)


def test_a_comparison_names_an_editor_that_fails_and_goes_on(host, unlearn_editor, loaded, ordinary_text, monkeypatch):
    from easyeditor.util.alg_dict import ALG_DICT

    from revs_tars_plugin.data import SecretRecord
    from revs_tars_plugin.host import comparison

    @functools.wraps(ALG_DICT["FT"])
    def broken(*_args, **_kwargs):
        raise ValueError("no\nreason")

    editor = unlearn_editor("REVS")
    monkeypatch.setitem(ALG_DICT, "FT", broken)
    made = classmethod(lambda _cls, _hparams: editor)
    monkeypatch.setattr(comparison.unlearn_editor.UnlearnEditor, "from_hparams", made)
    records = [SecretRecord(*pair) for pair in zip(PROMPTS, SECRETS, SUBJECTS, REPHRASED, strict=True)]
    rows = comparison.compare(
        loaded.hparams.model_name,
        records,
        retain=[SecretRecord(*pair) for pair in RETAIN],
        methods=["EMMET", "GRACE", "FT", "REVS"] if host.generation == "release" else ["FT", "REVS"],
        settings={"REVS": "smollm2-135m-paper"},
        attacks=[],
    )
    # In the table's order, whatever the caller's; what this generation lacks says so.
    assert [row.method for row in rows[:3]] == ["no edit", "REVS", "FT"]
    assert rows[0].figures["efficacy"] == 0
    assert rows[1].figures["efficacy"] == 1
    assert rows[1].n_changed > 1000
    assert rows[2].error.startswith("ValueError: no reason (test_unlearn_editor.py:")
    if host.generation == "release":
        assert [(row.method, row.memory) for row in rows[3:]] == [("EMMET", False), ("GRACE", True)]
        assert all(row.error == "EasyEdit's release does not have it; branch main does" for row in rows[3:])
    with pytest.raises(
        InputError, match='methods names "ROMA", which this EasyEdit does not know; did you mean "ROME"'
    ):
        comparison.compare(loaded.hparams.model_name, records, methods=["ROMA"])
    with pytest.raises(InputError, match="forget is empty"):
        comparison.compare(loaded.hparams.model_name, [])
