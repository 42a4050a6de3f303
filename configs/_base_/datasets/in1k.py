"""ImageNet-1K: what pretraining, fine-tuning and linear probing share."""

num_classes = 1000
imagenet = dict(type='ImageNet', data_root='data/imagenet')
