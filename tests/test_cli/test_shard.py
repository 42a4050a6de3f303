"""Shards by one command."""

from .conftest import error_line, mixmim


def test_writes_shards_of_a_folder(image_folder, tmp_path):
    arguments = ['shard', image_folder, tmp_path / 'shards', '--images-per-shard', 2]
    code, printed, err = mixmim(*arguments)
    assert code == 0, err
    assert 'Wrote 3 shards' in printed
    files = sorted(path.name for path in (tmp_path / 'shards').iterdir())
    assert files == ['000000.tar', '000001.tar', '000002.tar', 'shards.json']
    assert 'has shards already' in error_line(*arguments)
