"""Without training: a bundle of COCO-pretrained networks, and a generator of faces."""
