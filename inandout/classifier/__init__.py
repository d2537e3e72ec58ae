"""Networks of torchvision with one logit, trained by the KolektorSDD2 protocol."""
