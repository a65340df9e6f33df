"""How a browser gets the pictures: Label Studio's local files, or addresses that a store signs.

Either way the server hands pictures to signed-in members of the project alone.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from annotation.backend import AnnotationConfig, AnnotationError
from annotation.client import Server
from annotation.guide import draw_guide
from anonymization.files import sha256_of_json
from anonymization.taxonomy import Taxonomy
from data.layout import ARTIFACTS, PICTURES, WORK

ROOT_VARIABLE = "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT"
GUIDE = WORK / "guide"
_STORES = {"s3://": "s3", "gs://": "gcs", "azure-blob://": "azure"}


SHOWN = WORK / "shown"
_UNSHOWN = (".tif", ".tiff", ".jp2")
"""What collection may hold and no browser shows, by the suffixes that it gives."""


class ServingError(AnnotationError):
    """Browsers could not get the pictures, or could get them without signing in."""


@dataclass(frozen=True)
class Serving:
    """Where browsers get pictures from.

    Attributes:
        pictures: `local_files`, or the address of a store.
        root: Folder that the server's local files start at.
    """

    pictures: str
    root: Path

    @classmethod
    def of(cls, config: AnnotationConfig) -> Serving:
        """Read the configuration and this machine's environment."""
        named = os.environ.get(ROOT_VARIABLE)
        return cls(config.pictures, Path(named) if named else ARTIFACTS.resolve())

    def can_show(self, file_name: str) -> bool:
        """Return whether browsers can be shown a picture.

        They show neither TIFF nor JPEG 2000, and whoever submits an empty screen says that there is
        nobody in the picture. Locally they get a copy; what a store holds is read as it is.
        """
        return self.pictures == "local_files" or not _needs_copy(file_name)

    def address(self, file_name: str) -> str:
        """Return what a task says of its picture; where it needs a copy, that is made."""
        if self.pictures != "local_files":
            return f"{self.pictures.rstrip('/')}/{file_name}"
        path = PICTURES / file_name
        return self._local(_as_png(path) if _needs_copy(file_name) else path)

    def _local(self, path: Path) -> str:
        # The file itself may be a link into DVC's cache.
        inside = path.parent.resolve().relative_to(self.root.resolve()) / path.name
        return f"/data/local-files/?d={quote(str(inside))}"

    def open(self, server: Server, project: int) -> None:
        """Let the project's members see the pictures.

        Raises:
            ServingError: If the server's local files do not hold this repository's pictures, or
                the project has no storage that signs the store's addresses.
        """
        if self.pictures != "local_files":
            self._check_store(server, project)
            return
        if not PICTURES.resolve().is_relative_to(self.root.resolve()):
            raise ServingError(
                f"{ROOT_VARIABLE} is {self.root}, which does not hold {PICTURES.resolve()}; set "
                "it to the folder above that the Label Studio server was started with"
            )
        there = {str(each.get("path")) for each in server.storages(project, "localfiles")}
        for folder in (GUIDE, SHOWN):
            folder.mkdir(parents=True, exist_ok=True)
        _forget_gone()
        served = ((PICTURES, "pictures"), (GUIDE, "instructions"), (SHOWN, "pictures as PNG"))
        for path, title in served:
            if str(path.resolve()) not in there:
                server.add_local_files(project, path.resolve(), title)

    def _check_store(self, server: Server, project: int) -> None:
        scheme = next(each for each in _STORES if self.pictures.startswith(each))
        bucket, _, prefix = self.pictures.removeprefix(scheme).partition("/")
        for storage in server.storages(project, _STORES[scheme]):
            name = storage.get("bucket") or storage.get("container")
            holds = prefix.startswith(str(storage.get("prefix") or "").strip("/"))
            if name == bucket and holds and storage.get("presign"):
                return
        raise ServingError(
            f"project {project} has no storage that signs addresses of {self.pictures}; add one "
            f"under Settings, Cloud Storage in Label Studio (bucket {bucket}, pre-signed URLs on, "
            "no synchronization), then run again"
        )

    def guide(self, taxonomy: Taxonomy) -> dict[str, tuple[str, str]]:
        """Draw the instructions' pictures; return their addresses per class, none from a store."""
        if self.pictures != "local_files":
            return {}
        folder = GUIDE / sha256_of_json(taxonomy.to_dict())[:12]
        return {
            name: (self._local(folder / first), self._local(folder / second))
            for name, (first, second) in draw_guide(folder, taxonomy).items()
        }


def _needs_copy(file_name: str) -> bool:
    return Path(file_name).suffix.lower() in _UNSHOWN


def _as_png(picture: Path) -> Path:
    """Return the copy of a picture that browsers show; it is made where it is missing."""
    from PIL import Image

    from anonymization.files import write_bytes
    from anonymization.formats.picture import read_picture

    copy = SHOWN / f"{picture.stem}.png"
    if not copy.is_file():
        content = io.BytesIO()
        Image.fromarray(read_picture(picture).pixels).save(content, "PNG")
        write_bytes(copy, content.getvalue())
    return copy


def _forget_gone() -> None:
    """Delete copies of pictures that are collected no more."""
    present = {path.stem for path in PICTURES.iterdir()}
    for copy in SHOWN.iterdir():
        if copy.stem not in present:
            copy.unlink()
