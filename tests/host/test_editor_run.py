"""The host's own editors on a model that is loaded already, as rows of a benchmark."""

import pytest
import torch
from helpers import snapshot

from revs_tars_plugin import InputError
from revs_tars_plugin.evaluation import likelihoods
from revs_tars_plugin.host.editor_run import HOST_EDITORS, HostEditorRun

REQUESTS = [
    {"prompt": "The capital of France is", "ground_truth": "Paris", "subject": "France"},
    {"prompt": "The capital of Italy is", "ground_truth": "Rome", "subject": "Italy"},
]


def said(model, tok, text):
    prompts = [request["prompt"] for request in REQUESTS]
    return [found.total for found in likelihoods(model, tok, prompts, [text] * len(prompts))]


@pytest.mark.parametrize("name", ["FT", "ROME"])
def test_it_writes_every_request_into_the_model_it_is_given(editor, name):
    model, tok = editor.model, editor.tok
    before, said_before = snapshot(model), said(model, tok, "unknown")
    try:
        edited = HostEditorRun(name, tok, REQUESTS)(model)
        assert edited is model
        assert all(now > then + 1 for now, then in zip(said(model, tok, "unknown"), said_before, strict=True))
    finally:
        with torch.no_grad():
            for key, value in before.items():
                model.state_dict()[key].copy_(value)
        for parameter in model.parameters():
            parameter.requires_grad_(True)
            parameter.grad = None


def test_what_cannot_run_is_one_sentence(editor):
    assert "REVS" not in HOST_EDITORS and "GRACE" not in HOST_EDITORS
    with pytest.raises(InputError, match=r"has no editor GRACE that writes into weights; it must be of FT"):
        HostEditorRun("GRACE", editor.tok, REQUESTS)
    without = [{key: value for key, value in request.items() if key != "subject"} for request in REQUESTS]
    with pytest.raises(InputError, match="ROME needs the subject of every prompt"):
        HostEditorRun("ROME", editor.tok, without)
