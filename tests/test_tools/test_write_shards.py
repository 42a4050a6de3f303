from ..scripts import call, error_line, passed


def test_writes_shards_of_a_folder(image_folder, tmp_path):
    options = [image_folder, 'shards', '--images-per-shard', '2']
    output = passed(call('write_shards.py', *options, cwd=tmp_path))
    assert 'Wrote 3 shards' in output
    files = sorted(path.name for path in (tmp_path / 'shards').iterdir())
    assert files == ['000000.tar', '000001.tar', '000002.tar', 'shards.json']
    line = error_line(call('write_shards.py', *options, cwd=tmp_path))
    assert 'has shards already' in line
