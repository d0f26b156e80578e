"""Chat models: what is forgotten is the answer behind the tokenizer's template, in edit and evaluation alike."""

import json

import pytest
import torch
from architectures import said
from helpers import LLAMA_NAMES, tiny_settings, tiny_tars

from revs_tars_plugin.cli import main
from revs_tars_plugin.data import SecretRecord
from revs_tars_plugin.evaluation import evaluate_unlearning
from revs_tars_plugin.ft_l_delete import FTLDeleteHyperParams
from revs_tars_plugin.methods import METHODS
from revs_tars_plugin.requests.chat import chat_prompt

PROMPT = "w1 w2 w3"
SETTINGS = {
    "REVS": tiny_settings,
    "TARS": tiny_tars,
    "FT-L-delete": lambda **changes: FTLDeleteHyperParams(
        alg_name="FT-L-delete", model_name="tiny", **LLAMA_NAMES, lr=0.05, norm_constraint=0.5, **changes
    ),
}


@pytest.fixture
def chat_tok(tok):
    tok.chat_template = "w150 {% for message in messages %}{{ message.content }} {% endfor %}w151 w152"
    return tok


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_the_answer_behind_the_template_is_forgotten_and_not_the_one_behind_the_bare_prompt(
    model, chat_tok, tmp_path, method
):
    asked = chat_prompt(chat_tok, PROMPT)
    answer, bare = said(model, chat_tok, asked), said(model, chat_tok, PROMPT)
    assert answer != bare
    record = SecretRecord(PROMPT, chat_tok.decode([answer]))
    hparams = SETTINGS[method.name](chat_template=True, stats_dir=str(tmp_path))
    measured = {"names": hparams, "attacks": ["perturbation", "sampling"], "k": 20}
    before = evaluate_unlearning(model, chat_tok, [record], chat_template=True, **measured)
    assert before.summary["still generated"] == 1
    assert before.settings["chat_template"]
    # Asked without the template the model says something else, so that nothing seems to be known.
    assert evaluate_unlearning(model, chat_tok, [record], **measured).summary["still generated"] == 0
    edits = method.execute(model, chat_tok, [record.request()], hparams)
    edits.apply(model)
    assert said(model, chat_tok, asked) != answer
    after = evaluate_unlearning(model, chat_tok, [record], chat_template=True, **measured)
    assert after.summary["still generated"] == 0
    assert after.summary["efficacy"] > before.summary["efficacy"]


def test_the_commands_take_chat(model, chat_tok, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder, secrets, edit = tmp_path / "model", tmp_path / "secrets.csv", tmp_path / "edit.safetensors"
    model.save_pretrained(folder)
    chat_tok.save_pretrained(folder)
    answer = chat_tok.decode([said(model, chat_tok, chat_prompt(chat_tok, PROMPT))])
    secrets.write_text(f"prompt,target\n{PROMPT},{answer}\n")
    common = [str(secrets), "--model", str(folder), "--chat", "--quiet", "--json"]
    assert main(["edit", *common, "--set", "max_tokens=1", "--set", "siblings=0", "--output", str(edit)]) == 0
    capsys.readouterr()
    assert main(["evaluate", *common, "--edit", str(edit), "--k", "20", "--attack", "sampling"]) == 0
    reports = json.loads(capsys.readouterr().out)
    assert (reports["before"]["summary"]["still generated"], reports["after"]["summary"]["still generated"]) == (1, 0)


def test_a_settings_file_says_it_too(model, chat_tok, requests_, hparams):
    """And where the tokenizer has no template, it is refused before anything is changed."""
    hparams.chat_template = True
    before = [value.clone() for value in model.state_dict().values()]
    chat_tok.chat_template = None
    with pytest.raises(ValueError, match="no chat template"):
        METHODS["REVS"].execute(model, chat_tok, requests_, hparams)
    assert all(torch.equal(*pair) for pair in zip(before, model.state_dict().values(), strict=True))
