"""ResNet-50 with one logit, trained by the KolektorSDD2 protocol."""
