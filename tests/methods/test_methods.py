"""Settings for a model without a YAML: the names of its modules are found, and the settings work."""

import pytest
from architectures import FAMILIES, WITH_ROWS
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from revs_tars_plugin import execute_revs
from revs_tars_plugin.methods import METHODS, measured_settings
from revs_tars_plugin.model.decoder import Decoder


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_the_settings_fit_the_model(family, method):
    model = FAMILIES[family].make()
    settings = measured_settings(method, model, "mine")
    decoder = Decoder.of(model, settings)
    assert settings.model_name == "mine"
    assert decoder.layers == {"REVS": [2], "TARS": [0, 1, 2], "FT-L-delete": [1]}[method.name]


@pytest.mark.parametrize("family", FAMILIES)
def test_facts_behind_names_go_where_a_neuron_has_rows_of_its_own(family):
    """What `from_name` needs is found, with no more and no fewer rows than neurons; else that direction is left out."""
    model = FAMILIES[family].make()
    settings = measured_settings(METHODS["TARS"], model, "mine")
    assert ("from_name" in settings.directions) == (family in WITH_ROWS)
    found = {key: getattr(settings, key) for key in ("gate_module_tmp", "up_module_tmp") if getattr(settings, key)}
    assert found == (FAMILIES[family].first if family in WITH_ROWS else {})
    assert {settings.name_layer, settings.spelling_layer} <= set(range(3))


def test_the_measured_model_gets_the_measured_layers():
    names = {"num_hidden_layers": 30, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=16, **names))
    for method in (METHODS["REVS"], METHODS["FT-L-delete"]):
        packaged = method.hyperparams.from_hparams(method.best_file)
        assert packaged.layers
        assert measured_settings(method, model, "mine").layers == packaged.layers


def test_they_forget(model, tok, requests_, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = measured_settings(METHODS["REVS"], model, "mine")
    edits = execute_revs(model, tok, requests_, settings)
    assert all(outcome.rank_before == 0 for outcome in edits.outcomes)
    assert all(outcome.reached for outcome in edits.outcomes)


def test_statistics_belong_to_the_weights(model):
    first = measured_settings(METHODS["REVS"], model, "mine").stats_dir
    assert measured_settings(METHODS["REVS"], model, "other").stats_dir == first
    nn.init.normal_(model.model.layers[0].mlp.down_proj.weight)
    assert measured_settings(METHODS["REVS"], model, "mine").stats_dir != first


def test_the_command_line_names_every_method():
    from typer.main import get_command

    from revs_tars_plugin.cli.app import app

    (option,) = (parameter for parameter in get_command(app).commands["edit"].params if parameter.name == "method")
    assert all(name in option.help for name in METHODS)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_row_of_the_table_is_whole(method):
    assert METHODS[method.name] is method
    assert method.hyperparams.from_hparams(method.best_file).alg_name == method.name
    assert method.apply.__name__ == f"apply_{method.package}_to_model"
    assert method.execute.__name__ == f"execute_{method.package}"
