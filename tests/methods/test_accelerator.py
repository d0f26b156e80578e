"""What all methods give on an accelerator, where there is one: what a CPU gives, and every bit back."""

import pytest
import torch
from helpers import an_edit, assert_same_bits, copy_of, covariance_settings, snapshot, tiny_settings

from revs_tars_plugin import EditSet, execute_revs
from revs_tars_plugin.data.secret_files import SecretRecord
from revs_tars_plugin.evaluation import evaluate_unlearning
from revs_tars_plugin.model.forward import next_token_logits

pytestmark = pytest.mark.skipif(not torch.accelerator.is_available(), reason="there is no accelerator here")


@pytest.fixture
def there(model):
    """The same model on the accelerator."""
    return copy_of(model).to(torch.accelerator.current_accelerator())


@pytest.mark.parametrize("kind", ["neurons", "covariance", "tars"])
def test_an_edit_reaches_what_it_reaches_on_a_cpu(kind, model, there, tok, requests_, tmp_path):
    before = snapshot(there)
    here = an_edit(model, tok, requests_, kind, tmp_path / "cpu")
    found = an_edit(there, tok, requests_, kind, tmp_path / "accelerator")
    assert_same_bits(there, before)
    assert [outcome.reached for outcome in found.outcomes] == [outcome.reached for outcome in here.outcomes]
    found.save(tmp_path / "edit.safetensors")
    loaded = EditSet.load(tmp_path / "edit.safetensors")
    loaded.apply(there)
    sequences = [tok(request["prompt"])["input_ids"] for request in requests_]
    edited = next_token_logits(there, sequences).cpu()
    loaded.undo(there)
    assert_same_bits(there, before)
    here.apply(model)
    torch.testing.assert_close(edited, next_token_logits(model, sequences), rtol=1e-2, atol=1e-2)


def test_chance_and_the_evaluation_run_there(there, tok, requests_, tmp_path):
    hparams = covariance_settings(tmp_path, siblings=2, aim="chance", schedule="support_vectors")
    secrets = [SecretRecord(request["prompt"], request["target_new"]) for request in requests_]
    before = snapshot(there)
    edits = execute_revs(there, tok, requests_, hparams)
    report = evaluate_unlearning(there, tok, secrets, names=tiny_settings(), n_samples=2)
    edits.apply(there)
    after = evaluate_unlearning(there, tok, secrets, names=tiny_settings(), n_samples=2)
    assert after.summary["exposure, top"] <= report.summary["exposure, top"]
    edits.undo(there)
    assert_same_bits(there, before)
