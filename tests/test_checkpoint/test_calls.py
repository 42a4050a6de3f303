"""What a file may call, and what it may not."""

import codecs
import copyreg
import pickle
import threading
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from torch import nn, storage
from torch._tensor import _rebuild_from_type_v2
from torch._utils import (
    _rebuild_device_tensor_from_cpu_tensor,
    _rebuild_qtensor,
    _rebuild_tensor,
)

from mmmixmim.checkpoint import read_file
from mmmixmim.checkpoint.calls import limited_calls
from mmmixmim.validation import UserError

from ..payloads import Call

STORAGE = torch.zeros(2)._typed_storage()
EXPANDED = torch.zeros(1).expand(1 << 18)
LARGE = 1 << 19
TEXT, NUMBERS, BYTES = 'a' * 9999, list(range(9999)), bytes(9999)
NESTED = [0.5, 0.5]
for _ in range(9):
    NESTED = [NESTED, NESTED]


REFUSED = dict(
    bytearray=Call(bytearray, (4,)),
    bytearray_by_flag=Call(bytearray, (True,)),
    bytearray_by_tensor=Call(bytearray, (torch.tensor(4),)),
    tensor=Call(torch.Tensor, (4,)),
    tensor_of_type=Call(torch.FloatTensor, (4,)),
    tensor_of_nested_lists=Call(torch.Tensor, (NESTED,)),
    storage=Call(torch.UntypedStorage, (4,)),
    typed_storage=Call(storage.TypedStorage, (4,)),
    storage_by_type=Call(
        _rebuild_from_type_v2, (torch.UntypedStorage, torch.Tensor, (4,), {})
    ),
    # These would unpack a tensor, which makes one of each value.
    counter=Call(Counter, (EXPANDED,)),
    size=Call(torch.Size, (EXPANDED.long(),)),
    entries=Call(OrderedDict, ([torch.zeros(2)],)),
    attributes=Call(OrderedDict, (), torch.zeros(0)),
    arguments=Call(torch.Size, torch.zeros(0)),
    storage_as_arguments=Call(Counter, (STORAGE,)),
    state=Call(_rebuild_tensor, (STORAGE, 0, (2,), (1,)), (STORAGE, 0, (9,), (0,))),
    # More values than there are.
    grown=Call(_rebuild_tensor, (STORAGE, 0, (LARGE,), (1,))),
    grown_parameter=Call(nn.Parameter, (), (STORAGE, 0, (LARGE,), (1,))),
    expanded=Call(_rebuild_tensor, (STORAGE, 0, (LARGE,), (0,))),
    scales=Call(
        _rebuild_qtensor,
        (
            *(torch.zeros(2, dtype=torch.int8)._typed_storage(), 0, (2,), (1,)),
            *((torch.per_channel_affine, NESTED, NESTED, 0), False, {}),
        ),
    ),
    # Copies that are larger than the file.
    encoding=Call(codecs.encode, ('text', 'utf-32')),
    bytes=[Call(codecs.encode, (TEXT, 'latin1')) for _ in range(99)],
    sets=[Call(set, (NUMBERS,)) for _ in range(99)],
    arrays=[
        Call(
            np.zeros(0).__reduce__()[0],
            (np.ndarray, (0,), b'b'),
            (1, (9999,), np.dtype('u1'), False, BYTES),
        )
        for _ in range(99)
    ],
    tensors=[
        Call(
            _rebuild_device_tensor_from_cpu_tensor,
            (EXPANDED, torch.float64, 'cpu', False),
        )
        for _ in range(9)
    ],
)


@pytest.mark.parametrize('new', [True, False])
@pytest.mark.parametrize('call', REFUSED.values(), ids=REFUSED)
def test_what_could_fill_the_memory_is_refused(call, new, tmp_path):
    """Also by small numbers, which PyTorch accepts."""
    path = tmp_path / 'a.pth'
    torch.save(dict(a=call), path, _use_new_zipfile_serialization=new)
    with pytest.raises(UserError, match=r'a\.pth'):
        read_file(path)


def test_storages_that_a_file_lacks_are_refused(tmp_path):
    """PyTorch's old format makes them before it reads them."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if value is STORAGE:
                return 'storage', torch.FloatStorage, '0', 'cpu', LARGE, None

    system = dict(protocol_version=1001, little_endian=True, type_sizes={})
    with (tmp_path / 'a.pth').open('wb') as file:
        for part in (0x1950A86A20F9469CFC6C, 1001, system):
            pickle.dump(part, file, protocol=2)
        call = Call(_rebuild_tensor, (STORAGE, 0, (LARGE,), (1,)))
        Pickler(file, protocol=2).dump(dict(a=call))
        pickle.dump([], file, protocol=2)
    with pytest.raises(UserError, match='its tensors claim 2,097,152 bytes'):
        read_file(tmp_path / 'a.pth')


def same(a, b):
    if isinstance(a, torch.Tensor):
        a, b = (x.dequantize() if x.is_quantized else x.to_dense() for x in (a, b))
        return a.dtype == b.dtype and torch.equal(a, b)
    return a == b


@pytest.mark.parametrize('new', [True, False])
def test_what_pytorch_saves_is_read_as_it_reads_it(new, tmp_path):
    weight = torch.rand(4, 4)
    named = torch.rand(2)
    named.note = 'mine'
    parameter = nn.Parameter(weight)
    parameter.note = dict(mean=weight)
    quantized = torch.quantize_per_channel(
        torch.rand(2, 2), torch.ones(2), torch.zeros(2), 0, torch.qint8
    )
    content = dict(
        weight=weight,
        view=weight.T[1:],
        empty=torch.zeros(0, 3),
        scalar=torch.tensor(3, dtype=torch.bfloat16),
        complex=torch.rand(2, dtype=torch.complex64).conj(),
        parameter=parameter,
        frozen=nn.Parameter(weight[0], requires_grad=False),
        named=named,
        sparse=torch.eye(3).to_sparse(),
        rows=torch.eye(3).to_sparse_csr(),
        quantized=quantized,
        one_scale=torch.quantize_per_tensor(torch.rand(3), 0.1, 0, torch.quint8),
        size=torch.Size([1, 2]),
        counter=Counter('abca'),
        ordered=OrderedDict(a=1),
        of_pairs=Call(OrderedDict, ([['a', 1], ['b', 2]],)),
        set={1, 2},
        bytes=b'\xff\0',
        bytearray=bytearray(b'\xff'),
        of_text=Call(bytearray, ('\xff', 'latin-1')),
        of_nothing=bytearray(),
        number=1j,
        dtype=torch.float16,
        layout=torch.strided,
        device=torch.device('cpu'),
    )
    if new:  # the old format has no such storages
        content['unsigned'] = torch.zeros(3, dtype=torch.uint16)
    content |= dict(again=weight, list=[weight, (weight, {'a': named})])
    torch.save(content, tmp_path / 'a.pth', _use_new_zipfile_serialization=new)
    theirs = torch.load(tmp_path / 'a.pth', weights_only=True)
    ours = read_file(tmp_path / 'a.pth')
    assert list(ours) == list(content)
    for name, value in ours.items():
        assert type(value) is type(theirs[name]), name
        if name != 'list':
            assert same(value, theirs[name]), name
    assert ours['weight'] is ours['again'] is ours['list'][1][0]
    assert ours['weight'].data_ptr() == ours['parameter'].data_ptr()
    assert ours['parameter'].requires_grad and not ours['frozen'].requires_grad
    assert ours['named'].note == 'mine'
    assert torch.equal(ours['parameter'].note['mean'], weight)


@pytest.mark.parametrize(
    'args, state',
    [
        ((torch.ones(2),), (True, False, OrderedDict())),
        ((), (torch.ones(2), None, OrderedDict(), True, False)),
    ],
    ids=['two_steps', 'variable'],
)
def test_parameters_of_old_files_are_read(args, state, tmp_path, monkeypatch):
    """As in the first models of torchvision."""
    reduced = copyreg.__newobj__, (nn.Parameter, *args), state
    monkeypatch.setattr(nn.Parameter, '__reduce_ex__', lambda self, protocol: reduced)
    torch.save(dict(a=nn.Parameter(torch.zeros(0))), tmp_path / 'a.pth')
    value = read_file(tmp_path / 'a.pth')['a']
    assert type(value) is nn.Parameter and value.requires_grad
    assert torch.equal(value, torch.ones(2))


def test_other_threads_load_files_as_before(tmp_path):
    torch.save(dict(a=torch.ones(2), b=bytearray(b'b')), tmp_path / 'a.pth')
    found = []

    def load():
        found.append(torch.load(tmp_path / 'a.pth', weights_only=True))

    with limited_calls(1 << 20):
        thread = threading.Thread(target=load)
        thread.start()
        thread.join()
    load()
    for each in found:
        assert torch.equal(each['a'], torch.ones(2))
    assert len(found) == 2
