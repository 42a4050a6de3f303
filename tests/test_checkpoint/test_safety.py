"""Loading runs no code, by any path that this package hooks."""

import enum
import itertools
import logging
import os
import pickle
import zipfile
from collections import OrderedDict
from decimal import Decimal
from fractions import Fraction

import mmengine
import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import HistoryBuffer
from mmengine.logging import history_buffer as mmengine_module
from mmengine.runner import FlexibleRunner, Runner, load_checkpoint
from mmengine.runner.checkpoint import (
    CheckpointLoader,
    _load_checkpoint,
    load_from_local,
)
from mmpretrain import get_model
from torch import nn
from torch._utils import _rebuild_tensor_v2
from torch.serialization import set_crc32_options
from torch.utils.data import Dataset

from mmmixmim.checkpoint import read_checkpoint, read_file, read_weights, to_plain
from mmmixmim.engine import PlainCheckpointHook
from mmmixmim.validation import (
    MissingFileError,
    RefusedFileError,
    UserError,
)

from .. import payloads

REFUSED = 'is not loaded, since it holds more than weights and could run code'


@pytest.fixture
def marker(tmp_path):
    """A folder that exists once an attack has run."""
    return tmp_path / 'code has run'


@pytest.fixture
def attack(tmp_path, marker):
    """A file with code in a pickle, and the weights of a linear layer."""
    payloads.pickle_file(tmp_path / 'attack.pth', marker, nn.Linear(1, 1).state_dict())
    return str(tmp_path / 'attack.pth')


class Ones(Dataset):
    metainfo = dict(classes=('one',))

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return dict(inputs=torch.ones(1), data_samples=index)


class Line(mmengine.model.BaseModel):
    def __init__(self, init_cfg=None):
        super().__init__(init_cfg=init_cfg)
        self.line = nn.Linear(1, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return dict(loss=(self.line(inputs) - 2).square().mean())


@pytest.fixture
def make_runner(tmp_path):
    """Builder of a runner of a tiny model, with a moving average of its weights."""

    number = itertools.count()

    def make(kind=Runner, **options):
        averages = []
        if kind is Runner:  # the other one resumes before hooks are ready
            averages = [dict(type='EMAHook')]
            options = dict(log_level=logging.ERROR) | options
        options = dict(experiment_name=f'{tmp_path}-{next(number)}') | options
        hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
        return kind(
            model=Line(),
            work_dir=str(tmp_path / 'work'),
            train_dataloader=dict(
                dataset=Ones(),
                batch_size=2,
                sampler=dict(type='DefaultSampler', shuffle=False),
                collate_fn=dict(type='default_collate'),
            ),
            train_cfg=dict(by_epoch=True, max_epochs=options.pop('epochs', 1)),
            optim_wrapper=dict(optimizer=dict(type='Adam', lr=0.1)),
            param_scheduler=dict(type='ConstantLR', factor=0.5, end=3),
            default_hooks=hooks,
            custom_hooks=[*averages, PlainCheckpointHook()],
            **options,
        )

    return make


# The attacks are real


def test_mmengines_own_loaders_run_the_code(attack, marker, monkeypatch):
    """What the tests below refuse does harm elsewhere."""
    load_from_local(attack, 'cpu')
    assert marker.is_dir()


def test_mmengines_own_list_of_safe_names_changes_globals(tmp_path, monkeypatch):
    payloads.globals_file(tmp_path / 'a.pth')
    monkeypatch.setattr(mmengine_module, 'hacked', 0, raising=False)
    load_from_local(str(tmp_path / 'a.pth'), 'cpu')
    assert mmengine_module.hacked == 1


def test_mmengine_executes_the_text_of_a_config(marker):
    Config.fromstring(payloads.text(marker), file_format='.py')
    assert marker.is_dir()


# And are refused


def test_code_is_refused_by_every_reader(attack, marker):
    for read in (read_file, read_checkpoint, read_weights, _load_checkpoint):
        with pytest.raises(RefusedFileError, match=REFUSED) as error:
            read(attack)
        assert 'GLOBAL' in str(error.value) and 'mkdir' in str(error.value)
        assert f'MMMIXMIM_TRUST_FILES={attack}' in str(error.value)
        assert len(str(error.value).splitlines()) == 1
    assert not marker.exists()


def test_names_on_mmengines_list_are_refused(tmp_path):
    payloads.globals_file(tmp_path / 'a.pth')
    for read in (read_file, _load_checkpoint):
        with pytest.raises(UserError, match='a.pth'):
            read(str(tmp_path / 'a.pth'))
    assert not hasattr(mmengine_module, 'hacked')


@pytest.mark.parametrize('kind', ['new', 'upper case', 'old', 'old and a zip'])
def test_what_takes_memory_by_a_number_is_refused(kind, tmp_path):
    """Also by a small one, which PyTorch accepts."""
    content, path = dict(a=payloads.Call(bytearray, 4)), tmp_path / 'a.pth'
    torch.save(content, path, _use_new_zipfile_serialization=not kind.startswith('old'))
    if kind == 'upper case':  # as which PyTorch finds it, too
        path.write_bytes(path.read_bytes().replace(b'data.pkl', b'data.PKL'))
    if kind == 'old and a zip':
        with zipfile.ZipFile(path, 'a') as archive:
            archive.writestr('data.pkl', pickle.dumps({}, protocol=2))
    assert len(torch.load(path, weights_only=True)['a']) == 4
    with pytest.raises(RefusedFileError, match='a.pth is not .* any amount of memory'):
        read_file(path)


@pytest.mark.parametrize('new', [True, False])
def test_tensors_by_a_number_are_refused(new, tmp_path):
    content, path = (
        dict(a=payloads.Call(torch.FloatTensor, 1 << 19)),
        tmp_path / 'a.pth',
    )
    torch.save(content, path, _use_new_zipfile_serialization=new)
    with pytest.raises(UserError, match='its tensors claim 2,097,152 bytes'):
        read_file(path)


def test_files_without_checksums_are_read(tmp_path):
    set_crc32_options(False)
    try:
        torch.save(dict(a=torch.ones(2)), tmp_path / 'a.pth')
    finally:
        set_crc32_options(True)
    assert read_file(tmp_path / 'a.pth')['a'].sum() == 2


def test_storages_that_a_file_lacks_are_refused(tmp_path):
    """PyTorch's old format makes them before it reads them."""
    storage, size = torch.zeros(2)._typed_storage(), 1 << 19

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if value is storage:
                return 'storage', torch.FloatStorage, '0', 'cpu', size, None

    call = payloads.Call(_rebuild_tensor_v2, storage, 0, (size,), (1,), False, {})
    with (tmp_path / 'a.pth').open('wb') as file:
        payloads.write_header(file)
        Pickler(file, protocol=2).dump(dict(a=call))
        pickle.dump([], file, protocol=2)
    with pytest.raises(UserError, match='its tensors claim 2,097,152 bytes'):
        read_file(tmp_path / 'a.pth')


@pytest.mark.parametrize('new', [True, False])
def test_what_pytorch_saves_is_read_as_it_reads_it(new, tmp_path):
    weight = torch.rand(4, 4)
    parameter = nn.Parameter(weight)
    parameter.note = dict(mean=weight)
    named = torch.rand(2)
    named.note = 'mine'
    content = dict(
        named=named,
        view=weight.T[1:],
        empty=torch.zeros(0, 3),
        scalar=torch.tensor(3, dtype=torch.bfloat16),
        complex=torch.rand(2, dtype=torch.complex64).conj(),
        parameter=parameter,
        sparse=torch.eye(3).to_sparse(),
        quantized=torch.quantize_per_tensor(torch.rand(3), 0.1, 0, torch.quint8),
        others=[torch.Size([1, 2]), {1, 2}, 1j, torch.float16, OrderedDict(a=b'\xff')],
    )
    if new:  # the old format has no such storages
        content['unsigned'] = torch.zeros(3, dtype=torch.uint16)
    torch.save(content, tmp_path / 'a.pth', _use_new_zipfile_serialization=new)
    theirs = torch.load(tmp_path / 'a.pth', weights_only=True)
    ours = read_file(tmp_path / 'a.pth')
    assert list(ours) == list(content)
    assert ours.pop('others') == theirs.pop('others')
    for name, value in ours.items():
        both = value, theirs[name]
        if name in ('sparse', 'quantized'):
            both = [x.to_dense() if x.is_sparse else x.dequantize() for x in both]
        assert type(value) is type(theirs[name]) and torch.equal(*both), name
    assert torch.equal(ours['parameter'].note['mean'], weight)
    assert ours['named'].note == 'mine'


def test_load_checkpoint_and_load_from_run_no_code(attack, marker, make_runner):
    with pytest.raises(RefusedFileError):
        load_checkpoint(nn.Linear(1, 1), attack)
    for kind in (Runner, FlexibleRunner):
        for resume in (False, True):
            with pytest.raises(RefusedFileError):
                make_runner(kind, load_from=attack, resume=resume).train()
    assert not marker.exists()


def test_pretrained_parts_of_any_model_run_no_code(attack, marker, make_backbone):
    cfg = dict(type='Pretrained', checkpoint=attack)
    for model in (Line(cfg), make_backbone(init_cfg=cfg)):
        with pytest.raises(RefusedFileError):
            model.init_weights()
    assert not marker.exists()


def test_models_of_the_hub_run_no_code(attack, marker):
    with pytest.raises(RefusedFileError):
        get_model('mixmim-tiny_1xb64-coslr-20e_digits', pretrained=attack)
    assert not marker.exists()


def test_addresses_run_no_code(attack, marker, server, tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    address = server(tmp_path)
    for read in (read_checkpoint, _load_checkpoint):
        with pytest.raises(RefusedFileError) as error:
            read(f'{address}attack.pth')
        assert 'MMMIXMIM' not in str(error.value)  # only local files can be trusted
    assert not marker.exists()
    assert not list((tmp_path / 'cache').rglob('*.pth'))


class PetrelBackend(LocalBackend):
    """A store in the cloud, by a folder."""

    folder = None

    def get_local_path(self, filepath):
        return super().get_local_path(f'{self.folder}/{filepath.split("/")[-1]}')


def test_files_in_a_cloud_run_no_code(attack, marker, tmp_path, monkeypatch):
    register_backend('petrel', PetrelBackend, force=True, prefixes='s3')
    monkeypatch.setattr(PetrelBackend, 'folder', str(tmp_path))
    with pytest.raises(RefusedFileError):
        _load_checkpoint('s3://bucket/attack.pth')
    torch.save(nn.Linear(1, 1).state_dict(), tmp_path / 'good.pth')
    assert set(_load_checkpoint('s3://bucket/good.pth')) == {'weight', 'bias'}
    assert not marker.exists()


def test_named_models_run_no_code(attack, marker, tmp_path, monkeypatch):
    """A file that MMEngine's folder names."""
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path))
    (tmp_path / 'open_mmlab.json').write_text('{"mine": "attack.pth"}')
    for scheme in ('open-mmlab', 'openmmlab'):
        with pytest.raises(RefusedFileError):
            _load_checkpoint(f'{scheme}://mine')
    assert not marker.exists()


@pytest.mark.parametrize(
    'scheme', ['open-mmlab', 'openmmlab', 'torchvision', 'modelzoo', 'mmcls', 'pavi']
)
def test_unknown_names_of_models_are_named(scheme):
    with pytest.raises(UserError, match=f'{scheme}://nothing: .*|pavi:// is not'):
        _load_checkpoint(f'{scheme}://nothing')


def test_every_loader_of_mmengine_is_replaced():
    modules = {each.__module__ for each in CheckpointLoader._schemes.values()}
    assert modules == {'mmmixmim.checkpoint.mmengine_hook'}


@pytest.mark.parametrize('kind', [Runner, FlexibleRunner])
def test_no_text_in_a_checkpoint_is_executed(kind, make_runner, marker, tmp_path):
    """Resuming parses the config that a checkpoint holds, which is a program."""
    make_runner(epochs=1).train()
    content = torch.load(tmp_path / 'work' / 'epoch_1.pth', weights_only=True)
    text = payloads.text(marker)
    content['meta'].update(config=text, cfg=text)
    torch.save(content, tmp_path / 'attack.pth')
    path = str(tmp_path / 'attack.pth')
    runner = make_runner(kind, epochs=2, load_from=path, resume=True)
    runner.train()
    assert runner.iter == 4 and not marker.exists()
    assert _load_checkpoint(path)['meta']['config_text'] == text


def test_inferencers_execute_no_text(tmp_path, marker):
    """Without a config, MMEngine's inferencer parses the checkpoint's."""
    from mmengine.infer import BaseInferencer

    class Inferencer(BaseInferencer):
        _init_pipeline = preprocess = visualize = postprocess = lambda self, *args: None

    payloads.text_file(tmp_path / 'a.pth', marker)
    with pytest.raises(ValueError, match='Cannot find the config'):
        Inferencer(weights=str(tmp_path / 'a.pth'), scope='mmmixmim', device='cpu')
    assert not marker.exists()


# Files that the user trusts


@pytest.mark.parametrize('name', ['attack.pth', '.', 'link'])
def test_trusted_files_are_loaded_whole(attack, marker, tmp_path, monkeypatch, name):
    (tmp_path / 'link').symlink_to(attack)
    trusted = os.pathsep.join(('/nowhere', str(tmp_path / name)))
    monkeypatch.setenv('MMMIXMIM_TRUST_FILES', trusted)
    content = _load_checkpoint(attack)
    assert marker.is_dir() and content['meta']['epoch'] == 0


def test_other_files_are_not_trusted(attack, marker, tmp_path, monkeypatch):
    for value in ('', os.pathsep, str(tmp_path / 'other'), attack[:-1]):
        monkeypatch.setenv('MMMIXMIM_TRUST_FILES', value)
        with pytest.raises(RefusedFileError):
            _load_checkpoint(attack)
    assert not marker.exists()


# Our own checkpoints, and MMEngine's


def test_checkpoints_with_all_their_state_are_plain(make_runner, tmp_path):
    runner = make_runner(epochs=2)
    runner.train()
    path = tmp_path / 'work' / 'epoch_2.pth'
    content = torch.load(path, weights_only=True)
    assert {'optimizer', 'param_schedulers', 'ema_state_dict'} <= set(content)
    history = content['message_hub']['log_scalars']['train/loss']
    assert len(history['log_history']) == 4

    ours = _load_checkpoint(str(path))['message_hub']['log_scalars']
    for name, expected in runner.message_hub.log_scalars.items():
        assert isinstance(ours[name], HistoryBuffer)
        for mine, theirs in zip(ours[name].data, expected.data, strict=True):
            assert (mine == theirs).all()
        assert ours[name].max_length == expected.max_length


class Colour(enum.IntEnum):
    RED = 1


class Shape(str, enum.Enum):
    ROUND = 'round'


class Metres(float):
    pass


@pytest.mark.parametrize(
    'value, plain',
    [
        (Colour.RED, 1),
        (Shape.ROUND, 'round'),
        (Metres(2), 2.0),
        ({Colour.RED: 1, (0, Shape.ROUND): 2}, {1: 1, (0, 'round'): 2}),
        (True, True),
        (torch.Size([1]), torch.Size([1])),
    ],
    ids=str,
)
def test_subclasses_of_plain_values_are_saved_as_those(value, plain, tmp_path):
    unknown = []
    torch.save(to_plain(value, 'name', unknown), tmp_path / 'a.pth')
    found = torch.load(tmp_path / 'a.pth', weights_only=True)
    assert found == plain and type(found) is type(plain) and not unknown


@pytest.mark.parametrize(
    'value',
    [Fraction(1, 2), Decimal(1), frozenset([1]), {frozenset([1]): 1}],
    ids=str,
)
def test_what_the_plain_loader_refuses_is_named(value, tmp_path):
    unknown = []
    torch.save(to_plain(value, 'name', unknown), tmp_path / 'a.pth')
    assert len(unknown) == 1 and 'name (' in unknown[0]
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / 'a.pth', weights_only=True)


@pytest.mark.parametrize('plain', [True, False])
def test_log_histories_continue(make_runner, tmp_path, plain):
    """From plain checkpoints, and from MMEngine's own, with objects in them."""
    first = make_runner(epochs=1)
    if not plain:
        first.hooks.pop()
    first.train()
    path = tmp_path / 'work' / 'epoch_1.pth'
    if plain:
        torch.load(path, weights_only=True)
    else:
        with pytest.raises(Exception, match='HistoryBuffer|getattr'):
            torch.load(path, weights_only=True)
    losses = list(first.message_hub.get_scalar('train/loss').data[0])
    runner = make_runner(epochs=2, resume=True)
    runner.train()
    assert runner.iter == 4
    history = runner.message_hub.get_scalar('train/loss')
    assert list(history.data[0][:2]) == losses and len(history.data[0]) == 4
    assert history.mean(4) == pytest.approx(history.data[0].mean())


def test_objects_that_are_not_plain_are_named(make_runner, tmp_path):
    log = tmp_path / 'work'
    runner = make_runner(log_level='WARNING')
    runner.message_hub.update_info('mine', Ones())
    runner.train()
    (file,) = log.glob('*/*.log')
    (line,) = [x for x in file.read_text().splitlines() if 'no plain values' in x]
    assert 'message_hub.runtime_info.mine (Ones)' in line


# Damaged files, and files that unpack to far more than their size


def test_damaged_files_give_one_line(tmp_path):
    """Cut or changed anywhere, in both of PyTorch's formats."""
    good = tmp_path / 'good.pth'
    generator = torch.Generator().manual_seed(0)
    for old in (False, True):
        torch.save(
            dict(state_dict=nn.Linear(9, 9).state_dict(), meta=dict(a=[1, 'b'])),
            good,
            _use_new_zipfile_serialization=not old,
        )
        data = good.read_bytes()
        damaged = [data[: len(data) * i // 40] for i in range(40)]
        for _ in range(100):
            changed = bytearray(data)
            for place in torch.randint(len(data), (3,), generator=generator):
                changed[place] = int(torch.randint(256, (1,), generator=generator))
            damaged.append(bytes(changed))
        refused = 0
        for each in damaged:
            (tmp_path / 'bad.pth').write_bytes(each)
            try:
                read_file(tmp_path / 'bad.pth')
            except UserError as error:
                assert 'bad.pth' in str(error)
                assert len(str(error).splitlines()) == 1
                refused += 1
        assert refused >= 40


def test_compressed_archives_are_refused(tmp_path):
    torch.save(dict(state_dict={'a': torch.zeros(10_000_000)}), tmp_path / 'a.pth')
    with (
        zipfile.ZipFile(tmp_path / 'a.pth') as source,
        zipfile.ZipFile(tmp_path / 'b.pth', 'w', zipfile.ZIP_DEFLATED) as bomb,
    ):
        for entry in source.infolist():
            bomb.writestr(entry.filename, source.read(entry))
    assert (tmp_path / 'b.pth').stat().st_size < 100_000
    with pytest.raises(UserError, match='b.pth.*bytes unpack to 40,0'):
        read_file(tmp_path / 'b.pth')


def test_tensors_larger_than_their_data_are_refused(tmp_path):
    for name, tensor in dict(
        a=torch.zeros(1).expand(1 << 40), b=torch.zeros(1).expand(100)
    ).items():
        torch.save({name: tensor}, tmp_path / f'{name}.pth')
    with pytest.raises(UserError, match='a.pth.*fewer values'):
        read_file(tmp_path / 'a.pth')
    assert read_file(tmp_path / 'b.pth')['b'].shape == (100,)


def test_content_that_refers_to_itself_is_read(tmp_path):
    """Billions of references to one object take no time; a circle has no end."""
    many = [HistoryBuffer([1.0], [1])]
    for _ in range(40):
        many = [many, many, (many, many)]
    circle = {'many': many}
    circle['self'] = circle
    torch.save(circle, tmp_path / 'a.pth')
    content = read_file(tmp_path / 'a.pth')
    assert content['self'] is content
    inner = content['many']
    while isinstance(inner, list):
        inner = inner[0]
    assert isinstance(inner, HistoryBuffer)


def test_folders_are_no_checkpoints(tmp_path):
    with pytest.raises(MissingFileError, match='it is a folder'):
        read_file(tmp_path)
    os.mkfifo(tmp_path / 'pipe.pth')
    with pytest.raises(MissingFileError, match='it is no regular file'):
        read_file(tmp_path / 'pipe.pth')
