"""ImageNet-1K: classes and place, shared by pretraining, fine-tuning and probing."""

num_classes = 1000
imagenet = dict(type='ImageNet', data_root='data/imagenet')
