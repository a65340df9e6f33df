"""What an annotation backend is asked for, and which one the configuration names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from anonymization.errors import BlurloopError
from data.coco import Dataset

BACKENDS = ("files",)


class AnnotationError(BlurloopError):
    """Annotations cannot be exchanged."""


@dataclass(frozen=True)
class AnnotationConfig:
    """How pictures get their labels.

    Attributes:
        backend: `files`: the labels that came with the source.
        sync: Whether `annotation.sync` talks to the backend's server, where it has one.
    """

    backend: str = "files"
    sync: bool = True

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise AnnotationError(
                f"annotation.backend is {self.backend!r}; expected one of {', '.join(BACKENDS)}"
            )


class Backend(Protocol):
    """A place where annotations are made."""

    def sync(self) -> dict[str, Any]:
        """Push new pictures, pull finished annotations; return the snapshot to version."""

    def annotated(self, reviewed: Dataset, snapshot: dict[str, Any]) -> Dataset:
        """Return the reviewed pictures with their annotations."""


def open_backend(config: AnnotationConfig) -> Backend:
    """Open the configured backend."""
    from annotation.files import FilesBackend

    return {"files": FilesBackend}[config.backend]()
