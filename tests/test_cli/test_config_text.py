"""The text of the configs that commands write."""

import pytest

from mmmixmim.cli.config_text import Section, config_text
from mmmixmim.cli.settings import Choices


@pytest.mark.parametrize(
    'name', ['a"""\nran = True\n"""', 'C:\\Users\\new', 'ends with a \\', 'says "no"']
)
def test_names_of_folders_stay_text(name):
    section = Section(f'Images of {name}', dict(data_root=name))
    text = config_text(f'Pretraining on {name}', [section], Choices())
    entries = {}
    exec(text, entries)
    assert entries['__doc__'].strip() == f'Pretraining on {name}'
    assert entries['data_root'] == name and 'ran' not in entries
