"""Known regions: a file or folder of documents, by which pictures are hidden without a network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from anonymization.documents import (
    KnownFinds,
    KnownRegionsError,
    check_version,
    document_to_finds,
    picture_of,
    projection_in,
)
from anonymization.files import parse_json, sha256_of_json
from anonymization.panorama.gpano import PERSPECTIVE
from anonymization.taxonomy import ClassSpec, Taxonomy

SUFFIX = ".json"
FILE_MAX_BYTES = 256 * 2**20

DEFAULT_TAXONOMY = Taxonomy(
    {
        "face": ClassSpec(
            geometry="ellipse",
            shape="ellipse",
            margin=0.15,
            feather=0.2,
            identifiable_side="width",
        ),
        "person": ClassSpec(
            geometry="mask",
            shape="outline",
            identifiable_px=40.0,
            color="#3cb44b",
            aliases=["pedestrian", "rider"],
        ),
        "license_plate": ClassSpec(
            geometry="box",
            shape="box",
            identifiable_px=12.0,
            color="#ffe119",
            aliases=["plate", "licence_plate", "number_plate"],
        ),
        "vehicle": ClassSpec(
            geometry="mask",
            shape="outline",
            margin=0.05,
            identifiable_side="width",
            identifiable_px=40.0,
            color="#4363d8",
            aliases=["car", "motorcycle", "bus", "truck", "van"],
        ),
    },
    keypoint_class="person",
    head_class="face",
)
"""Classes of known regions where no bundle says them; `conf/taxonomy/street.yaml` in code."""


class KnownRegions:
    """A file or folder of documents; safe to use from several threads."""

    def __init__(self, path: Path, *, pictures: int = 1) -> None:
        """Read a file at once; a folder's documents when their pictures come.

        Args:
            path: The file or folder.
            pictures: How many it is asked for. A document of one picture serves any of that file
                name where only one is asked for, else the one of its very name.

        Raises:
            KnownRegionsError: If the path is not there, or the file cannot be understood.
        """
        self.path = path
        self._several = pictures > 1
        self._documents: dict[str, Any] | None = None
        self._only: Any = None
        if path.is_dir():
            return
        values = _read(path)
        if isinstance(values, dict) and "pictures" in values:
            check_version(values, path)
            if not isinstance(values["pictures"], list):
                raise KnownRegionsError(f"{path}: pictures is not a list of documents")
            self._documents = {}
            for value in values["pictures"]:
                name = picture_of(value, path).get("name")
                if not isinstance(name, str) or name in self._documents:
                    raise KnownRegionsError(f"{path}: picture {name!r} has no name of its own")
                self._documents[name] = value
        else:
            self._only = values

    def of(
        self,
        name: str,
        taxonomy: Taxonomy,
        *,
        width: int,
        height: int,
        sha256: str | None = None,
        projection: str = PERSPECTIVE,
        bundle: str | None = None,
    ) -> KnownFinds:
        """Return what is known of a picture.

        Args:
            name: Its path below the input folder, with `/`.
            taxonomy: Classes that finds may have.
            width: Columns of the upright picture.
            height: Rows of the upright picture.
            sha256: Of the picture's file, to compare where the document states one.
            projection: As `document_to_finds`.
            bundle: Digest of the bundle by whose margins and shapes finds are hidden; None where
                those are the defaults.

        Raises:
            KnownRegionsError: If there is no document for it, or one for another picture: what
                nobody looked at must not pass as having nothing to hide. Or if a bundle found
                these, and none or another is given: its margins may be wider.
        """
        values, where = self._document(name)
        maker = values.get("bundle")
        if maker and bundle is None:
            raise KnownRegionsError(
                f"{where} is of bundle {str(maker)[:12]}, which has margins and shapes of its own; "
                "name it with --model (no network is run), or set `bundle` to null to hide with "
                "the defaults"
            )
        if maker and maker != bundle:
            raise KnownRegionsError(
                f"{where} is of bundle {str(maker)[:12]}, and margins and shapes are those of "
                f"{str(bundle)[:12]}; name its own with --model, or set `bundle` to null to hide "
                "with those of the one at hand"
            )
        found = document_to_finds(
            values, taxonomy, width=width, height=height, where=where, projection=projection
        )
        stated = picture_of(values, where).get("sha256")
        if stated is not None and sha256 is not None and stated != sha256:
            raise KnownRegionsError(
                f"{where} is for a picture of sha256 {stated}; {name} has {sha256}. "
                "Look at it again, or remove the sha256"
            )
        return found

    def projection_of(self, name: str) -> str | None:
        """Return how a picture's document says that it was looked at; None where it does not.

        Raises:
            KnownRegionsError: If there is no document, or it says something unknown.
        """
        return projection_in(*self._document(name))

    def digest_of(self, name: str) -> str:
        """Return the SHA-256 of a picture's document.

        Raises:
            KnownRegionsError: If there is none.
        """
        # Python reads NaN; `of` refuses it with the find that holds it.
        return sha256_of_json(self._document(name)[0], allow_nan=True)

    def _document(self, name: str) -> tuple[Any, Path]:
        if self._documents is not None:
            if name not in self._documents:
                raise KnownRegionsError(f"{self.path} has no known regions of picture {name!r}")
            return self._documents[name], self.path
        if self._only is not None:
            stated = picture_of(self._only, self.path).get("name")
            if stated is None and self._several:
                raise KnownRegionsError(
                    f"{self.path} states no name of its picture, and there are several; add it"
                )
            whole = self._several or not isinstance(stated, str)
            if stated not in (None, name) and (whole or Path(stated).name != Path(name).name):
                raise KnownRegionsError(
                    f"{self.path} has known regions of picture {stated!r}, not of {name!r}"
                )
            return self._only, self.path
        path = self.path / (name + SUFFIX)
        values = _read(path)
        stated = picture_of(values, path).get("name")
        # The last part alone: a run may start from a folder above.
        if isinstance(stated, str) and Path(stated).name != Path(name).name:
            raise KnownRegionsError(
                f"{path} has known regions of picture {stated!r}, not of {name!r}"
            )
        return values, path


def _read(path: Path) -> Any:
    text = ""
    try:
        if path.stat().st_size > FILE_MAX_BYTES:
            raise KnownRegionsError(f"{path} is larger than {FILE_MAX_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
        return parse_json(text)
    except FileNotFoundError as error:
        raise KnownRegionsError(
            f"{path} is missing; write it with --write-detections, or give an empty list of finds "
            "for a picture that has nothing to hide"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        left = re.search(r",\s*[\]}]", text)
        line = text.count("\n", 0, left.start()) + 1 if left else 0
        hint = f"; line {line} ends in a comma, and nothing follows: remove it" if left else ""
        raise KnownRegionsError(f"{path} is not readable JSON: {error}{hint}") from error
