"""Add the files that mim needs to wheels. All metadata is in setup.cfg."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.install_lib import install_lib


class InstallLib(install_lib):
    """Install configs, tools and the model index along with the package.

    mim looks for them in the folder ``.mim`` of the first path that the distribution
    lists. ``../../../bin/mixmim`` and ``mmmixmim-<version>.dist-info`` sort before
    ``mmmixmim``, so they go to a separate folder whose name sorts before all: ``+``
    comes before ``.``. Editable installs skip this command: mim then uses the
    repository.
    """

    def run(self):
        """Install the package, then the companion folder."""
        super().run()
        root = Path(__file__).parent
        companion = Path(self.install_dir, '+mmmixmim', '.mim')
        ignored = shutil.ignore_patterns('__pycache__', 'setup_env.sh')
        for folder in ('configs', 'tools'):
            shutil.copytree(
                root / folder, companion / folder, ignore=ignored, dirs_exist_ok=True
            )
        shutil.copy(root / 'model-index.yml', companion)


setup(cmdclass={'install_lib': InstallLib})
