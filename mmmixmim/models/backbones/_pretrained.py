"""Load a checkpoint of any format by ``init_cfg``."""

from __future__ import annotations

from mmengine.logging import print_log
from mmengine.model import update_init_info

from mmmixmim.checkpoint import load_pretrained, split_init_cfg
from mmmixmim.validation import UserError


class LoadsPretrained:
    """Mixin: ``init_cfg`` of type Pretrained loads by ``load_encoder``.

    Args:
        *args: Arguments of the encoder.
        pretrained: A checkpoint, short for ``init_cfg`` of type ``Pretrained``.
            mmsegmentation sets it from ``pretrained`` of the model. Defaults to None.
        **kwargs: See ``args``.

    Raises:
        UserError: If both ``pretrained`` and ``init_cfg`` are given.
    """

    def __init__(self, *args, pretrained: str | None = None, **kwargs) -> None:
        if pretrained is not None:
            if kwargs.get('init_cfg') is not None:
                raise UserError(
                    f'pretrained={pretrained!r} and init_cfg={kwargs["init_cfg"]} both '
                    'say how to start: leave one of them out.'
                )
            kwargs['init_cfg'] = dict(type='Pretrained', checkpoint=pretrained)
        super().__init__(*args, **kwargs)

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
        for entry in pretrained:
            file = entry['checkpoint']
            print_log(f'Loaded the encoder from {file}.', 'current')
            if hasattr(self, '_params_init_info'):  # inside a model that is initialised
                update_init_info(self, f'load from {file}')
