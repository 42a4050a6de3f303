"""What every encoder of MixMIM has to pass besides ``check_encoder``."""

import torch

from mmmixmim.models import MixMIM, TokenOwnership

NECK = dict(decoder_embed_dims=32, decoder_depth=1, decoder_num_heads=2)


def check_three_images(encoder):
    """Each of three images reaches its own cells of a mixture, all and no other."""
    encoder.eval()
    side = encoder.stride
    height, width = encoder.img_size
    images = torch.randn(6, encoder.in_channels, height, width + side)
    grid = (height // side, width // side + 1)
    cells = torch.arange(grid[0] * grid[1]) % 3  # some of each owner
    for masks in (1, 6):
        owners = torch.stack([cells[torch.randperm(len(cells))] for _ in range(masks)])
        ownership = TokenOwnership(owners.view(masks, *grid), images=3)
        with torch.no_grad():
            before = encoder(images, ownership)[-1][0]
            for k in range(3):
                changed = images.clone()
                changed[ownership.partner(torch.arange(6), k)[0]].normal_()
                after = encoder(changed, ownership)[-1][0]
                reached = (before != after).any(0)
                assert torch.equal(reached, ownership.owners[0] == k), (masks, k)


def check_pretraining(encoder):
    """Thirty steps with pairs lower the loss; a mixture of three has a finite one."""
    three = MixMIM(encoder, NECK, num_images=3)
    images = torch.rand(6, 3, *encoder.img_size)
    loss = three.loss(images)['loss']
    loss.backward()
    assert loss.isfinite()

    model = MixMIM(encoder, NECK)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    images = images[:4].repeat_interleave(2, 0)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = model.loss(images)['loss']
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.97 * sum(losses[:5])


def shapes(model):
    """Shapes of the parameters and buffers by name."""
    return {name: value.shape for name, value in model.state_dict().items()}
