"""What every encoder of MixMIM has to pass besides ``check_encoder``."""

import torch

from mmmixmim.models import MixMIM

NECK = dict(decoder_embed_dims=32, decoder_depth=1, decoder_num_heads=2)


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
