"""Compare starts for images of other channels than the weights were trained on.

A small encoder is pretrained on coloured digits (RGB). Then it starts on other images
of digits it has not seen, from fitted weights ('mean', 'repeat') or at random, and
continues pretraining there. A linear probe scores the frozen features.

The images: 'grey' has one channel, the luminance; 'bands' has six, fixed mixtures of
red, green and blue with noise; 'unrelated' has six, of which one shows the digit and
five show other digits. Data comes with scikit-learn.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmmixmim.benchmarking import markdown_table
from mmmixmim.checkpoint import load_encoder
from mmmixmim.datasets import Digits
from mmmixmim.evaluation import linear_probe
from mmmixmim.models import MixMIM
from mmmixmim.runtime import one_line_errors, positive_int

KINDS = {'grey': 1, 'bands': 6, 'unrelated': 6}
STARTS = ('random', 'mean', 'repeat')


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', help='JSON file')
    for name, value, what in (
        ('source-epochs', 40, 'epochs of pretraining on RGB'),
        ('epochs', 6, 'epochs of continued pretraining'),
        ('seeds', 2, 'seeds of the random start and of training'),
    ):
        parser.add_argument(
            f'--{name}', type=positive_int, default=value, help=f'{what} ({value})'
        )
    return parser.parse_args()


def load(split: str) -> tuple[Tensor, np.ndarray]:
    """Images in [0, 1], (N, 32, 32), and labels."""
    data = Digits(split=split)
    samples = [data.get_data_info(i) for i in range(len(data))]
    images = torch.from_numpy(np.stack([sample['img'] for sample in samples]))
    labels = np.array([sample['gt_label'] for sample in samples])
    images = F.interpolate(images[:, None].float() / 255, (32, 32), mode='bicubic')
    return images[:, 0].clamp(0, 1), labels


def colour(grey: Tensor, seed: int) -> Tensor:
    """Paint digit and background in random colours, (N, 3, 32, 32)."""
    generator = torch.Generator().manual_seed(seed)
    ends = torch.rand(2, len(grey), 3, 1, 1, generator=generator)
    ends[1] = (ends[0] + 0.5 + 0.3 * (ends[1] - 0.5)) % 1  # another hue
    return ends[0] + (ends[1] - ends[0]) * grey[:, None]


def make(kind: str, grey: Tensor, seed: int) -> Tensor:
    """Images of a kind, (N, C, 32, 32)."""
    rgb = colour(grey, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    if kind == 'rgb':
        return rgb
    if kind == 'grey':
        luminance = torch.tensor([0.299, 0.587, 0.114])
        return torch.einsum('c,nchw->nhw', luminance, rgb)[:, None]
    if kind == 'bands':  # the same mixture for training and test
        mixture = torch.rand(6, 3, generator=torch.Generator().manual_seed(0))
        bands = torch.einsum('kc,nchw->nkhw', mixture / mixture.sum(1)[:, None], rgb)
        return bands + 0.05 * torch.randn(bands.shape, generator=generator)
    others = [grey[torch.randperm(len(grey), generator=generator)] for _ in range(5)]
    return torch.stack([grey, *others], 1)


def normalise(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """By mean and deviation of each channel of the training images."""
    mean = train.mean((0, 2, 3), keepdim=True)
    std = train.std((0, 2, 3), keepdim=True)
    return (train - mean) / std, (test - mean) / std


def build(channels: int) -> MixMIM:
    """The small model of configs/digits."""
    return MixMIM(
        backbone=dict(
            type='MixMIMTransformer',
            arch=dict(embed_dims=32, depths=[1, 1, 4], num_heads=[2, 4, 8]),
            img_size=32,
            patch_size=2,
            in_channels=channels,
            window_size=8,
        ),
        neck=dict(decoder_embed_dims=64, decoder_depth=2, decoder_num_heads=4),
    )


def pretrain(model: MixMIM, images: Tensor, epochs: int) -> float:
    """Train in batches of 64 and return the mean loss of the last epoch."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1.5e-3, betas=(0.9, 0.95), weight_decay=0.05
    )
    steps = epochs * (len(images) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.5e-3, total_steps=steps, pct_start=0.1, cycle_momentum=False
    )
    model.train()
    for _ in range(epochs):
        losses = []
        for chosen in torch.randperm(len(images)).split(64):
            if len(chosen) < 64:
                continue
            loss = model.loss(images[chosen])['loss']
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    return float(np.mean(losses))


@torch.no_grad()
def probe(model: MixMIM, images: dict, labels: dict) -> float:
    """Accuracy in percent of a linear probe of the encoder's pooled last map."""
    model.eval()
    parts = []
    for split in ('train', 'test'):
        maps = [
            model.backbone(each)[-1].mean((2, 3)) for each in images[split].split(256)
        ]
        parts.append((torch.cat(maps).numpy(), labels[split]))
    return linear_probe(*parts)


@one_line_errors()
def main() -> None:
    """Pretrain once, then start in each way on each kind."""
    args = parse_args()
    begin = time.process_time()
    torch.manual_seed(0)
    grey, labels = {}, {}
    for split in ('train', 'test'):
        grey[split], labels[split] = load(split)
    half = torch.arange(len(grey['train'])) % 2 == 0
    source = build(3)
    images, _ = normalise(*[make('rgb', grey['train'][half], 7)] * 2)
    loss = pretrain(source, images, args.source_epochs)
    print(f'source: loss {loss:.3f}', flush=True)
    grey['train'] = grey['train'][~half]
    labels['train'] = labels['train'][~half.numpy()]

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'source.pth')
        torch.save(dict(state_dict=source.state_dict()), file)
        for kind, channels in KINDS.items():
            images = {split: make(kind, grey[split], 11) for split in grey}
            images['train'], images['test'] = normalise(images['train'], images['test'])
            for start in STARTS:
                before, after, final = [], [], []
                for seed in range(args.seeds):
                    torch.manual_seed(seed)
                    model = build(channels)
                    if start != 'random':
                        load_encoder(model.backbone, file, in_channels=start)
                    before.append(probe(model, images, labels))
                    final.append(pretrain(model, images['train'], args.epochs))
                    after.append(probe(model, images, labels))
                means = [float(np.mean(each)) for each in (before, after, final)]
                rows.append([kind, channels, start, *means])
                print(rows[-1], flush=True)
    head = ['images', 'channels', 'start', 'probe at once', 'probe after', 'loss after']
    shown = [
        [row[0], str(row[1]), row[2], f'{row[3]:.1f}', f'{row[4]:.1f}', f'{row[5]:.3f}']
        for row in rows
    ]
    print(markdown_table(head, shown))
    print(f'{time.process_time() - begin:.0f} CPU seconds')
    if args.out:
        records = [dict(zip(head, row, strict=True)) for row in rows]
        Path(args.out).write_text(json.dumps(records, indent=1))


if __name__ == '__main__':
    main()
