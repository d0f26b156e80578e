"""Ships the YAMLs, which live at the top of the checkout as in the host, inside the wheel too."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithHparams(build_py):
    """Copies `hparams/` to `revs_tars_plugin/hparams/` of what is built; an editable install reads the checkout's."""

    def run(self):
        """Builds as usual, then adds the YAMLs."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "revs_tars_plugin" / "hparams"
            shutil.copytree(Path(__file__).parent / "hparams", target, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithHparams})
