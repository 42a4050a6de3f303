"""GEMMs in oneDNN: where, as exact as the BLAS, and with the user's setting kept."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from mmmixmim import ops
from mmmixmim.ops import onednn

MATMUL = getattr(torch.backends.mkldnn, 'matmul', None)


def setting():
    return MATMUL.fp32_precision if MATMUL else torch.get_float32_matmul_precision()


@pytest.fixture(params=[False, True], ids=['other CPU', 'Intel'])
def intel(request, monkeypatch):
    monkeypatch.setattr(onednn, 'INTEL_MKL', request.param)
    return request.param


@pytest.fixture
def elsewhere(monkeypatch):
    """Skip on CPUs whose oneDNN would round."""
    monkeypatch.setattr(onednn, 'INTEL_MKL', False)
    if not (torch.backends.mkldnn.is_available() and onednn._is_exact()):
        pytest.skip('oneDNN would round to bfloat16 on this CPU')


def train_linear():
    """A layer of two products for gradients."""
    layer, x = ops.Linear(64, 96), torch.randn(32, 64, requires_grad=True)
    layer(ops.gelu(x)).square().sum().backward()


def train_attention():
    """Two products for outputs, and five more for gradients."""
    qkv = torch.randn(2, 64, 3 * 64, requires_grad=True)
    bias = torch.randn(2, 32, 32)
    spans = [(slice(0, 64), 2)]
    ops.window_attention(qkv, 2, spans, [bias], [None]).square().sum().backward()


@pytest.mark.skipif(
    'AVX512' not in torch.backends.cpu.get_cpu_capability(),
    reason='PyTorch hands oneDNN these products on CPUs with AVX-512',
)
@pytest.mark.parametrize(
    ('train', 'products'), [(train_linear, 3), (train_attention, 7)]
)
def test_which_library_multiplies(train, products, elsewhere, capfd, monkeypatch):
    """oneDNN's own log tells. The outputs of a layer are its inner product."""
    for intel in (False, True):
        monkeypatch.setattr(onednn, 'INTEL_MKL', intel)
        capfd.readouterr()
        with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
            train()
        lines = capfd.readouterr().out.splitlines()
        found = [line for line in lines if ',exec,' in line]
        number = sum(',matmul,' in line or ',inner_product,' in line for line in found)
        outputs = train is train_linear
        assert number == (outputs if intel else products), found


def test_the_cpu_is_known():
    """The name of the CPU decides, and PyTorch is what tells it."""
    cpus = Path('/proc/cpuinfo')
    if not cpus.exists() or 'vendor_id' not in cpus.read_text():
        pytest.skip('no list of CPUs with their vendors')
    intel = 'GenuineIntel' in cpus.read_text()
    assert (intel and torch.backends.mkl.is_available()) == onednn.INTEL_MKL


@pytest.mark.parametrize('shape', [(1, 17, 16, 17), (8, 98, 32, 98), (2, 300, 700, 64)])
def test_products_are_exact(shape, intel):
    """To float32, on this CPU, whatever its units."""
    batch, rows, inner, columns = shape
    a, b = torch.rand(batch, rows, inner), torch.rand(batch, inner, columns)
    with onednn.gemms(a):
        found = (torch.bmm(a, b), torch.mm(a[0], b[0]), torch.mm(a[0], a[0].t()))
    a, b = a.double(), b.double()
    exact = (torch.bmm(a, b), torch.mm(a[0], b[0]), torch.mm(a[0], a[0].t()))
    torch.testing.assert_close(found, exact, rtol=2e-6, atol=0, check_dtype=False)


def test_a_cpu_that_rounds_is_left_alone(monkeypatch, elsewhere):
    """Rounded products are noticed, once, and the setting stays."""
    exact = torch.bmm
    monkeypatch.setattr(
        torch, 'bmm', lambda a, b: exact(a.bfloat16(), b.bfloat16()).float()
    )
    onednn._is_exact.cache_clear()
    before = setting()
    try:
        assert not onednn._is_exact() and setting() == before
        with onednn.gemms(torch.empty(1)):
            assert setting() == before
    finally:
        onednn._is_exact.cache_clear()


def test_the_setting_of_the_user_comes_back(elsewhere):
    """Also after an error, and of a user who chose one."""
    before, cpu = setting(), torch.empty(1)
    with onednn.gemms(cpu):
        inside = setting()
        with onednn.gemms(cpu):
            assert setting() == inside != before
        assert setting() == inside
    assert setting() == before
    with pytest.raises(KeyError), onednn.gemms(cpu):
        raise KeyError
    assert setting() == before
    torch.set_float32_matmul_precision('high')
    try:
        chosen = setting()
        with onednn.gemms(cpu):
            assert setting() == inside
        assert setting() == chosen != before
    finally:
        torch.set_float32_matmul_precision('highest')
        if MATMUL:
            MATMUL.fp32_precision = before


def test_threads_share_the_setting(elsewhere):
    """The last to leave sets it back, in whatever order they come and go."""
    before, barrier = setting(), Barrier(2)

    def first():
        with onednn.gemms(torch.empty(1)):
            barrier.wait(10)  # the second is inside, too
            barrier.wait(10)
        barrier.wait(10)

    def second():
        with onednn.gemms(torch.empty(1)):
            barrier.wait(10)
            inside = setting()
            barrier.wait(10)
            barrier.wait(10)  # the first has left
            return inside, setting()

    with ThreadPoolExecutor(2) as pool:
        runs = pool.submit(first), pool.submit(second)
        inside, later = [run.result(30) for run in runs][1]
    assert inside == later != before == setting()


def test_threads_that_start_together(elsewhere):
    """The check of this CPU changes the setting, too, and runs once."""
    before, interval = setting(), sys.getswitchinterval()

    def enter(barrier):
        barrier.wait(10)
        with onednn.gemms(torch.empty(1)):
            pass

    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(2) as pool:
            for _ in range(50):
                onednn._is_exact.cache_clear()
                list(pool.map(enter, [Barrier(2)] * 2))
                assert setting() == before
    finally:
        sys.setswitchinterval(interval)


def test_where_nothing_changes(elsewhere, monkeypatch):
    """On GPUs, and where oneDNN or all kernels are switched off."""
    before, cpu = setting(), torch.empty(1)
    with onednn.gemms(torch.empty(1, device='meta')):
        assert setting() == before
    with ops.as_on_gpu(), onednn.gemms(cpu):
        assert setting() == before
    with torch.backends.mkldnn.flags(enabled=False), onednn.gemms(cpu):
        assert setting() == before


def test_the_check_runs_outside_of_modes(elsewhere):
    """Not counted, on no fake matrices, and without autocast."""
    for mode in (
        FlopCounterMode(display=False),
        FakeTensorMode(),
        torch.autocast('cpu', torch.bfloat16),
        torch.inference_mode(),
    ):
        onednn._is_exact.cache_clear()
        with mode:
            assert onednn._is_exact()
        if isinstance(mode, FlopCounterMode):
            assert not mode.get_total_flops()
