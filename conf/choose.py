"""Selects a named setting of the whole loop: what `make loop EXPERIMENT=name` does first.

    python -m conf.choose coco_sets   # conf/experiment/coco_sets.yaml has the last word from now on
    python -m conf.choose none        # back to the defaults

The choice is one line of `conf/config.yaml`, so that it shows in `git diff`, holds for plain
`dvc repro` and for experiments alike, and is committed with the results that it made.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from conf import FOLDER, ConfigError, ending_in_one_line

NONE = "none"
_LINE = re.compile(r"^  - experiment: .*\n", re.MULTILINE)
_SELF = "  - _self_\n"


def names(folder: Path) -> list[str]:
    """Return the named settings, sorted."""
    return sorted(path.stem for path in (folder / "experiment").glob("*.yaml"))


def chosen(text: str, name: str) -> str:
    r"""Return the text of config.yaml with this setting, or none, after its defaults.

    >>> chosen("defaults:\n  - _self_\n\nseed: 1\n", "smoke")
    'defaults:\n  - _self_\n  - experiment: smoke\n\nseed: 1\n'
    """
    text = _LINE.sub("", text)
    if name == NONE:
        return text
    if _SELF not in text:
        raise ConfigError("conf/config.yaml has no defaults list with `_self_`; see Git")
    return text.replace(_SELF, f"{_SELF}  - experiment: {name}\n", 1)


def choose(name: str, *, folder: Path = FOLDER) -> bool:
    """Write the choice; return whether it changed anything.

    Raises:
        ConfigError: If there is no such setting.
    """
    known = names(folder)
    if name != NONE and name not in known:
        raise ConfigError(
            f"there is no experiment {name!r}; known: {', '.join(known)}, or {NONE} for the "
            "defaults. Add it as conf/experiment/NAME.yaml"
        )
    path = folder / "config.yaml"
    old = path.read_text(encoding="utf-8")
    new = chosen(old, name)
    path.write_text(new, encoding="utf-8")
    return old != new


def main() -> None:
    """Write the choice that the command line names."""
    if len(sys.argv) != 2:
        raise ConfigError("usage: python -m conf.choose NAME|none")
    if choose(sys.argv[1], folder=Path("conf")):
        print(f"conf/config.yaml: experiment {sys.argv[1]}")  # noqa: T201


if __name__ == "__main__":
    ending_in_one_line(main)
