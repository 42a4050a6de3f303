"""Count the parameters and multiply-accumulates of a config's model, for one image.

Pretraining models include the decoder, detectors and segmentors their heads.
"""

import argparse

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from mmmixmim.benchmarking import image_channels, image_size
from mmmixmim.evaluation import complexity
from mmmixmim.models.meta import build_on_meta
from mmmixmim.runtime import add_cfg_options, load_config, one_line_errors, positive_int
from mmmixmim.runtime.entries import type_name


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--shape',
        nargs='+',
        type=positive_int,
        metavar='SIDE',
        help="height and width in pixels, or one side (the backbone's img_size)",
    )
    add_cfg_options(parser)
    args = parser.parse_args()
    if args.shape and len(args.shape) > 2:
        parser.error('--shape takes one or two numbers')
    if args.shape and len(args.shape) == 1:
        args.shape *= 2
    return args


def forward_arguments(cfg: Config, size: tuple[int, int]) -> dict:
    """Return the arguments of the model's forward besides the images."""
    if type_name(cfg.model) == 'MixMIM':
        return dict(data_samples=None, mode='loss')
    if cfg.get('default_scope') != 'mmdet':
        return dict(mode='tensor')
    from mmdet.structures import DetDataSample

    meta = dict(img_shape=size, ori_shape=size, pad_shape=size, scale_factor=(1, 1))
    samples = [DetDataSample(metainfo=meta | dict(batch_input_shape=size))] * 2
    return dict(data_samples=samples, mode='tensor')


@one_line_errors()
def main() -> None:
    """Build the model, count and print."""
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options)
    scope = cfg.get('default_scope', 'mmmixmim')
    init_default_scope(scope)
    # A detector's boxes depend on values, and tensors on the meta device have none.
    boxes = scope == 'mmdet'
    device = torch.device('cpu' if boxes else 'meta')
    model = (MODELS.build if boxes else build_on_meta)(cfg.model).eval()
    size = image_size(model, args.shape)
    with device:
        # As many images as are mixed, or two: some parts differ for a single one.
        number = getattr(model, 'num_images', 2)
        images = torch.randn(number, image_channels(model), *size)
        figures = complexity(model, images, **forward_arguments(cfg, size))

    print(f'{cfg.model.type}, one image of {size[0]}x{size[1]} pixels')
    print(f'{"":20} {"parameters":>16} {"GMACs":>10}')
    for name, row in figures.items():
        print(f'{name:20} {row["parameters"]:>16,} {row["macs"] / 1e9:>10.3f}')


if __name__ == '__main__':
    main()
