"""Composition of the configuration, and the wrapper that hands a stage its typed sections.

A stage's entry point declares what it reads by the names and types of its parameters::

    @stage
    def main(review: ReviewConfig, taxonomy: Taxonomy, seed: int) -> None: ...

Each parameter is a top-level section of the tree; a dataclass annotation makes it strict: an
unknown key or a wrong type ends the program with one clear line. The same entry point reads the
tree under `conf/` by hand and the frozen `params.yaml` under DVC (docs/design.md, section 4).

Hydra and OmegaConf are imported where they are used: the product imports nothing from here, but
tools that only want to know the folder should not wait for them.
"""

from __future__ import annotations

import fcntl
import functools
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast, get_type_hints

from conf.schema import ConfigError, section

__all__ = ["ConfigError", "compose", "section", "stage"]

FOLDER = Path(__file__).parent
LOCKS = Path("artifacts/.work")
"""Where running stages hold a file each; no output of a stage."""
PACKAGES = ("annotation", "anonymization", "conf", "data", "evaluation", "training")


class Stage(Protocol):
    """Entry point of a stage: called without arguments, it reads the command line."""

    sections: Callable[[], dict[str, type[Any]]]
    """Returns the type of each top-level section that the stage reads, by name."""

    def __call__(self) -> None:
        """Compose the configuration, check it, and run the stage."""


def one_line(error: BaseException) -> str:
    r"""Return what Hydra or OmegaConf has to say, without their advice on internals.

    >>> one_line(ValueError("Could not override 'a.b'.\nTo append to your config use +a.b=1"))
    "Could not override 'a.b': conf/ has no such key"
    """
    kept = []
    for line in str(error).splitlines():
        text = " ".join(line.split())
        if text.startswith(("full_key:", "object_type=", "Config search path", "Set the env")):
            break
        if text and not text.startswith("To append to your"):
            kept.append(text)
    text = " ".join(kept)
    if text.startswith("Could not override") and len(kept) == 1:
        return f"{text.rstrip('.')}: conf/ has no such key"
    return text


def arguments(tree: Mapping[str, Any], sections: Mapping[str, type[Any]]) -> dict[str, Any]:
    """Return the sections that a stage reads, checked, by name.

    Raises:
        ConfigError: If one of them is missing or does not fit its type.
    """
    return {name: section(tree, name, kind) for name, kind in sections.items()}


def _composed(make: Callable[[], Any]) -> Any:
    """Run Hydra; what it finds wrong becomes one line.

    Raises:
        ConfigError: If an override or a file does not fit the tree.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        return make()
    # Hydra raises ValueError for `seed=[]` on a group and the like.
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(one_line(error)) from error


def _resolved(tree: Any) -> dict[str, Any]:
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(tree, resolve=True, throw_on_missing=True)
    return cast(dict[str, Any], plain)


def compose(overrides: Sequence[str] = (), *, folder: Path = FOLDER) -> dict[str, Any]:
    """Compose a configuration folder as DVC does: plain, resolved, without Hydra's own section.

    Raises:
        ConfigError: If an override or a file does not fit the tree.
    """

    def make() -> dict[str, Any]:
        import hydra

        with hydra.initialize_config_dir(str(folder.resolve()), version_base="1.3"):
            return _resolved(hydra.compose("config", overrides=list(overrides)))

    return cast(dict[str, Any], _composed(make))


def _tree_of_command_line() -> dict[str, Any] | None:
    """Return the tree that the command line asks for, or None where it asked for help."""

    def make() -> list[dict[str, Any]]:
        import hydra

        trees: list[Any] = []
        start = hydra.main(version_base="1.3", config_path=str(FOLDER), config_name="config")
        start(trees.append)()
        # Outside of the job, on whose errors Hydra prints a line of its own.
        return [_resolved(tree) for tree in trees]

    # Hydra would print the end of a traceback and exit by itself; we want its exception.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    trees = _composed(make)
    if len(trees) > 1:
        raise ConfigError(
            "a stage runs with one setting at a time; queue a grid with "
            "`dvc exp run --queue -S key=1,2`, then start it with `dvc queue start`"
        )
    return trees[0] if trees else None


def log_to_stderr() -> None:
    """Show what our own packages report; of the libraries, what they warn of."""
    logging.basicConfig(stream=sys.stderr, format="%(message)s")
    for name in ("__main__", *PACKAGES):
        logging.getLogger(name).setLevel(logging.INFO)


def ending_in_one_line(main: Callable[[], None]) -> None:
    """Run a program; an error that carries `exit_code` ends it with its message as one line.

    Every error that Blurloop raises on purpose carries one; all others keep their traceback.
    """
    try:
        main()
    except Exception as error:
        if not hasattr(error, "exit_code"):
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)


def is_follower() -> bool:
    """Tell whether another process of the same distributed run leads (Lightning, torchrun)."""
    return any(os.environ.get(name, "0") != "0" for name in ("LOCAL_RANK", "NODE_RANK"))


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until no other process runs this stage in this repository.

    Killing DVC leaves the program of its stage running. The next turn starts that stage again,
    and DVC would take the outputs of one while the other still writes them. The system lets go
    of the lock when its holder ends, however it ends; the file stays. Followers work under the
    lock of their leader.
    """
    if is_follower():
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            text = "process %s of an earlier turn runs this stage still; waiting for it (kill %s)"
            logging.getLogger(__name__).warning(text, holder, holder)
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def lock_of(main: Callable[..., None], sections: Mapping[str, Any]) -> Path:
    """Return the file that a running stage holds.

    A section that is a word says on which part of the work a stage runs (`network`), and parts
    run beside each other.
    """
    module = Path(inspect.getfile(main)).with_suffix("")
    package = module.parent.name
    parts = [word for word in sections.values() if isinstance(word, str)]
    return LOCKS / ("-".join([package, module.name, *parts]) + ".lock")


def stage(main: Callable[..., None]) -> Stage:
    """Make a function the entry point of a stage."""

    def sections() -> dict[str, type[Any]]:
        hints = get_type_hints(main)
        return {name: hints[name] for name in inspect.signature(main).parameters}

    def run() -> None:
        tree = _tree_of_command_line()
        if tree is not None:
            log_to_stderr()
            given = arguments(tree, sections())
            with alone(lock_of(main, given)):
                main(**given)

    @functools.wraps(main)
    def entry() -> None:
        ending_in_one_line(run)

    entry.sections = sections  # type: ignore[attr-defined]
    return cast(Stage, entry)
