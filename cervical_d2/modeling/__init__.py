"""Backbones, anchors, heads and losses, registered with Detectron2 on import."""
