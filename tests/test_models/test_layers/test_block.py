"""What a transformer block drops."""

import torch

from mmmixmim.models.layers import FFN, Attention, TransformerBlock


def share_of_zeros(tensor):
    return (tensor == 0).float().mean().item()


def test_both_linear_layers_of_the_ffn_are_followed_by_dropout():
    ffn, seen = FFN(8, 64, drop=0.5), []
    ffn.fc2.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    tokens = torch.randn(2, 16, 8)
    for training, low, high in ((True, 0.3, 0.7), (False, 0.0, 0.0)):
        out = ffn.train(training)(tokens)
        assert all(low <= share_of_zeros(each) <= high for each in (seen[-1], out))


def test_each_branch_is_dropped_by_itself_for_an_image():
    block = TransformerBlock(8, Attention(8, 2), drop_path=0.5)
    tokens = torch.randn(256, 4, 8)
    outputs = block(tokens)
    with torch.no_grad():
        attended = tokens + 2 * block.attn(block.norm1(tokens))
        cases = [
            tokens,
            attended,
            tokens + 2 * block.mlp(block.norm2(tokens)),
            attended + 2 * block.mlp(block.norm2(attended)),
        ]
    near = [(outputs - each).abs().amax((1, 2)) < 1e-4 for each in cases]
    counts = [each.sum().item() for each in near]
    assert sum(counts) == 256 and min(counts) > 256 / 8
