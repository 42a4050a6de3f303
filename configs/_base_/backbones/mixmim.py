"""Channels of each encoder's four stages, for the heads and necks on top.

The backbone builds these sizes, which are the authors', by name.
"""

channels = dict(
    base=[128, 256, 512, 1024],
    large=[192, 384, 768, 1536],
    huge=[352, 704, 1408, 2816],
)
