"""Mask R-CNN and Keypoint R-CNN: backbones, proposals, heads, and what trains them."""
