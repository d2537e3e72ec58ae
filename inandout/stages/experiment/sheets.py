"""Contact sheets of the synthetic images of each source, those that look most and least like defects."""

from collections.abc import Sequence

import numpy as np

from inandout.classifier.training import predict
from inandout.data.images import ImageArray
from inandout.data.manifest import Sample, read_manifest
from inandout.reporting.figures import contact_sheet
from inandout.reporting.tables import Row
from inandout.stages.classify.figures import N_SHOWN
from inandout.stages.classify.part import load_part
from inandout.stages.classify.synthetic import SYNTHETIC_ROWS
from inandout.stages.classify.trained_classifier import TrainedClassifier
from inandout.stages.experiment.grid import SOURCES
from inandout.tracking.runs import artifact_folder, artifact_names


def sheets(rows: Sequence[Row]) -> list[tuple[str, ImageArray]]:
    """Return caption and sheet for each shot and source with synthetic positives: the best `N_SHOWN`, then the worst.

    The images are ranked by the logit of the classifier that was trained on all real defects without synthetic ones
    (none, or else none-steps), of the same seed and fold; without that classifier there are no sheets. Images whose
    files are missing are left out.
    """
    judges = {
        (row.seed, row.fold): row.run_id
        for name in ("none-steps", "none")
        for row in rows
        if (row.shot, row.source) == ("full", SOURCES[name].title) and not row.n_shot
    }
    found: dict[tuple[str, str], tuple[str, ImageArray]] = {}
    for row in rows:
        key, judge = (row.shot, row.source), judges.get((row.seed, row.fold))
        if key in found or judge is None or SYNTHETIC_ROWS not in artifact_names(row.run_id):
            continue
        samples = [
            sample
            for sample in read_manifest(artifact_folder(row.run_id, SYNTHETIC_ROWS))
            if sample.label and sample.image.is_file()
        ]
        if samples:
            caption = f"{row.shot} shot, {row.source}, seed {row.seed}: best and worst of {len(samples)}"
            found[key] = (caption, _sheet(TrainedClassifier.open(judge), samples))
    return list(found.values())


def _sheet(judge: TrainedClassifier, samples: Sequence[Sample]) -> ImageArray:
    part = load_part(samples, judge.geometry)
    logits = predict(judge.load_fastest(), part.pixels)
    order = np.argsort(-logits, kind="stable")
    shown = dict.fromkeys([*order[:N_SHOWN].tolist(), *order[-N_SHOWN:].tolist()])
    captions = [f"{logits[i]:+.1f} {part.samples[i].prompt or part.samples[i].origin}" for i in shown]
    return contact_sheet([part.pixels[i] for i in shown], captions, N_SHOWN)
