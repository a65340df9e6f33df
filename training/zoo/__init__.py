"""Day zero: a bundle of COCO-pretrained networks, without training."""
