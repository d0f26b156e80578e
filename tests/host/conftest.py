"""The real EasyEdit with the real SmolLM2: its release, or the clone of branch main that EASYEDIT_HOME names."""

import os

import pytest
from helpers import assert_same_bits, snapshot

from revs_tars_plugin import register
from revs_tars_plugin.data import demo_model
from revs_tars_plugin.hyperparams import packaged_hparams


@pytest.fixture(scope="session")
def host(tmp_path_factory):
    """The registered host; it writes its logs folder into the working directory, so that is a temporary one."""
    os.chdir(tmp_path_factory.mktemp("host"))
    return register()


@pytest.fixture(scope="session")
def loaded(host):
    """One `BaseEditor` with SmolLM2 for the whole run, as a user makes it."""
    demo_model()
    from easyeditor import BaseEditor, REVSHyperParams

    hparams = REVSHyperParams.from_hparams(packaged_hparams("REVS") / "smollm2-135m.yaml")
    return BaseEditor.from_hparams(hparams)


@pytest.fixture
def editor(loaded):
    """The editor with fresh settings; every test has to leave the weights as it found them."""
    from easyeditor import REVSHyperParams

    device = loaded.hparams.device
    loaded.hparams = REVSHyperParams.from_hparams("smollm2-135m")
    loaded.hparams.device = device  # the host's own idea of it, set when the model was loaded
    before = snapshot(loaded.model)
    yield loaded
    assert_same_bits(loaded.model, before)
