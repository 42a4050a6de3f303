"""Command-line options."""

import argparse

import pytest

from mmmixmim.runtime import add_run_arguments, positive_int, random_seed


@pytest.mark.parametrize('text, value', [('1', 1), ('007', 7), ('4096', 4096)])
def test_positive_ints(text, value):
    assert positive_int(text) == value


@pytest.mark.parametrize('text', ['0', '00', '-1', '1.5', '1e3', '', 'all', '²'])
def test_other_numbers_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError) as error:
        positive_int(text)
    assert str(error.value) == f'{text!r} is not a positive int'


@pytest.mark.parametrize('text', ['-1', str(2**32), '1.5', '', '²'])
def test_seeds_are_those_that_numpy_takes(text):
    assert random_seed('0') == 0 and random_seed(str(2**32 - 1)) == 2**32 - 1
    with pytest.raises(argparse.ArgumentTypeError) as error:
        random_seed(text)
    assert str(error.value) == f'{text!r} is not an int between 0 and 4294967295'


def test_run_options():
    parser = argparse.ArgumentParser()
    add_run_arguments(parser)
    args = parser.parse_args([])
    assert vars(args) == dict(
        cfg_options={}, work_dir=None, launcher='none', local_rank='0'
    )
    args = parser.parse_args(['--cfg-options', 'a.b=1', 'c=x', 'd=[1,2]'])
    assert args.cfg_options == {'a.b': 1, 'c': 'x', 'd': [1, 2]}
    with pytest.raises(SystemExit):
        parser.parse_args(['--launcher', 'other'])


def test_options_of_the_config_need_a_value(capsys):
    parser = argparse.ArgumentParser()
    add_run_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(['--cfg-options', 'a=1', 'model.b'])
    assert "expected KEY=VALUE, got 'model.b'" in capsys.readouterr().err
