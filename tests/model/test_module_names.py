"""Names of modules: found in a model, and refused where they cannot be used."""

import pytest
from architectures import FAMILIES
from torch import nn

from revs_tars_plugin import InputError
from revs_tars_plugin.model.module_names import ModuleNames


@pytest.mark.parametrize("family", FAMILIES)
def test_the_names_of_every_editable_family_are_found(family):
    found = ModuleNames.found_in(FAMILIES[family].make()).to_dict()
    expected = FAMILIES[family].names
    assert {name: found[name] for name in expected if name != "lm_head_module"} == {
        name: value for name, value in expected.items() if name != "lm_head_module"
    }


@pytest.mark.parametrize("template", ["model.layers.0", "model.{}.layers.{}"])
def test_a_template_needs_one_place_for_the_layer(template):
    names = FAMILIES["llama"].names
    with pytest.raises(InputError, match=r"layer_module_tmp is .*; it needs one"):
        ModuleNames(**{**names, "layer_module_tmp": template})


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="No packaged settings have the names of this Linear's modules"):
        ModuleNames.found_in(nn.Linear(2, 2))
