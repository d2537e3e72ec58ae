"""Constants that the options of `pretrain` use."""

HELD_OUT = 2**19
"""First of the seeds that are never trained on."""


TEXT_SHARE = 0.1
"""Learning rate of the text encoder relative to the UNet's. When training from scratch with equal rates, the text
states had collapsed to a single vector after 2,000 steps. Later a higher rate is better: after 12,000 steps with this
share, the states of cracked and pitted, and of stained and dented, were the closest of all, and the words were
confused."""
