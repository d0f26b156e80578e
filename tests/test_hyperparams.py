"""Settings: loaded from YAML as the host's are, and refused with the field's name."""

import re

import pytest
import yaml
from helpers import tiny_settings

from revs_tars_plugin import InputError, REVSHyperParams
from revs_tars_plugin.hyperparams import packaged_hparams


@pytest.fixture
def write(tmp_path):
    def write(changes=None, without=()):
        settings = {**tiny_settings().to_dict(), **(changes or {})}
        path = tmp_path / "settings.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in settings.items() if k not in without}))
        return path

    return write


def test_what_is_written_is_read(write):
    path = write({"n_neurons": 7})
    assert REVSHyperParams.from_hparams(path).n_neurons == 7
    assert REVSHyperParams.from_hparams(str(path).removesuffix(".yaml")).n_neurons == 7


def test_numbers_that_yaml_leaves_as_text_are_read(write):
    read = REVSHyperParams.from_hparams(write({"residual_bottom_rank": "5e-2", "seed": "1e2"}))
    assert read.residual_bottom_rank == 0.05
    assert read.seed == 100
    assert isinstance(read.seed, int)


def test_every_packaged_file_loads():
    files = sorted(packaged_hparams("REVS").glob("*.yaml"))
    assert files
    for path in files:
        assert REVSHyperParams.from_hparams(path) == REVSHyperParams.from_hparams(path.stem)


def test_home_is_expanded():
    assert not REVSHyperParams.from_hparams("smollm2-135m").model_name.startswith("~")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_neuron": 3}, 'unknown key "n_neuron"; did you mean "n_neurons"?'),
        ({"zzz": 3}, 'unknown key "zzz"; remove it'),
        ({"alg_name": "ROME"}, 'alg_name is "ROME", but these are the settings of "REVS"'),
        ({"n_neurons": "many"}, "n_neurons is 'many', but it must be of type int"),
        ({"n_neurons": 2.5}, "n_neurons is 2.5"),
        ({"n_neurons": 0}, "n_neurons is 0; it must be at least 1"),
        ({"n_neurons": 41}, 'n_neurons is 41, but act_filter "top_40"'),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"layers": ["a"]}, "layers[0] is 'a'"),
        ({"token_method": "rares"}, 'token_method is "rares"; it must be one of rarest, first, '),
        ({"token_method": "rares"}, 'did you mean "rarest"?'),
        ({"act_filter": "top"}, 'act_filter is "top"'),
        ({"layer_module_tmp": "model.layers"}, 'it needs one "{}"'),
        ({"residual_bottom_rank": -1}, "residual_bottom_rank is -1"),
        ({"residual_bottom_rank": 3.5}, "residual_bottom_rank is 3.5; write a whole rank"),
        ({"residual_bottom_rank": float("nan")}, "residual_bottom_rank is nan"),
        ({"mlp_bottom_rank": 0.95, "mlp_top_rank": 0.9}, "mlp_bottom_rank (0.95) is above mlp_top_rank (0.9)"),
        ({"model_name": ""}, "model_name is empty"),
    ],
)
def test_bad_settings_are_named_with_their_file(write, changes, message):
    path = write(changes)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        REVSHyperParams.from_hparams(path)
    assert str(path) in str(caught.value)


def test_a_missing_key_is_named(write):
    with pytest.raises(InputError, match='the key "lm_head_module" is missing'):
        REVSHyperParams.from_hparams(write(without=["lm_head_module"]))


def test_files_that_cannot_be_read(tmp_path):
    for text, message in (("a: [", "cannot be read as YAML"), ("- 1", "must be a mapping"), ("", "must be a mapping")):
        path = tmp_path / "broken.yaml"
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            REVSHyperParams.from_hparams(path)
    with pytest.raises(InputError, match="cannot be read"):
        REVSHyperParams.from_hparams(tmp_path / "absent.yaml")
    with pytest.raises(InputError, match='did you mean "smollm2-135m"'):
        REVSHyperParams.from_hparams("smollm2-135")


def test_ranks_are_absolute_or_fractions():
    margins = tiny_settings(residual_bottom_rank=0.5, residual_top_rank=150).ranks(201)
    assert (margins.residual_bottom_rank, margins.residual_top_rank) == (100, 150)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"residual_top_rank": 201}, "residual_top_rank is 201, beyond the vocabulary"),
        ({"neuron_bottom_rank": 0.9, "neuron_top_rank": 100}, "neuron_bottom_rank (180) is above neuron_top_rank"),
    ],
)
def test_ranks_that_do_not_fit_the_vocabulary(changes, message):
    with pytest.raises(InputError, match=re.escape(message)):
        tiny_settings(**changes).ranks(201)
