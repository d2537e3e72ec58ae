"""Entry point `rollback`: move the alias of the champion back."""

from inandout.serving.registry import registry_lock, roll_back
from inandout.stages.release.config import RollbackConfig
from inandout.tracking.store import connect


def rollback(config: RollbackConfig) -> None:
    """Move `@champion` back to the previous version; a second call undoes the first."""
    connect()
    with registry_lock(config.name):
        champion, previous = roll_back(config.name)
    print(
        f"{config.name}: version {champion.version} is the champion, version {previous.version} the previous champion"
    )
