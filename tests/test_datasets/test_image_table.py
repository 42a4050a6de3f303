import tracemalloc

import pyarrow
import pytest
from pyarrow import parquet

from mmmixmim.datasets.tables import read_columns, read_lines
from mmmixmim.registry import DATASETS
from mmmixmim.validation import MissingFileError, UserError


def build(path, **kwargs):
    dataset = DATASETS.build(dict(type='ImageTable', ann_file=str(path), **kwargs))
    found = [dataset.get_data_info(i) for i in range(len(dataset))]
    return [{k: v for k, v in s.items() if k != 'sample_idx'} for s in found]


@pytest.fixture(params=['txt', 'csv', 'parquet'])
def table(request, tmp_path):
    """Three files: relative, absolute, on a server; names with comma and umlaut."""
    names = ['deep/a,b.jpg', '/abs/ö.png', 's3://bucket/c.tif']
    path = tmp_path / f'list.{request.param}'
    if request.param == 'txt':
        path.write_text('\n'.join([*names[:1], '', *names[1:], '']))
    elif request.param == 'csv':
        lines = ['\ufeffpath,mask', f'"{names[0]}",m0.png', f'{names[1]},m1.png']
        path.write_text('\n'.join([*lines, ',', f'{names[2]},m2.png', '']))
    else:
        masks = ['m0.png', 'm1.png', 'm2.png']
        parquet.write_table(
            pyarrow.table(dict(path=names, mask=masks, x=[1, 2, 3])), path
        )
    return path


def test_names_its_images(table, tmp_path):
    folder = str(tmp_path)
    wanted = [f'{folder}/deep/a,b.jpg', '/abs/ö.png', 's3://bucket/c.tif']
    assert build(table) == [dict(img_path=path) for path in wanted]
    assert build(table, data_root='/data')[0]['img_path'] == '/data/deep/a,b.jpg'


def test_names_their_masks(table, tmp_path):
    if table.suffix == '.txt':
        with pytest.raises(UserError, match='plain list'):
            build(table, mask_column='mask')
        return
    found = build(table, mask_column='mask')
    masks = [sample['mask_path'] for sample in found]
    assert masks == [f'{tmp_path}/m{i}.png' for i in range(3)]


def test_an_image_without_a_mask_is_named(tmp_path):
    path = tmp_path / 'list.csv'
    path.write_text('path,mask\na.tif,m.png\nb.tif,\n')
    with pytest.raises(UserError, match='no mask of b.tif in the column mask'):
        build(path, mask_column='mask')


def test_missing_columns_are_named(table):
    if table.suffix == '.txt':
        assert len(build(table, column='file')) == 3  # has no columns
        return
    with pytest.raises(UserError, match="no column 'file'.*path, mask"):
        build(table, column='file')


def test_what_is_no_list_is_refused(tmp_path):
    with pytest.raises(MissingFileError, match='no list of images'):
        build(tmp_path / 'none.csv')
    for name, content, message in (
        ('a.csv', b'path\n', 'names no image'),
        ('a.csv', b'', 'has no column'),
        ('a.json', b'{}', 'expected a .txt, .csv or .parquet'),
        ('a.parquet', b'junk', 'cannot be read'),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            build(tmp_path / name)


def test_lists_may_have_a_byte_order_mark_and_must_be_utf_8(tmp_path):
    (tmp_path / 'list.txt').write_bytes(b'\xef\xbb\xbfa.png\r\nb.png\r\n')
    assert read_lines(tmp_path / 'list.txt') == ['a.png', 'b.png']
    (tmp_path / 'list.txt').write_bytes(b'\xe9.png\n')
    with pytest.raises(UserError, match='list.txt.*save it as UTF-8'):
        read_lines(tmp_path / 'list.txt')


def test_columns_that_are_not_asked_for_take_no_memory(tmp_path):
    row = f'a.png,{"x" * 100_000}\n'
    (tmp_path / 'a.csv').write_text('path,notes\n' + 50 * row)
    tracemalloc.start()
    found = read_columns(tmp_path / 'a.csv', ['path'])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == dict(path=50 * ['a.png']) and peak < 2e6
