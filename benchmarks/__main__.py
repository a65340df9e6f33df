"""Measures what the project promises of its speed: `make bench`, or `python -m benchmarks NAME`.

    anonymizing     speed of `anonymize`; needs BLURLOOP_BUNDLE and BLURLOOP_PICTURES (folders);
                    `python -m benchmarks.anonymizing --help` for the rest
    variants        recall, size and pictures/s of fp32, fp16 and int8 in both runtimes; needs the
                    same two, and takes BLURLOOP_TRUTH (labels, as artifacts/prepared/val.json)
    training_step   ratio of our training step to a bare torchvision loop, side by side; pictures
                    a second of conf/training/tiny.yaml (promised: 2.5 on two cores)
    network_cost    parameters, and peak memory of a training step, of networks under conf/training;
                    `python -m benchmarks.network_cost --help` for the rest
    coco_metrics    ratio of our COCO metrics to pycocotools' (promised: 8), and equal numbers
    encoding        reading and writing a big JPEG as a multiple of libjpeg-turbo's (promised: 1.5)
    label_studio    tasks a second pulled from a real Label Studio server (promised: 100), and the
                    memory that it takes; needs `make label-studio-install`; 10,000 tasks
    start_up        seconds until each stage has printed its --help (promised: under 2)
    idle            seconds of a `dvc repro` with nothing to do (promised: at most 5)
    smoke           seconds of the whole loop with experiment/smoke (promised: under 60)

`python -m benchmarks.joint --help` compares one joint network with two, `python -m
benchmarks.wholes --help` bundles by the persons and vehicles that they find where only faces and
plates are labelled, `python -m benchmarks.unseen --help` judges one on scenes and sets that nothing
was tuned on, and `python -m benchmarks.sheets --help` on pictures of many megapixels.

Each of the last two runs in a temporary copy of the working tree, so that no result of yours is
touched. Numbers hold for a machine that does nothing else; each is printed with the load that the
machine had.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from conf.pipeline import commands

ROOT = Path(__file__).parent.parent
REPEATS = 3
START_UP_MAX_S, IDLE_MAX_S, SMOKE_MAX_S = 2.0, 5.0, 60.0


def environment(folder: Path) -> dict[str, str]:
    """Return the variables of a copy that shares no registry and no lock with this repository."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_", "GIT_"))}
    person = {"NAME": "benchmark", "EMAIL": "benchmark@example.invalid"}
    names = {f"GIT_{who}_{k}": v for who in ("AUTHOR", "COMMITTER") for k, v in person.items()}
    own = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "DVC_SITE_CACHE_DIR": str(folder / ".site-cache"),
    }
    return kept | names | own


def seconds(words: Sequence[str], folder: Path) -> float:
    """Run a program to its end; return how long it took.

    Raises:
        SystemExit: If it fails; its output is shown.
    """
    start = time.perf_counter()
    ended = subprocess.run(
        words, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise SystemExit(f"{' '.join(words)} failed\n{ended.stdout}\n{ended.stderr}")
    return time.perf_counter() - start


def say(what: str, taken_s: float, limit_s: float) -> None:
    """Print one number beside what was promised."""
    verdict = "ok" if taken_s <= limit_s else "TOO SLOW"
    load = os.getloadavg()[0]
    print(f"{what:<42} {taken_s:7.2f} s   of {limit_s:4.0f}   {verdict}   (load {load:.1f})")


def copy_of_working_tree(folder: Path) -> None:
    """Copy what Git would commit, results aside, into a new repository with the smoke setting."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        is_result = name == "dvc.lock" or name.startswith(("reports/", "reference/street"))
        if not is_result and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    seconds(["git", "init", "--quiet"], folder)
    seconds([sys.executable, "-m", "conf.choose", "smoke"], folder)
    seconds(["git", "add", "-A"], folder)
    seconds(["git", "commit", "--quiet", "-m", "smoke"], folder)


def named_folders() -> list[str]:
    """Return the bundle and the folder of photographs that the variables name."""
    named = [os.environ.get(name, "") for name in ("BLURLOOP_BUNDLE", "BLURLOOP_PICTURES")]
    if not all(named):
        raise SystemExit("set BLURLOOP_BUNDLE and BLURLOOP_PICTURES to folders")
    return named


def anonymizing() -> None:
    """Print what anonymizing costs."""
    words = [sys.executable, "-m", "benchmarks.anonymizing", *named_folders()]
    subprocess.run(words, cwd=ROOT, check=True)


def variants() -> None:
    """Print recall, size and speed of a bundle's variants."""
    truth = os.environ.get("BLURLOOP_TRUTH")
    labels = ["--truth", truth] if truth else []
    words = [sys.executable, "-m", "benchmarks.variants", *named_folders(), *labels]
    subprocess.run(words, cwd=ROOT, check=True)


def training_step() -> None:
    """Print our training step beside a bare loop."""
    subprocess.run([sys.executable, "-m", "benchmarks.training_step"], cwd=ROOT, check=True)


def network_cost() -> None:
    """Print what the networks of the laptop settings cost."""
    words = [sys.executable, "-m", "benchmarks.network_cost", "tiny", "small"]
    subprocess.run(words, cwd=ROOT, check=True)


def start_up() -> None:
    """Print the best of some starts of each stage: the first one reads the disk."""
    for module in dict.fromkeys(command.module for command in commands(ROOT / "dvc.yaml")):
        words = [sys.executable, "-m", module, "--help"]
        say(f"{module} --help", min(seconds(words, ROOT) for _ in range(REPEATS)), START_UP_MAX_S)


def smoke_and_idle(*, smoke: bool) -> None:
    """Print the time of a whole turn of the smoke setting, and of one after it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_of_working_tree(folder)
        whole = seconds(["dvc", "repro"], folder)
        if smoke:
            say("the whole loop, experiment/smoke", whole, SMOKE_MAX_S)
        idle = min(seconds(["dvc", "repro"], folder) for _ in range(REPEATS))
        say("dvc repro with nothing to do", idle, IDLE_MAX_S)


def coco_metrics() -> None:
    """Print our COCO metrics beside pycocotools'."""
    subprocess.run([sys.executable, "-m", "benchmarks.coco_metrics"], cwd=ROOT, check=True)


def encoding() -> None:
    """Print what reading, obscuring and writing a big JPEG cost beside libjpeg-turbo."""
    subprocess.run([sys.executable, "-m", "benchmarks.encoding"], cwd=ROOT, check=True)


def label_studio() -> None:
    """Print how fast annotations are pulled from a server, and in how much memory."""
    subprocess.run([sys.executable, "-m", "benchmarks.label_studio"], cwd=ROOT, check=True)


MEASURES: dict[str, Callable[[], None]] = {
    "anonymizing": anonymizing,
    "encoding": encoding,
    "coco_metrics": coco_metrics,
    "variants": variants,
    "label_studio": label_studio,
    "training_step": training_step,
    "network_cost": network_cost,
    "start_up": start_up,
    "idle": partial(smoke_and_idle, smoke=False),
    "smoke": partial(smoke_and_idle, smoke=True),
}
ALL = ("start_up", "encoding", "coco_metrics", "smoke", "training_step")


def main() -> None:
    """Run the named measures, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="*", choices=[*MEASURES, []], default=[])
    for name in parser.parse_args().name or ALL:
        MEASURES[name]()


if __name__ == "__main__":
    main()
