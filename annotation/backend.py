"""Where annotations are made: the settings of step 3, and the error that its parts derive from."""

from __future__ import annotations

import os
from dataclasses import dataclass

from anonymization.errors import BlurloopError

BACKENDS = ("files", "label_studio")
EXPERIMENT_VARIABLE = "DVC_EXP_NAME"
"""DVC sets it for the stages of an experiment."""


class AnnotationError(BlurloopError):
    """Annotations cannot be exchanged."""


@dataclass(frozen=True)
class AnnotationConfig:
    """How pictures get their labels.

    Attributes:
        backend: `files`: the labels that came with the source. `label_studio`: those that people
            draw in a Label Studio project.
        sync: Whether `annotation.sync` talks to the backend's server, where it has one.
        url: Address of the Label Studio server; its key is in LABEL_STUDIO_API_KEY.
        project: Title of the project, at least three characters.
        pictures: Where browsers get pictures from: `local_files` (the server reads this
            repository's `artifacts`), or `s3://...`, `gs://...`, `azure-blob://...`: a store of
            the collected pictures that the project has a storage for, which signs addresses.
        predictions: What annotators correct: a bundle folder or `models:/name@alias`; null lets
            them draw everything.
        tasks_per_turn: New tasks that one turn adds at most.
        open_tasks_max: Tasks without a finished annotation beyond which none are added.
        annotators_per_picture: Opinions that each picture gets.
        keypoints: Whether persons get keypoints.
        source_labels: Whether pictures that came with labels keep them until somebody
            annotates them, and become tasks only when validation doubts them.
    """

    backend: str = "files"
    sync: bool = True
    url: str = "http://127.0.0.1:8080"
    project: str = "Blurloop"
    pictures: str = "local_files"
    predictions: str | None = "models:/anonymizer@champion"
    tasks_per_turn: int = 200
    open_tasks_max: int = 1000
    annotators_per_picture: int = 1
    keypoints: bool = True
    source_labels: bool = False

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise AnnotationError(
                f"annotation.backend is {self.backend!r}; expected one of {', '.join(BACKENDS)}"
            )
        if not self.url.startswith(("http://", "https://")) or "@" in self.url:
            raise AnnotationError(
                f"annotation.url is {self.url!r}; expected http://host:port or https://host, "
                "without a name or password: the key comes from LABEL_STUDIO_API_KEY"
            )
        if not 3 <= len(self.project) <= 50:
            raise AnnotationError(
                f"annotation.project is {self.project!r}; Label Studio wants 3 to 50 characters"
            )
        schemes = ("s3://", "gs://", "azure-blob://")
        if self.pictures != "local_files" and not self.pictures.startswith(schemes):
            raise AnnotationError(
                f"annotation.pictures is {self.pictures!r}; expected local_files or an address "
                f"that starts with {', '.join(schemes)}"
            )
        for name in ("tasks_per_turn", "open_tasks_max", "annotators_per_picture"):
            if getattr(self, name) < (1 if name == "annotators_per_picture" else 0):
                raise AnnotationError(f"annotation.{name} is {getattr(self, name)}; too small")

    @property
    def offline(self) -> bool:
        """Whether no server may be asked: switched off, or inside an experiment."""
        return not self.sync or bool(os.environ.get(EXPERIMENT_VARIABLE))
