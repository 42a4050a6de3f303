"""Check the annotations of detection and segmentation against the config's classes."""

custom_hooks = [dict(type='mmmixmim.AnnotationCheckHook')]
