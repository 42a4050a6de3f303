"""Loading configs with command-line options."""

import argparse
import os
import sys

import pytest
import torch
from mmengine.config import Config

from mmmixmim.runtime import (
    add_run_arguments,
    check_data_roots,
    load_config,
    prepare_run,
)
from mmmixmim.validation import MissingFileError, UserError

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def load(config, *options):
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    add_run_arguments(parser)
    args = parser.parse_args([str(config), *options])
    cfg = load_config(args.config, args.cfg_options)
    prepare_run(cfg, args.config, args.launcher, args.work_dir, args.local_rank)
    return cfg


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Function that writes a config file."""
    monkeypatch.setenv('LOCAL_RANK', '0')

    def write(text, name='some_name.py'):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


@pytest.fixture
def config(write):
    """A config of our scope with minimal dataloaders."""
    loaders = '\n'.join(f'{loader} = dict(num_workers=2)' for loader in LOADERS)
    return write(f"default_scope = 'mmmixmim'\n{loaders}\n")


def test_saved_config_does_not_duplicate_a_config_name(config):
    """mim searches the whole checkout for configs by name, including work_dirs."""
    cfg = load(config)
    assert cfg.filename == 'config.py' and cfg.default_scope == 'mmmixmim'
    assert 'num_workers=2' in cfg.text


def test_a_preprocessor_beside_the_model_goes_into_it(write):
    """As MMEngine's Runner puts it there; some tools build the model alone."""
    beside = 'data_preprocessor = dict(mean=[1])\n'
    for inside, mean in (('', [1]), (', data_preprocessor=dict(mean=[2])', [2])):
        cfg = load(write(f"{beside}model = dict(type='A'{inside})\n"))
        assert cfg.model.data_preprocessor == dict(mean=mean)
    assert 'model' not in load(write(beside))
    saved = write(cfg.pretty_text)
    changed = load(saved, '--cfg-options', 'model.data_preprocessor.mean=[3]')
    assert changed.model.data_preprocessor == dict(mean=[3])


def test_work_dir_comes_from_option_then_config_then_name(config):
    assert load(config).work_dir == os.path.join('work_dirs', 'some_name')
    assert load(config, '--cfg-options', 'work_dir=a').work_dir == 'a'
    both = load(config, '--cfg-options', 'work_dir=a', '--work-dir', 'b')
    assert both.work_dir == 'b'


def test_experiment_name_comes_from_config_then_name(config):
    assert load(config).experiment_name == 'some_name'
    named = load(config, '--cfg-options', 'experiment_name=a')
    assert named.experiment_name == 'a'


@pytest.mark.parametrize(
    'init, key',
    [
        ('dict(checkpoint="a.pth")', 'init_cfg'),
        ('[dict(type="Constant"), dict(val=1)]', 'init_cfg.1'),
    ],
)
def test_an_init_cfg_needs_a_type(write, init, key):
    file = write(f"model = dict(type='MixMIM', neck=[dict(init_cfg={init})])")
    with pytest.raises(
        UserError, match=rf'model.neck.0.{key} has no type.*{key}.type='
    ):
        load(file)


def test_none_turns_off_any_default_hook(write):
    """MMEngine takes None for its own hooks alone."""
    config = write("default_hooks = dict(logger=dict(type='A'), own=dict(type='B'))")
    off = ['default_hooks.logger=None', 'default_hooks.own=None']
    assert load(config, '--cfg-options', *off).default_hooks == dict(logger=None)


def test_launcher_and_rank(config, monkeypatch):
    assert load(config).launcher == 'none'
    assert load(config, '--launcher', 'pytorch').launcher == 'pytorch'
    # torchrun sets the variable, torch.distributed.launch passes the option.
    monkeypatch.setenv('LOCAL_RANK', '3')
    load(config, '--local-rank', '1')
    assert os.environ['LOCAL_RANK'] == '3'
    monkeypatch.delenv('LOCAL_RANK')
    load(config, '--local_rank=1')
    assert os.environ['LOCAL_RANK'] == '1'


@pytest.mark.parametrize('name', LOADERS)
def test_workers_persist_where_there_are_some(config, name):
    assert load(config)[name].persistent_workers is True
    options = [f'{name}.num_workers=0', f'{name}.persistent_workers=True']
    assert load(config, '--cfg-options', *options)[name].persistent_workers is False
    off = f'{name}.persistent_workers=False'
    assert load(config, '--cfg-options', off)[name].persistent_workers is False


@pytest.mark.parametrize('name', LOADERS)
@pytest.mark.parametrize('cuda', [False, True])
def test_memory_is_pinned_for_gpus_only(config, monkeypatch, name, cuda):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: cuda)
    assert load(config)[name].pin_memory is cuda
    for value in (False, True):
        option = f'{name}.pin_memory={value}'
        assert load(config, '--cfg-options', option)[name].pin_memory is (
            cuda and value
        )


@pytest.mark.parametrize('name', LOADERS)
@pytest.mark.parametrize(
    'scope, stacked',
    [('mmmixmim', True), ('mmpretrain', True), ('mmdet', False), ('mmseg', False)],
)
def test_only_our_and_mmpretrains_batches_are_stacked(write, scope, stacked, name):
    """Data preprocessors of mmdet and mmseg expect lists, all others tensors."""
    text = f'default_scope = {scope!r}\n{name} = dict(batch_size=1)\n'
    expected = dict(type='default_collate') if stacked else None
    assert load(write(text))[name].get('collate_fn') == expected
    own = load(write(text), '--cfg-options', f'{name}.collate_fn.type=own_collate')
    assert own[name].collate_fn == dict(type='own_collate')


def test_missing_loaders_stay_missing(write):
    cfg = load(write("default_scope = 'mmmixmim'\nval_dataloader = None\n"))
    assert cfg.val_dataloader is None and 'train_dataloader' not in cfg


def test_options_take_arguments_of_the_runner_that_the_config_lacks(config):
    options = ['load_from=a.pth', 'compile=True', 'find_unused_parameters=True']
    cfg = load(config, '--cfg-options', *options, 'model_wrapper_cfg.type=Some')
    assert cfg.load_from == 'a.pth' and cfg.compile and cfg.find_unused_parameters
    assert cfg.model_wrapper_cfg.type == 'Some'


@pytest.mark.parametrize(
    'option, hint',
    [
        ('train_dataloaders.num_workers=1', ' Did you mean train_dataloader?'),
        ('custom_import.imports=a', ' Did you mean custom_imports?'),
        ('resum=True', ' Did you mean resume?'),
        ('zzz=1', ''),
    ],
)
def test_unknown_options_are_refused(config, option, hint):
    with pytest.raises(UserError) as error:
        load(config, '--cfg-options', option)
    key = option.split('=')[0]
    message = f'--cfg-options {key}: the config has no {key.split(".")[0]}.{hint}'
    assert str(error.value) == message


@pytest.mark.parametrize(
    'option, reason',
    [
        ('param_scheduler.3.end=5', 'Index 3 exceeds'),
        ('param_scheduler.end=5', 'list indices must be'),
        ('load_from.x=1', '.*cannot inherit'),
    ],
)
def test_options_that_do_not_fit_are_refused(write, option, reason):
    config = write('load_from = None\nparam_scheduler = [dict(end=4)]\n')
    message = f'--cfg-options {option} does not fit the config: {reason}'
    with pytest.raises(UserError, match=message):
        load(config, '--cfg-options', option)


def test_options_may_replace_a_whole_entry(write):
    config = write('model = dict(type="A", size=1)\n')
    for options in (
        ['model.type=B', 'model._delete_=True'],
        ['model._delete_=True', 'model.type=B'],
    ):
        assert load(config, '--cfg-options', *options).model == dict(type='B')


def test_an_optimizer_must_be_a_dict(write):
    config = write('optim_wrapper = dict(optimizer=dict(lr=0.1))\n')
    with pytest.raises(UserError, match='set optim_wrapper.optimizer.type instead'):
        load(config, '--cfg-options', 'optim_wrapper.optimizer=AdamW')


def test_missing_configs_are_named(write, tmp_path):
    with pytest.raises(MissingFileError, match="'a.py' does not exist: check"):
        load('a.py')
    config = write("_base_ = 'nowhere.py'")
    with pytest.raises(MissingFileError, match=r'some_name.py. names .*nowhere.py'):
        load(config)


# custom_imports


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Function that writes a module which counts its imports."""
    folder = tmp_path / 'modules'
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def write(name, text=''):
        (folder / f'{name}.py').write_text(
            'from pathlib import Path\n'
            'with Path(__file__).with_suffix(".log").open("a") as file:\n'
            '    file.write("x")\n' + text
        )
        return lambda: len((folder / f'{name}.log').read_text())

    return write


@pytest.mark.parametrize(
    'names',
    [
        '[one_module,other_module]',
        'one_module,other_module',
        '(one_module,other_module)',
    ],
)
def test_modules_of_options_are_imported(write, module, names, monkeypatch):
    counts = [module(name) for name in ('one_module', 'other_module')]
    for name in ('one_module', 'other_module'):
        monkeypatch.delitem(sys.modules, name, raising=False)
    load(write('a = 1'), '--cfg-options', f'custom_imports.imports={names}')
    assert [count() for count in counts] == [1, 1]


@pytest.mark.parametrize('place', ['config', 'option'])
def test_a_single_module_needs_no_list(write, module, place):
    count = module(f'single_{place}')
    if place == 'config':
        load(write("custom_imports = dict(imports='single_config')"))
    else:
        load(write('a = 1'), '--cfg-options', 'custom_imports.imports=single_option')
    assert count() == 1


def test_an_option_replaces_the_modules_of_the_config(write, module):
    count = module('better_module')
    config = write("custom_imports = dict(imports=['no_such_module'])")
    load(config, '--cfg-options', 'custom_imports.imports=[better_module]')
    assert count() == 1


@pytest.mark.parametrize('place', ['config', 'option'])
def test_missing_modules_are_named(write, place):
    text = "custom_imports = dict(imports=['json', 'no_such_module'])"
    option = 'custom_imports.imports=[json,no_such_module]'
    config = write(text if place == 'config' else 'a = 1')
    with pytest.raises(UserError, match='cannot import no_such_module .*PYTHONPATH'):
        load(config, *(['--cfg-options', option] if place == 'option' else []))


def test_what_a_module_itself_misses_is_named(write, module):
    module('needy_module', 'import no_such_package')
    config = write("custom_imports = dict(imports='needy_module')")
    with pytest.raises(UserError, match="needy_module .*'no_such_package'"):
        load(config)


def test_missing_modules_may_be_allowed(write):
    text = "custom_imports = dict(imports=['no_such'], allow_failed_imports=True)"
    with pytest.warns(UserWarning, match='no_such failed to import'):
        load(write(text))


@pytest.mark.parametrize(
    'text', ["'json'", 'dict(allow_failed_imports=True)', 'dict(imports=[1])']
)
def test_custom_imports_that_name_no_module_are_refused(write, text):
    with pytest.raises(UserError, match='custom_imports must be a dict'):
        load(write(f'custom_imports = {text}'))


# check_data_roots


def data(wrap, scope, **dataset):
    loader = dict(dataset=wrap(dict(type='Any', **dataset)))
    return Config(dict(default_scope=scope, train_dataloader=loader))


def plain(dataset):
    return dataset


def test_existing_data_pass(tmp_path):
    (tmp_path / 'images').mkdir()
    (tmp_path / 'a.json').touch()
    prefix = dict(img='images', seg=None)
    root = str(tmp_path)
    cfg = data(plain, 'mmseg', data_root=root, ann_file='a.json', data_prefix=prefix)
    check_data_roots(cfg, ('train', 'val'))


@pytest.mark.parametrize(
    'dataset, option, path',
    [
        (dict(data_root='gone'), 'data_root', 'gone'),
        (dict(ann_file='a.json'), 'ann_file', 'a.json'),
        (dict(data_prefix=dict(img='images')), 'data_prefix.img', 'images'),
    ],
)
@pytest.mark.parametrize(
    'wrap, key',
    [
        (plain, 'dataset'),
        (lambda dataset: dict(type='Repeat', dataset=dataset), 'dataset.dataset'),
        (
            lambda dataset: dict(type='Concat', datasets=[dict(type='B'), dataset]),
            'dataset.datasets.1',
        ),
    ],
    ids=['plain', 'wrapped', 'joined'],
)
def test_missing_data_are_named(
    tmp_path, monkeypatch, dataset, option, path, wrap, key
):
    monkeypatch.chdir(tmp_path)
    cfg = data(wrap, 'mmdet', **dict(data_root=str(tmp_path)) | dataset)
    with pytest.raises(MissingFileError) as error:
        check_data_roots(cfg, ('train',))
    key = f'train_dataloader.{key}'
    assert f'{path}, from {key}.{option}, does not exist' in str(error.value)
    assert f'--cfg-options {key}.data_root=FOLDER' in str(error.value)
    check_data_roots(cfg, ('val', 'test'))  # not used by this run


@pytest.mark.parametrize(
    'scope, dataset',
    [
        ('mmmixmim', dict(data_root='gone')),  # our datasets raise their own errors
        ('mmseg', dict(data_root='s3://bucket')),
        ('mmseg', dict(data_root='')),
        ('mmseg', dict(data_root='.', ann_file='http://host/a.json')),
    ],
)
def test_other_data_are_not_checked(tmp_path, monkeypatch, scope, dataset):
    monkeypatch.chdir(tmp_path)
    check_data_roots(data(plain, scope, **dataset), ('train',))


@pytest.mark.parametrize('name', ['none.py', 'none'])
def test_a_missing_config_is_named(name, tmp_path):
    with pytest.raises(MissingFileError, match=f'{name}. does not exist: check its'):
        load_config(tmp_path / name)
