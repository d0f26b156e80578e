"""Importing the package does nothing but define: no host, no registration, no environment, no logging, no seeds."""

import subprocess
import sys

IMPORTS_ALL = """
import importlib, logging, os, pkgutil, sys
os.environ.pop("HF_HUB_OFFLINE", None)
import numpy, torch, transformers
before = dict(os.environ), torch.get_rng_state().tolist(), list(logging.root.handlers), torch.get_default_dtype()
import revs_tars_plugin
names = [module.name for module in pkgutil.walk_packages(revs_tars_plugin.__path__, "revs_tars_plugin.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
after = dict(os.environ), torch.get_rng_state().tolist(), list(logging.root.handlers), torch.get_default_dtype()
assert before == after
assert "easyeditor" not in sys.modules
print(len(names))
"""


def test_importing_every_module_sets_and_registers_nothing():
    done = subprocess.run([sys.executable, "-c", IMPORTS_ALL], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 80


def test_help_needs_no_torch():
    code = "import sys; from revs_tars_plugin.cli import main; main(['--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("False")
