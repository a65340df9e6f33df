"""Where each step leaves what it makes, relative to the repository that the stage runs in.

`ls artifacts/` reads as the loop. These are the outputs that dvc.yaml declares; a test holds the
two together. They are constants, not settings: DVC could not follow a setting.
"""

from pathlib import Path

ARTIFACTS = Path("artifacts")
SURVEY = ARTIFACTS / "survey.json"
COLLECTED = ARTIFACTS / "collected"
PICTURES = COLLECTED / "pictures"
REVIEWED = ARTIFACTS / "reviewed"
SNAPSHOT = ARTIFACTS / "snapshot"
ANNOTATED = ARTIFACTS / "annotated"
PREPARED = ARTIFACTS / "prepared"
GROUPS = PREPARED / "groups.json"
TRAINED = ARTIFACTS / "trained"
BUNDLE = ARTIFACTS / "bundle"
EVALUATED = ARTIFACTS / "evaluated"
VALIDATED = ARTIFACTS / "validated"
WORK = ARTIFACTS / ".work"
"""What must survive a kill; never a DVC output."""

REPORTS = Path("reports")
REFERENCE = Path("reference")
"""Released reference sets, in Git."""

MANIFEST = "manifest.json"
ANNOTATIONS = "annotations.json"
SPLITS = ("train", "val", "reference")
