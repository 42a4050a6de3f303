"""Modes that raise where a GPU would have to finish its queue of kernels first."""

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class NoWaits(TorchDispatchMode):
    """Raise where a GPU would have to finish all its work first."""

    READS = {'_local_scalar_dense', 'nonzero', 'masked_select', '_unique2', 'equal'}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.split('::')[1]
        out = func(*args, **(kwargs or {}))
        places = {
            each.device.type
            for each in tree_leaves((args, kwargs, out))
            if isinstance(each, torch.Tensor)
        }
        assert name not in self.READS, f'{name} waits for the device'
        assert len(places) < 2, f'{name} copies between {places}'
        return out


class NoHostTensors(TorchFunctionMode):
    """Raise where a tensor is made of a list: on meta no copy is dispatched."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        assert func not in (torch.tensor, torch.as_tensor), 'a list is copied'
        return func(*args, **(kwargs or {}))
