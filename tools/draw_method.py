"""Draw how MixMIM pretrains: the figure of docs/method.md.

Everything but boxes, arrows and labels is computed by the code of the package: the
scenes, the mask, the mixed image, which tokens attend to which, the decoder's inputs,
the predictions, the targets and the loss. The predictions come from a small model that
trains on the two images alone, for as many steps as ``--steps`` says.
"""

import argparse
import math
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from mmmixmim.models import MixMIM, TokenOwnership
from mmmixmim.models.backbones.arch import Arch
from mmmixmim.models.layers import WindowLayout
from mmmixmim.runtime import one_line_errors, positive_int
from mmmixmim.synthetic import draw_scene

# Seeds of two scenes that are easy to tell apart.
SCENES = (3, 14)
SIZE = 224
WIDTH, HEIGHT = 8.0, 9.15  # inches
DPI = 150
OWN, PARTNER, GREY = '#1f5fa8', '#e07b1a', '#8a8a8a'
PALE = 0.25  # how much of its colour a token keeps that the query does not see
MONO = dict(family='DejaVu Sans Mono', fontsize=8.5, color='#444444')


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        '--out', type=Path, default=Path('docs/method.png'), help='PNG file to write'
    )
    parser.add_argument(
        '--steps', type=positive_int, default=300, help='training steps of the model'
    )
    parser.add_argument('--seed', type=int, default=3, help='seed of mask and model')
    return parser.parse_args()


# ------------------------------------------------------------------------------------
# What is drawn, computed
# ------------------------------------------------------------------------------------


def draw_images() -> Tensor:
    """Two scenes as a batch, (2, 3, SIZE, SIZE) between -1 and 1."""
    scenes = [draw_scene(np.random.default_rng(s), SIZE, (2, 3)) for s in SCENES]
    images = torch.from_numpy(np.stack([scene.image for scene in scenes]))
    return images.permute(0, 3, 1, 2) / 127.5 - 1


def build_model() -> MixMIM:
    """A small model with the maps of MixMIM-base."""
    arch = dict(embed_dims=32, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])
    return MixMIM(
        dict(type='MixMIMTransformer', arch=arch, img_size=SIZE),
        neck=dict(decoder_embed_dims=128, decoder_depth=2, decoder_num_heads=4),
    )


def train(model: MixMIM, images: Tensor, steps: int) -> None:
    """Train on one batch, with a new random mask in every step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0)
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(images)['loss'].backward()
        optimizer.step()
    model.eval()


def seen_tokens(layout: WindowLayout, token: int) -> Tensor:
    """Numbers of the map's tokens that one token attends to."""
    place = int(layout.inverse[token])
    segment = next(
        each
        for each in layout.segments
        if each.tokens.start <= place < each.tokens.stop
    )
    tokens = layout.order[segment.tokens]
    if segment.blocked is None:
        window = (place - segment.start) // segment.length
        return tokens.unflatten(0, (segment.windows, -1))[window]
    # The plain path masks instead of sorting.
    query, window = divmod(place - segment.start, segment.windows)
    seen = tokens.unflatten(0, (-1, segment.windows))[:, window]
    return seen[~segment.blocked[0, window, 0, query]]


def paint_owners(
    ownership: TokenOwnership, window: tuple, size: tuple, query: tuple
) -> np.ndarray:
    """Colour a stage's tokens by owner, those that the query sees in full colour.

    Args:
        ownership: Who owns each token.
        window: Height and width of the stage's windows in tokens.
        size: Height and width of the map in tokens.
        query: Row and column of the attending token.

    Returns:
        RGB array (height, width, 3) between 0 and 1.
    """
    layout = WindowLayout(size, window, ownership, torch.device('cpu'))
    strength = torch.full((size[0] * size[1],), PALE)
    strength[seen_tokens(layout, query[0] * size[1] + query[1])] = 1.0
    strength = strength.view(*size, 1).numpy()
    colours = paint_codes(ownership.at(*size)[0].float())
    return 1 - strength * (1 - colours)


def paint_codes(codes: Tensor) -> np.ndarray:
    """Colour owners (h, w): 0 own, 1 partner, else a mask token."""
    palette = [[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in (OWN, PARTNER)]
    colours = np.full((*codes.shape, 3), 0.85)
    for code, colour in enumerate(palette):
        colours[codes.numpy() == code] = colour
    return colours


def to_rgb(images: Tensor, low: float = -1.0, high: float = 1.0) -> np.ndarray:
    """Map (3, H, W) from ``low`` to ``high`` to RGB, (H, W, 3) between 0 and 1."""
    scaled = (images - low) / (high - low)
    return scaled.clamp(0, 1).permute(1, 2, 0).numpy()


# ------------------------------------------------------------------------------------
# The drawing
# ------------------------------------------------------------------------------------


class Page:
    """A figure whose coordinates are inches from the top left corner."""

    def __init__(self) -> None:
        self.figure = Figure(figsize=(WIDTH, HEIGHT), facecolor='white')
        self.canvas = self.figure.add_axes((0, 0, 1, 1))
        self.canvas.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0))
        self.canvas.axis('off')

    def panel(
        self, x: float, y: float, side: float, image, edge: str, caption: str = ''
    ) -> Axes:
        """Show an image (H, W, 3) in a square frame, with a caption below it."""
        box = (x / WIDTH, 1 - (y + side) / HEIGHT, side / WIDTH, side / HEIGHT)
        axis = self.figure.add_axes(box)
        height, width = image.shape[:2]
        axis.imshow(image, extent=(0, width, height, 0), interpolation='nearest')
        axis.set(xticks=[], yticks=[])
        for spine in axis.spines.values():
            spine.set(color=edge, linewidth=2)
        self.text(x + side / 2, y + side + 0.17, caption)
        return axis

    def text(
        self, x: float, y: float, text: str, align: str = 'center', **style
    ) -> None:
        """Write text, its first line at ``y``."""
        style = dict(fontsize=9, color='black', va='center', linespacing=1.35) | style
        if '\n' in text:
            style['va'] = 'top'
            y -= 0.08
        self.canvas.text(x, y, text, ha=align, **style)

    def title(self, x: float, y: float, title: str, function: str) -> None:
        """Write the heading of a step, and the function that does it."""
        self.text(x, y, title, 'left', fontsize=11, fontweight='bold')
        self.text(x + 0.16 + 0.1 * len(title), y, function, 'left', **MONO)

    def arrow(self, start: tuple[float, float], stop: tuple[float, float]) -> None:
        """Draw an arrow."""
        style = dict(arrowstyle='-|>', color='#444444', lw=1.4, shrinkA=0, shrinkB=0)
        self.canvas.annotate('', stop, start, arrowprops=style)

    def box(self, x: float, y: float, width: float, height: float, text: str) -> None:
        """Draw a box with text."""
        patch = Rectangle((x, y), width, height, facecolor='#f2f2f2', edgecolor='#444')
        self.canvas.add_patch(patch)
        middle = dict(ha='center', va='center', fontsize=9, linespacing=1.5)
        self.canvas.text(x + width / 2, y + height / 2, text, **middle)


def cell_lines(axis: Axes, step: tuple, size: tuple, color: str, width: float) -> None:
    """Draw the borders of cells or windows of ``step`` in a map of ``size``."""
    for y in range(step[0], size[0], step[0]):
        axis.axhline(y, color=color, linewidth=width)
    for x in range(step[1], size[1], step[1]):
        axis.axvline(x, color=color, linewidth=width)


def draw_mixing(
    page: Page, images: Tensor, ownership: TokenOwnership, mixed: Tensor
) -> None:
    """Step 1: two images and a mask make one mixed image."""
    page.title(0.25, 0.25, '1  Mix', 'TokenOwnership.mix')
    y, side, xs = 0.5, 1.4, (0.45, 2.3, 4.15, 6.15)
    hidden, cells = int(ownership.mask.sum()), ownership.mask.numel()
    mask = paint_codes(ownership.mask[0].float())
    for x, picture, edge, caption in (
        (xs[0], to_rgb(images[0]), OWN, 'image i'),
        (xs[1], mask, GREY, f'mask: {hidden} of {cells} cells\nshow the partner'),
        (xs[2], to_rgb(images[1]), PARTNER, 'image B-1-i,\nthe partner of image i'),
        (xs[3], to_rgb(mixed[0]), GREY, 'mixed image i: all that\nthe encoder sees'),
    ):
        axis = page.panel(x, y, side, picture, edge, caption)
        if picture is mask:
            cell_lines(axis, (1, 1), ownership.grid, 'white', 0.8)
    for x in xs[:2]:
        page.text(x + side + 0.225, y + side / 2, '+', fontsize=15)
    page.arrow((xs[2] + side + 0.12, y + side / 2), (xs[3] - 0.12, y + side / 2))


def draw_encoder(page: Page, ownership: TokenOwnership, arch: Arch) -> None:
    """Step 2: four stages, in which tokens attend to their own image only."""
    page.title(0.25, 2.75, '2  Encode', 'Stage.forward, WindowLayout')
    x, bottom, query_cell = 0.45, 4.75, (0.6, 0.4)
    for i, (size, window) in enumerate(zip(arch.maps, arch.windows, strict=True)):
        side = (1.65, 1.3, 1.0, 0.75)[i]
        query = tuple(int(q * s) for q, s in zip(query_cell, size, strict=True))
        picture = paint_owners(ownership, window, size, query)
        count = math.prod(-(-s // w) for s, w in zip(size, window, strict=True))
        blocks = f'{arch.depths[i]} blocks, {count} window' + 's' * (count > 1)
        caption = f'stage {i + 1}: {size[0]}x{size[1]}x{arch.channels[i]}\n{blocks}'
        axis = page.panel(x, bottom - side, side, picture, GREY, caption)
        cell_lines(axis, window, size, 'black', 1.2)
        axis.plot(query[1] + 0.5, query[0] + 0.5, '*', color='white', ms=11, mec='k')
        x += side
        if i < arch.stages - 1:
            page.arrow((x + 0.1, bottom - 0.4), (x + 0.47, bottom - 0.4))
            x += 0.57
    x = 4.95
    for y, code, text in (
        (2.98, 0, 'token of image i'),
        (3.22, 1, 'token of the partner'),
    ):
        colour = paint_codes(torch.tensor([[code]]))
        page.panel(x, y - 0.07, 0.14, colour, GREY)
        page.text(x + 0.25, y, text, 'left')
    page.canvas.plot(x + 0.07, 3.46, '*', color='white', ms=11, mec='k')
    text = 'attends to the tokens in full colour:\nthose of its image in its window'
    page.text(x + 0.25, 3.46, text, 'left')


def draw_decoder(
    page: Page, model: MixMIM, images: Tensor, ownership: TokenOwnership
) -> None:
    """Steps 3 and 4: decode twice, and compare on the hidden cells."""
    page.title(0.25, 5.6, '3  Decode twice', 'TokenOwnership.unmix')
    page.title(4.95, 5.6, '4  Compare', 'MixMIMPretrainHead.loss')
    with torch.no_grad():
        pred = model.neck(model.backbone(images, ownership), ownership)
        loss = model.head.loss(pred, images, ownership)
    target = ownership.targets(model.head.construct_target(images))
    codes = ownership.mask.flatten(1).float().unsqueeze(-1).expand(len(images), -1, -1)
    passes = ownership.unmix(codes, torch.tensor(2.0))[:: len(images), :, 0]
    hidden = ownership.at(SIZE, SIZE)[0].bool()

    side, xs, ys = 1.15, (0.45, 3.0, 5.1), (5.85, 7.5)
    names = ('image i', 'the partner')
    for row, (y, tokens, name) in enumerate(zip(ys, passes, names, strict=True)):
        edge = (OWN, PARTNER)[row]
        tokens = tokens.view(ownership.grid)
        caption = f'tokens of {name},\n[MASK] elsewhere'
        axis = page.panel(xs[0], y, side, paint_codes(tokens), edge, caption)
        cell_lines(axis, (1, 1), ownership.grid, 'white', 0.8)
        for i, j in (tokens == 2).nonzero().tolist():
            axis.text(j + 0.5, i + 0.5, 'M', ha='center', va='center', fontsize=6.5)
        captions = (
            f'prediction of {name}\nwhere it is hidden',
            'true pixels there,\nnormalised by cell',
        )
        for x, cells, caption in zip(xs[1:], (pred, target), captions, strict=True):
            pixels = model.head.unpatchify(cells, (SIZE, SIZE))[0]
            picture = to_rgb(pixels, -2.5, 2.5)
            picture[~(hidden if row == 0 else ~hidden).numpy()] = 1
            page.panel(x, y, side, picture, edge, caption)
        middle = y + side / 2
        page.arrow((xs[0] + side + 0.1, middle), (1.92, middle))
        page.arrow((2.68, middle), (xs[1] - 0.1, middle))
        page.text((xs[1] + side + xs[2]) / 2, middle, 'against', fontsize=9)
        page.arrow((xs[2] + side + 0.1, middle), (6.62, middle))
    page.box(1.95, ys[0], 0.7, ys[1] + side - ys[0], 'the same\ndecoder,\ntwice')
    text = f'mean\nsquared\nerror\n\nloss\n{loss:.2f}'
    page.box(6.65, ys[0], 0.95, ys[1] + side - ys[0], text)


def draw(steps: int, seed: int, path: Path) -> None:
    """Draw the whole figure."""
    torch.manual_seed(seed)
    images = draw_images()
    arch = Arch.read('base', SIZE, 4, None)
    model = build_model()
    ownership = model.ownership(images)
    train(model, images, steps)
    mixed = model.reconstruct(images, ownership)['mixed']
    page = Page()
    draw_mixing(page, images, ownership, mixed)
    draw_encoder(page, ownership, arch)
    draw_decoder(page, model, images, ownership)
    save(page.figure, path)


def save(figure: Figure, path: Path) -> None:
    """Save with 256 colours, which keeps the file small."""
    buffer = BytesIO()
    figure.savefig(buffer, dpi=DPI, format='png')
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.open(buffer).convert('RGB').quantize(256, dither=Image.Dither.NONE)
    picture.save(path, format='PNG', optimize=True)


def main() -> None:
    """Compute and draw."""
    args = parse_args()
    with one_line_errors():
        draw(args.steps, args.seed, args.out)
    print(args.out)


if __name__ == '__main__':
    main()
