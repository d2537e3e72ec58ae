"""What one part of the torture test found."""

from dataclasses import dataclass, field

MAX_SENTENCE = 1000
"""Characters of a clear message."""


@dataclass
class Outcome:
    """Counts of one part; `notes` has a line for every failure."""

    part: str
    tried: int = 0
    survived: int = 0
    lost: int = 0
    unclear: int = 0
    notes: list[str] = field(default_factory=list)
    remark: str = ""

    def count(self, name: str, lost: str = "", unclear: str = "") -> None:
        """Count one attempt: it lost something, its message was unclear, or it survived."""
        self.tried += 1
        self.lost += bool(lost)
        self.unclear += bool(unclear) and not lost
        self.survived += not (lost or unclear)
        if lost or unclear:
            self.notes.append(f"{self.part}: {name}: {lost or unclear}"[:2000])


def table(outcomes: list[Outcome]) -> str:
    """Return the outcomes as a Markdown table."""
    rows = ["| part | tried | survived | lost or different | unclear messages | remark |", "|---|---|---|---|---|---|"]
    rows += [
        f"| {each.part} | {each.tried} | {each.survived} | {each.lost} | {each.unclear} | {each.remark} |"
        for each in outcomes
    ]
    return "\n".join(rows)


def unclear(message: str) -> str:
    """Return why a message is not one clear sentence; "" if it is."""
    if "Traceback" in message or 'File "' in message:
        return f"traceback: {message[-600:]}"
    if not message.strip():
        return "no message"
    if len(message) > MAX_SENTENCE:
        return f"{len(message)} characters: {message[:200]}"
    return ""
