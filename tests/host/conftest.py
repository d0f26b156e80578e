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

    hparams = REVSHyperParams.from_hparams(packaged_hparams("REVS") / "smollm2-135m-paper.yaml")
    return BaseEditor.from_hparams(hparams)


@pytest.fixture
def editor(loaded):
    """The editor with fresh settings; every test has to leave the weights as it found them."""
    from easyeditor import REVSHyperParams

    device = loaded.hparams.device
    loaded.hparams = REVSHyperParams.from_hparams("smollm2-135m-paper")
    loaded.hparams.device = device  # the host's own idea of it, set when the model was loaded
    before = snapshot(loaded.model)
    yield loaded
    assert_same_bits(loaded.model, before)


@pytest.fixture(scope="session")
def ordinary_text(tmp_path_factory):
    """A small text file and a folder for its statistics, so that they are computed once a run."""
    folder = tmp_path_factory.mktemp("text")
    lines = (f"The town of number {n} lies near a river and has {n * 7} people." for n in range(40))
    (folder / "text.txt").write_text("\n".join(lines))
    return {"mom2_dataset": str(folder / "text.txt"), "mom2_n_samples": 40, "stats_dir": str(folder)}


@pytest.fixture
def concept_editor(editor, ordinary_text):
    """The same editor with `alg_name: TARS`, as `from_hparams` would set it up with the model that is there.

    The model's own text says which neurons are quiet as a rule; a short file of one kind would not.
    """
    from easyeditor import TARSHyperParams
    from easyeditor.util.alg_dict import ALG_DICT

    ours = editor.hparams
    hparams = TARSHyperParams.from_hparams(packaged_hparams("TARS") / "smollm2-135m.yaml")
    hparams.device = ours.device
    hparams.mom2_dataset, hparams.mom2_n_samples, hparams.stats_dir = "sampled", 16, ordinary_text["stats_dir"]
    editor.hparams, editor.alg_name, editor.apply_algo = hparams, "TARS", ALG_DICT["TARS"]
    yield editor
    editor.hparams, editor.alg_name, editor.apply_algo = ours, "REVS", ALG_DICT["REVS"]
