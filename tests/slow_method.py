"""The method of the paper, token by token: slow, obvious, and without our code.

Sources: MixMAE (arXiv 2205.13137), section 3; Swin (arXiv 2103.14030) for windows and
patch merging; MAE (arXiv 2111.06377) for position embeddings and targets. Tokens are
lists of vectors in float64; a map is a dict from (row, column) to a vector.
"""

import math

import numpy as np


def slow_loss(weights, images, owners, arch, num_images):
    """Loss of a batch.

    Args:
        weights: Arrays by the names of the model's state dict.
        images: (B, C, H, W).
        owners: The owner of each cell, (B, h, w), one grid per mixture.
        arch: Dict of ``patch_size``, ``depths``, ``num_heads``, ``windows``, ``shift``,
            ``decoder_depth`` and ``decoder_num_heads``.
        num_images: Number K of images in a mixture.
    """
    w = {name: np.asarray(value, np.float64) for name, value in weights.items()}
    images = np.asarray(images, np.float64)
    batch, stages = len(images), len(arch['depths'])
    patch = arch['patch_size']
    stride = patch * 2 ** (stages - 1)
    errors = []
    for i in range(batch):
        pictures = [images[partner(i, k, batch, num_images)] for k in range(num_images)]

        def owner(y, x, tokens, i=i):
            """Owner of a token of a map with so many tokens along a cell."""
            return int(owners[i][y // tokens][x // tokens])

        # Embed, and show at each token the image that owns it.
        height, width = (side // patch for side in images.shape[2:])
        tokens = {}
        for y in range(height):
            for x in range(width):
                picture = pictures[owner(y, x, 2 ** (stages - 1))]
                pixels = picture[:, y * patch : y * patch + patch]
                pixels = pixels[:, :, x * patch : x * patch + patch]
                kernel = w['backbone.patch_embed.proj.weight']
                token = kernel.reshape(len(kernel), -1) @ pixels.reshape(-1)
                token = token + w['backbone.patch_embed.proj.bias']
                token = norm(token, w, 'backbone.patch_embed.norm')
                tokens[y, x] = token + position(y, x, len(token))

        # Encode: a token attends to tokens of its window and of its owner.
        for stage in range(stages):
            cell = 2 ** (stages - 1 - stage)
            window = arch['windows'][stage]
            for index in range(arch['depths'][stage]):
                shift = arch['shift'] and index % 2 == 1
                places = {
                    (y, x): (
                        window_of(y, height, window[0], shift),
                        window_of(x, width, window[1], shift),
                        owner(y, x, cell),
                    )
                    for y, x in tokens
                }
                tokens = block(
                    tokens,
                    w,
                    f'backbone.layers.{stage}.blocks.{index}',
                    arch['num_heads'][stage],
                    lambda a, b, places=places: places[a] == places[b],
                    window,
                )
            if stage < stages - 1:
                height, width = height // 2, width // 2
                tokens = merge(tokens, height, width, w, f'backbone.layers.{stage}')
        tokens = {at: norm(token, w, 'backbone.norm') for at, token in tokens.items()}

        # Decode once for each image, and compare what that pass did not see.
        for k in range(num_images):
            seen = {
                at: linear(token, w, 'neck.decoder_embed')
                if owner(*at, 1) == k
                else w['neck.mask_token'][0, 0]
                for at, token in tokens.items()
            }
            seen = {at: t + position(*at, len(t)) for at, t in seen.items()}
            for index in range(arch['decoder_depth']):
                name = f'neck.decoder_blocks.{index}'
                heads = arch['decoder_num_heads']
                seen = block(seen, w, name, heads, lambda a, b: True)
            for (y, x), token in seen.items():
                if owner(y, x, 1) != k:
                    token = norm(token, w, 'neck.decoder_norm')
                    predicted = linear(token, w, 'neck.decoder_pred')
                    errors.append((predicted - target(pictures[k], y, x, stride)) ** 2)
    return float(np.mean(errors))


def partner(i, k, batch, num_images):
    """The image that owner k of mixture i stands for."""
    if k == 0:
        return i
    return batch - 1 - i if num_images == 2 else (i + k * batch // num_images) % batch


def window_of(place, side, length, shift):
    """Number of the window along one side; the first is half if shifted."""
    first = length // 2 if shift and side > length > 1 else length
    return 0 if place < first else 1 + (place - first) // length


def block(tokens, w, name, heads, sees, window=None):
    """Attention and FFN, each pre-normalised and residual."""
    qkv = {
        at: linear(norm(token, w, f'{name}.norm1'), w, f'{name}.attn.qkv')
        for at, token in tokens.items()
    }
    out = {}
    for query, token in tokens.items():
        attended = []
        keys = [key for key in tokens if sees(query, key)]
        size = len(token) // heads
        for head in range(heads):
            part = slice(head * size, head * size + size)
            logits = []
            for key in keys:
                q, k = qkv[query][: len(token)][part], qkv[key][len(token) :][part]
                logit = q @ k / math.sqrt(size)
                if window is not None:
                    down = query[0] - key[0] + window[0] - 1
                    right = query[1] - key[1] + window[1] - 1
                    row = down * (2 * window[1] - 1) + right
                    table = w[f'{name}.attn.relative_position_bias_table']
                    logit = logit + table[row, head]
                logits.append(math.exp(logit))
            values = [qkv[key][2 * len(token) :][part] for key in keys]
            total = sum(e * value for e, value in zip(logits, values, strict=True))
            attended.append(total / sum(logits))
        out[query] = token + linear(np.concatenate(attended), w, f'{name}.attn.proj')
    for at, token in out.items():
        hidden = linear(norm(token, w, f'{name}.norm2'), w, f'{name}.mlp.fc1')
        hidden = [h * (1 + math.erf(h / math.sqrt(2))) / 2 for h in hidden]
        out[at] = token + linear(np.array(hidden), w, f'{name}.mlp.fc2')
    return out


def merge(tokens, height, width, w, name):
    """Merge squares of four tokens: top left, bottom left, top right, bottom right."""
    merged = {}
    for y in range(height):
        for x in range(width):
            four = [tokens[2 * y + a, 2 * x + b] for b in (0, 1) for a in (0, 1)]
            token = norm(np.concatenate(four), w, f'{name}.downsample.norm')
            merged[y, x] = w[f'{name}.downsample.reduction.weight'] @ token
    return merged


def target(image, y, x, side):
    """Pixels of a cell, row by row, normalised by mean and unbiased variance."""
    cell = image[:, y * side : y * side + side, x * side : x * side + side]
    pixels = cell.transpose(1, 2, 0).reshape(-1)
    return (pixels - pixels.mean()) / math.sqrt(pixels.var(ddof=1) + 1e-6)


def position(y, x, channels):
    """Sines and cosines of the column, then of the row."""
    quarter = channels // 4
    angles = [[at / 10000 ** (j / quarter) for j in range(quarter)] for at in (x, y)]
    return np.array(
        [
            wave(angle)
            for axis in angles
            for wave in (math.sin, math.cos)
            for angle in axis
        ]
    )


def linear(token, w, name):
    """A linear layer, with or without a bias."""
    return w[f'{name}.weight'] @ token + w.get(f'{name}.bias', 0)


def norm(token, w, name):
    """LayerNorm."""
    scaled = (token - token.mean()) / math.sqrt(token.var() + 1e-5)
    return scaled * w[f'{name}.weight'] + w[f'{name}.bias']
