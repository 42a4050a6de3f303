"""Names of parameters and buffers that several formats and classes share."""

from __future__ import annotations

import re

TABLE = 'relative_position_bias_table'
INDEX = 'relative_position_index'
# Buffers of stock encoders that follow from the windows, and that timm does not save.
DERIVED = (INDEX, 'relative_coords_table')
# Weights whose number of rows follows from the sizes of images and windows.
RESIZED = ('pos_embed', TABLE)
# Norm of the map of one stage, for dense tasks.
MAP_NORM = re.compile(r'norm\d+\.(weight|bias)$')
