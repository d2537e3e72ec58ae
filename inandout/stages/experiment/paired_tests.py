"""Paired tests between the sources of a comparison."""

from collections.abc import Sequence
from typing import NamedTuple

from inandout.evaluation.metrics import Scored
from inandout.evaluation.paired_test import Comparison, Repeat, paired_test
from inandout.reporting.tables import Row
from inandout.stages.classify.scores import read_scores
from inandout.stages.experiment.grid import CONTROLS, SOURCES


def paired_tests(rows: Sequence[Row]) -> list[Comparison]:
    """Return paired tests over seeds and folds by shot and `n_aug`; see `_questions`."""
    found = []
    defined = [row for row in rows if "ap" in row.metrics and not row.n_shot]
    for shot in dict.fromkeys(row.shot for row in defined):
        of_shot = [row for row in defined if row.shot == shot]
        for n_aug in dict.fromkeys(row.n_aug for row in of_shot if row.n_aug) or [0]:
            kept = [row for row in of_shot if row.n_aug in (0, n_aug)]
            for ours, theirs in _questions(list(dict.fromkeys(row.source for row in kept))):
                paired = pairs_of(kept, ours, theirs)
                if paired.runs:
                    question = f"{shot} shot, n_aug {n_aug}, {ours} against {theirs}"
                    found.append(paired_test(question, paired.scores, paired.runs))
    return found


def list_tests(tests: Sequence[Comparison]) -> str:
    """Return the tests as a Markdown list."""
    return "\n".join(test.lines() for test in tests)


def _questions(sources: Sequence[str]) -> list[tuple[str, str]]:
    """Return pairs of sources to compare: In&Out, or the last source of defects, with all, and each with the controls.

    The controls in question are those that answer "you only trained longer" and "no synthetic defect was needed".
    """
    makers = [source for source in sources if source not in CONTROLS]
    ours = "In&Out" if "In&Out" in sources else (makers or list(sources))[-1]
    strict = [SOURCES[name].title for name in ("none-steps", "nearest")]
    others = [(source, control) for source in makers if source != ours for control in strict if control in sources]
    return [(ours, theirs) for theirs in sources if theirs != ours] + others


class Paired(NamedTuple):
    """Scores of two sources for the same seeds and folds."""

    scores: list[tuple[Scored, Scored]]
    runs: list[Repeat]
    """Seed and fold of each pair."""


def pairs_of(rows: Sequence[Row], ours: str, theirs: str) -> Paired:
    """Return the scores of both sources for the seeds and folds that both have."""
    runs = {(row.source, row.seed, row.fold): row.run_id for row in rows}
    common = [(seed, fold) for source, seed, fold in runs if source == ours and (theirs, seed, fold) in runs]
    scores = [(read_scores(runs[ours, *key]), read_scores(runs[theirs, *key])) for key in common]
    return Paired(scores, common)


def conclusion(tests: Sequence[Comparison], n_seeds: int) -> str:
    """Return one sentence that says what may be concluded from `paired_tests`; "" if there are none."""
    verdicts = [difference.verdict() for test in tests for difference in test.differences.values()]
    if not verdicts:
        return ""
    decided = sum(verdict in ("better", "worse") for verdict in verdicts)
    sentence = (
        f"{decided} of {len(verdicts)} differences are significant" if decided else "No difference is significant"
    )
    if n_seeds == 1:
        sentence += (
            "; one seed does not show the variance of training, so give four seeds before you conclude (with "
            "repeat=training, they share the pools of the first)"
        )
    return f"{sentence}."
