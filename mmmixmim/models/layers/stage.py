"""One resolution of a hierarchical encoder."""

from __future__ import annotations

from torch import Tensor, nn

from mmmixmim.ops import run_block

from ..mixing import TokenOwnership
from .windows import WindowLayout


class Stage(nn.Module):
    """Blocks at one resolution, and the patch merging that follows them.

    Args:
        blocks: The blocks, with window attention.
        window: Height and width of their windows in tokens.
        downsample: The patch merging; None after the last stage.
        shift_windows: Whether every second block shifts its windows, where one window
            does not cover the map.
    """

    def __init__(
        self,
        blocks: list[nn.Module],
        window: tuple[int, int],
        downsample: nn.Module | None,
        shift_windows: bool,
    ) -> None:
        super().__init__()
        self.window = window
        self.shift_windows = shift_windows
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, maps: Tensor, ownership: TokenOwnership | None) -> Tensor:
        """Run the blocks on (B, H, W, C), without the patch merging."""
        layouts = self._layouts(maps, ownership)
        layout = layouts[0]
        tokens = layout.arrange(maps)  # (B, H * W, C)
        for i, block in enumerate(self.blocks):
            wanted = layouts[i % len(layouts)]
            if wanted is not layout:
                tokens = wanted.arrange(layout.restore(tokens))
                layout = wanted
            tokens = run_block(block, tokens, layout)
        return layout.restore(tokens)  # (B, H, W, C)

    def _layouts(
        self, maps: Tensor, ownership: TokenOwnership | None
    ) -> list[WindowLayout]:
        """The layouts that the blocks take in turn."""
        size = tuple(maps.shape[1:3])
        several = any(s > w for s, w in zip(size, self.window, strict=True))
        shifts = [False, True] if self.shift_windows and several else [False]
        return [
            WindowLayout(size, self.window, ownership, maps.device, shift)
            for shift in shifts
        ]
