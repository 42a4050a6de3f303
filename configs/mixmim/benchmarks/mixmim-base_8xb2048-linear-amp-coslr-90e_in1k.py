"""Linear probing of the base model.

The authors published no linear probing. The recipe is MAE's (arXiv 2111.06377,
appendix A.1), on average-pooled features. mmpretrain's LARS multiplies the
learning rate into its momentum; the one in MAE's code does not.
"""

_base_ = [
    '../../_base_/models/mixmim_linear.py',
    '../../_base_/datasets/in1k_linear.py',
    '../../_base_/schedules/linear_90e.py',
    '../../_base_/default_runtime.py',
]

model = dict(
    head=dict(num_classes=_base_.num_classes),
    data_preprocessor=dict(num_classes=_base_.num_classes),
)
