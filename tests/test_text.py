import pytest

from mmmixmim.text import duration, plural, printable


@pytest.mark.parametrize(
    'seconds, text',
    [
        (0, '0 s'),
        (59.6, '1 min 00 s'),
        (754, '12 min 34 s'),
        (3600 * 3 + 7 * 60 + 29, '3 h 07 min'),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_one_has_no_plural():
    assert [plural(n, 'image') for n in (0, 1, 1248)] == [
        *('0 images', '1 image', '1,248 images'),
    ]


@pytest.mark.parametrize(
    'text, shown',
    [
        ('plain Ünïcode 猫.jpg', 'plain Ünïcode 猫.jpg'),
        ('a\nerror: b', r'a\nerror: b'),
        ('\x1b[31mred\x07', r'\x1b[31mred\x07'),
        ('\u202egpj.exe', r'\u202egpj.exe'),
        (b'\xff.jpg'.decode(errors='surrogateescape'), r'\udcff.jpg'),
    ],
)
def test_names_of_files_print_on_one_line(text, shown):
    assert printable(text) == shown
    shown.encode()
