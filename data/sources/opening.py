"""The sources that the configuration names."""

from __future__ import annotations

from dataclasses import dataclass, field

from data.sources.coco import CocoSource, coco_folders
from data.sources.folder import FolderSource
from data.sources.listing import is_past, root_folder
from data.sources.protocol import Source, SourceError
from data.street.config import StreetConfig

KINDS = ("street", "folder", "coco_sets")


@dataclass(frozen=True)
class CollectionConfig:
    """Where pictures come from.

    Attributes:
        kind: `street` (the built-in generator), `folder`, or `coco_sets`.
        root: Folder for the latter two; None takes it from BLURLOOP_COLLECTION_ROOT.
        sequences: Whether the pictures of one subfolder are one sequence (`folder`).
        retain_until: ISO date after which the pictures of a folder are dropped, or None.
        street: Settings of the generator.
    """

    kind: str = "street"
    root: str | None = None
    sequences: bool = False
    retain_until: str | None = None
    street: StreetConfig = field(default_factory=StreetConfig)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SourceError(
                f"collection.kind is {self.kind!r}; expected one of {', '.join(KINDS)}"
            )
        try:
            is_past(self.retain_until)
        except (TypeError, ValueError) as error:
            raise SourceError(
                f"collection.retain_until is {self.retain_until!r}; expected YYYY-MM-DD or null"
            ) from error


def open_sources(config: CollectionConfig) -> list[Source]:
    """Open what the configuration names.

    Raises:
        SourceError: If a source cannot be found.
    """
    if config.kind == "street":
        from data.sources.street import StreetSource

        return [StreetSource(config.street)]
    root = root_folder(config.root)
    if config.kind == "folder":
        return [FolderSource(root, sequences=config.sequences, retain_until=config.retain_until)]
    return [CocoSource(folder) for folder in coco_folders(root)]
