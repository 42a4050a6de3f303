"""Load a checkpoint of any format by ``init_cfg``."""

from __future__ import annotations

from mmmixmim.checkpoint import load_pretrained, split_init_cfg


class LoadsPretrained:
    """Mixin: ``init_cfg`` of type Pretrained loads by ``load_encoder``."""

    def init_weights(self) -> None:
        """Apply ``init_cfg``; without one, initialise as the class does.

        An entry of type ``Pretrained`` loads a ``checkpoint`` of any format, see
        :func:`mmmixmim.checkpoint.load_encoder`. ``prefix`` is only needed where the
        file holds several encoders.

        Raises:
            UserError: If no checkpoint is given, or it does not fit.
        """
        init_cfg = self.init_cfg
        pretrained, others = split_init_cfg(init_cfg)
        self.init_cfg = others or None
        super().init_weights()
        self.init_cfg = init_cfg
        load_pretrained(self, pretrained)
