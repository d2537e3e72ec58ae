"""Open the base of a resolved configuration."""

from inandout.diffusion.base.base import Base, open_base
from inandout.diffusion.base.config import BaseConfig
from inandout.errors import InputError
from inandout.hardware import Hardware


def open_resolved_base(config: BaseConfig, hardware: Hardware) -> Base:
    """Open a base on whose kind the defaults of the configuration depend.

    Raises:
        InputError: the kind was not known before the base was downloaded, so the defaults were those of another kind.
    """
    assumed, base = config.kind(), open_base(config, hardware)
    if base.kind != assumed:
        raise InputError(
            f"{config.base}: is of kind {base.kind}, which was not known before it was downloaded; run the same again"
        )
    return base
