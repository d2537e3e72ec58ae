"""Paired tests between the sources of a comparison."""

from collections.abc import Sequence

from inandout.evaluation.paired_test import paired_test
from inandout.reporting.tables import Row
from inandout.stages.classify.scores import read_scores


def paired_tests(rows: Sequence[Row]) -> str:
    """Return paired tests over seeds by shot and `n_aug`: In&Out, or else the last source, against the others."""
    lines = []
    defined = [row for row in rows if "ap" in row.metrics]
    for shot, n_aug in dict.fromkeys((row.shot, row.n_aug) for row in defined if row.n_aug):
        runs = {(row.source, row.seed): row.run_id for row in defined if row.shot == shot and row.n_aug in (0, n_aug)}
        sources = list(dict.fromkeys(source for source, _ in runs))
        ours = "In&Out" if "In&Out" in sources else sources[-1]
        for theirs in sources:
            seeds = [seed for source, seed in runs if source == ours and (theirs, seed) in runs]
            if theirs != ours and seeds:
                pairs = [(read_scores(runs[ours, seed]), read_scores(runs[theirs, seed])) for seed in seeds]
                lines.append(paired_test(f"{shot} shot, n_aug {n_aug}, {ours} against {theirs}", pairs))
    return "\n".join(lines)


def conclusion(tests: str, n_seeds: int) -> str:
    """Return one sentence that says what may be concluded from `paired_tests`; "" if there are none."""
    verdicts = [line.rpartition(": ")[2] for line in tests.splitlines()]
    if not verdicts:
        return ""
    decided = sum(verdict in ("better", "worse") for verdict in verdicts)
    sentence = (
        f"{decided} of {len(verdicts)} differences are significant" if decided else "No difference is significant"
    )
    if n_seeds == 1:
        sentence += (
            "; one seed does not show the variance of training, so repeat with seeds=0,1,2,3 before you conclude"
        )
    return f"{sentence}."
