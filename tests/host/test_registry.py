"""Registering with EasyEdit: harmless twice, refused where another has the name, clear where there is no host."""

import importlib.machinery
import subprocess
import sys

import pytest
import transformers
import transformers.modeling_utils

from revs_tars_plugin import HostError, REVSHyperParams, TARSHyperParams, apply_revs_to_model, register
from revs_tars_plugin.host.main_bridge import DROPPED_MODULE, STANDS_IN


def test_the_methods_are_known_beside_the_hosts_own(host):
    from easyeditor import REVSHyperParams as FromHost
    from easyeditor import ROMEHyperParams  # noqa: F401
    from easyeditor import TARSHyperParams as TARSFromHost
    from easyeditor.editors import editor as editor_module
    from easyeditor.editors.batch_editor import BatchEditor
    from easyeditor.util.alg_dict import ALG_DICT

    assert FromHost is REVSHyperParams
    assert TARSFromHost is TARSHyperParams
    assert {"REVS", "TARS", "ROME", "MEMIT", "FT"} <= editor_module.ALG_DICT.keys()
    assert editor_module.ALG_DICT is ALG_DICT
    assert BatchEditor.is_batchable_method("REVS")
    assert BatchEditor.is_batchable_method("TARS")
    assert BatchEditor.is_batchable_method("MEMIT")
    assert not BatchEditor.is_batchable_method("ROME")


def test_registering_again_changes_nothing(host):
    from easyeditor.editors.batch_editor import BatchEditor
    from easyeditor.util.alg_dict import ALG_DICT

    before = dict(ALG_DICT), BatchEditor.is_batchable_method
    assert register().generation == host.generation
    assert (dict(ALG_DICT), BatchEditor.is_batchable_method) == before


def test_a_foreign_algorithm_of_our_name_is_not_overwritten(host, monkeypatch):
    from easyeditor.util.alg_dict import ALG_DICT

    def foreign():
        pass

    monkeypatch.setitem(ALG_DICT, "REVS", foreign)
    with pytest.raises(HostError, match='already has another algorithm "REVS"'):
        register()
    assert ALG_DICT["REVS"] is foreign


def test_nothing_is_bridged_that_the_generation_does_not_need(host):
    from easyeditor import BaseEditor

    names = ("apply_chunking_to_forward", "find_pruneable_heads_and_indices", "prune_linear_layer")
    restored = [name for name in names if hasattr(transformers.modeling_utils, name)]
    bridged = hasattr(BaseEditor, "_revs_tars_runs_without_cuda")
    dropped = sys.modules.get(DROPPED_MODULE)
    stands_in = dropped is not None and dropped.__spec__.origin == STANDS_IN
    if host.generation == "main":
        assert not bridged
        assert stands_in is (importlib.machinery.PathFinder.find_spec(DROPPED_MODULE, transformers.__path__) is None)
        if stands_in:
            with pytest.raises(NotImplementedError, match="no longer has AttentionMaskConverter; EasyEdit's UnKE"):
                dropped.AttentionMaskConverter()
    else:
        import torch

        assert not stands_in
        assert restored == list(names)
        assert bridged is not torch.cuda.is_available()


def run_python(code, **environment):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)


_WITHOUT_HOST = """
import sys
class NoHost:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {blocked!r}:
            raise ModuleNotFoundError("No module named {blocked}", name=name)
sys.meta_path.insert(0, NoHost())
import importlib.util, revs_tars_plugin
find_spec = importlib.util.find_spec
import revs_tars_plugin.host.easyedit as module
if {blocked!r} == "easyeditor":
    module.find_spec = lambda name: None
try:
    revs_tars_plugin.register()
except revs_tars_plugin.HostError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("blocked", "said"), [("easyeditor", "is not installed"), ("higher", "No module named higher")]
)
def test_a_host_that_cannot_be_imported_is_one_clear_error(blocked, said, monkeypatch):
    done = run_python(_WITHOUT_HOST.format(blocked=blocked))
    assert said in done.stdout, done.stderr
    assert "pip install --no-deps easyeditor==0.0.1.dev0" in done.stdout
    assert "https://github.com/zjunlp/EasyEdit" in done.stdout


def test_a_wrong_easyedit_home_is_named(tmp_path):
    done = run_python("import revs_tars_plugin as p; p.register()", EASYEDIT_HOME=str(tmp_path))
    assert f'EASYEDIT_HOME is "{tmp_path}"' in done.stderr


def test_the_methods_work_without_a_host():
    code = "import sys, revs_tars_plugin as p; p.execute_revs; print('easyeditor' in sys.modules)"
    assert run_python(code).stdout.strip() == "False"
    assert apply_revs_to_model.__module__ == "revs_tars_plugin.revs.revs_main"


def test_the_editor_registers_the_methods_when_it_is_made_and_not_before(host):
    """In a process of its own, since this one has registered them."""
    code = """
import sys
import revs_tars_plugin.host.comparison, revs_tars_plugin.host.unlearn_editor
assert "easyeditor" not in sys.modules
from revs_tars_plugin import UnlearnEditor
from easyeditor.util.alg_dict import ALG_DICT
assert "REVS" not in ALG_DICT
try:
    UnlearnEditor.from_hparams(None)
except Exception as error:
    print(type(error).__name__)
assert "REVS" in ALG_DICT
from revs_tars_plugin.host.unlearn_editor import UnlearnEditor as again
assert again is UnlearnEditor
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
