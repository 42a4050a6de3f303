"""tools/get_flops.py on configs of all kinds."""

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from ..conftest import ROOT, TINY_ARCH
from ..scripts import CLASSIFY, FOLDER, call, passed, run

TOOL = 'get_flops.py'


def rows_of(output):
    """GMACs by part."""
    lines = output.splitlines()
    lines = lines[[line.split()[-1] for line in lines].index('GMACs') + 1 :]
    return {line.split()[0]: float(line.split()[-1]) for line in lines}


@pytest.mark.parametrize(
    'start, config, option, size, total',
    [
        (run, CLASSIFY, ['--shape', '32'], '32x32', '910,384'),
        (call, CLASSIFY, [], '32x32', '910,384'),
        (call, FOLDER, ['--shape', '64', '96'], '64x96', '16,578,876'),
    ],
)
def test_parameters_and_size(start, config, option, size, total, tmp_path):
    output = passed(start(TOOL, config, *option, cwd=tmp_path))
    name, parameters, macs = output.splitlines()[-1].split()
    assert (name, parameters) == ('total', total) and float(macs) > 0
    cfg = Config.fromfile(config)
    assert f'{cfg.model.type}, one image of {size} pixels\n' in output
    init_default_scope('mmmixmim')
    cfg.model.backbone.init_cfg = None
    model = MODELS.build(cfg.model)
    assert total == f'{sum(each.numel() for each in model.parameters()):,}'


def test_macs_are_those_of_one_image(tmp_path):
    """The head does one multiply-accumulate per weight."""
    output = passed(call(TOOL, CLASSIFY, cwd=tmp_path))
    # 128 channels x 10 classes = 1.28e-6 GMACs, printed as 0.
    assert rows_of(output)['head'] == 0
    options = ['--cfg-options', 'model.head.num_classes=1000000']
    output = passed(call(TOOL, CLASSIFY, *options, cwd=tmp_path))
    assert rows_of(output)['head'] == 0.128


def test_weights_need_no_checkpoint(tmp_path):
    config = ROOT / 'configs' / 'folder' / 'mixmim-tiny_1xb64-coslr-100e_folder.py'
    options = ['--shape', '64', '--cfg-options']
    options += ['model.backbone.init_cfg.checkpoint=nowhere.pth']
    rows = rows_of(passed(call(TOOL, config, *options, cwd=tmp_path)))
    assert rows['backbone'] > 0


def test_every_part_of_a_detector_counts(tmp_path):
    """Including modules whose method is not called forward."""
    backbone = dict(
        _delete_=True,
        type='mmmixmim.MixMIMTransformer',
        arch=TINY_ARCH,
        out_indices=(0, 1, 2, 3),
    )
    model = dict(backbone=backbone, neck=dict(in_channels=[16, 32, 64, 128]))
    base = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
    (tmp_path / 'detector.py').write_text(f'_base_ = {base!r}\nmodel = {model!r}\n')
    options = ['detector.py', '--shape', '64']
    rows = rows_of(passed(call(TOOL, *options, cwd=tmp_path)))
    total = rows.pop('total')
    assert all(rows[name] > 0 for name in ('backbone', 'neck', 'rpn_head', 'roi_head'))
    assert sum(rows.values()) == pytest.approx(total, rel=1e-3)


@pytest.mark.parametrize('shape', [['1', '2', '3'], ['0']])
def test_other_shapes_are_refused(shape, tmp_path):
    result = call(TOOL, CLASSIFY, '--shape', *shape, cwd=tmp_path)
    assert result.returncode == 2 and '--shape' in result.stderr
