"""Settings for a model without a YAML: the names of its modules are found, and the settings work."""

import pytest
from architectures import EDITABLE, FAMILIES
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from revs_tars_plugin import InputError, REVSHyperParams, TARSHyperParams, execute_revs
from revs_tars_plugin.decoder import Decoder
from revs_tars_plugin.ft_l_delete import FTLDeleteHyperParams
from revs_tars_plugin.model_settings import MEASURED, known_module_names, measured_settings


@pytest.mark.parametrize("family", EDITABLE)
def test_the_names_of_every_editable_family_are_found(family):
    found = known_module_names(FAMILIES[family].make())
    expected = FAMILIES[family].names
    assert {name: found[name] for name in expected if name != "lm_head_module"} == {
        name: value for name, value in expected.items() if name != "lm_head_module"
    }


@pytest.mark.parametrize("family", EDITABLE)
@pytest.mark.parametrize("kind", [REVSHyperParams, TARSHyperParams, FTLDeleteHyperParams])
def test_the_settings_fit_the_model(family, kind):
    model = FAMILIES[family].make()
    settings = measured_settings(kind, model, "mine")
    decoder = Decoder(model, settings)
    assert settings.model_name == "mine"
    assert decoder.layers == {"REVS": [2], "TARS": [0, 1, 2], "FT-L-delete": [1]}[kind.ALGORITHM]


def test_the_measured_model_gets_the_measured_layers():
    names = {"num_hidden_layers": 30, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=16, **names))
    for kind in (REVSHyperParams, FTLDeleteHyperParams):
        packaged = kind.from_hparams(MEASURED[kind.ALGORITHM])
        assert measured_settings(kind, model, "mine").layers == packaged.layers


def test_they_forget(model, tok, requests_, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = measured_settings(REVSHyperParams, model, "mine")
    edits = execute_revs(model, tok, requests_, settings)
    assert all(outcome.rank_before == 0 for outcome in edits.outcomes)
    assert all(outcome.reached for outcome in edits.outcomes)


def test_statistics_belong_to_the_weights(model):
    first = measured_settings(REVSHyperParams, model, "mine").stats_dir
    assert measured_settings(REVSHyperParams, model, "other").stats_dir == first
    nn.init.normal_(model.model.layers[0].mlp.down_proj.weight)
    assert measured_settings(REVSHyperParams, model, "mine").stats_dir != first


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="No packaged settings have the names of this Linear's modules"):
        known_module_names(nn.Linear(2, 2))
