"""Step 5, training: trains one network on the prepared pictures.

Reads `artifacts/prepared/{train,val}.json` and `artifacts/collected/pictures`; writes
`artifacts/trained/<network>/`: the weights (safetensors), the description to rebuild it, and the
course of its training.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from anonymization.files import (
    FileError,
    folder_in_one_step,
    read_json,
    sha256_of_file,
    write_json,
)
from anonymization.taxonomy import Taxonomy
from conf import alone, is_follower
from data.coco import Dataset
from data.layout import PICTURES, PREPARED, TRAINED, WORK
from data.tracking.runs import StageRun, stage_run
from data.tracking.store import TrackingConfig, repository
from training.callbacks import AveragedWeights, BestWeights, Course, LastCheckpoint, MeasureLast
from training.config import NetworkConfig
from training.errors import NetworkConfigError, TrainingDataError
from training.module import TrainingModule
from training.network.rcnn import HISTORY, NETWORK, build_network, save_network, save_untrained
from training.pictures.loading import Pictures
from training.pictures.sampling import read_hard
from training.starting import Start
from training.work import digest

SCHEMA_VERSION = 1

log = logging.getLogger(__name__)

OURS = ("callbacks", "max_epochs", "logger", "default_root_dir", "enable_checkpointing")
"""Trainer arguments that this step sets; naming them in `trainer` would silently lose."""


def classes_of(network: str, taxonomy: Taxonomy) -> tuple[str, ...]:
    """Return the classes that a network finds.

    Raises:
        TrainingDataError: If the keypoint network has no class to find.
    """
    if network == "mask_rcnn":
        return taxonomy.names
    if taxonomy.keypoint_class is None:
        raise TrainingDataError(
            "taxonomy.keypoint_class is null, so keypoint_rcnn has nothing to find; "
            "name a class, or train network=mask_rcnn"
        )
    return (taxonomy.keypoint_class,)


def train(
    network: str,
    config: NetworkConfig,
    *,
    taxonomy: Taxonomy,
    tracking: TrackingConfig,
    seed: int,
) -> None:
    """Train a network, or go on where a killed training of the same stopped.

    Of a network that the settings leave out only that is recorded.

    Raises:
        TrainingDataError: If no picture can teach it.
        NonFiniteLossError: If its loss is lost.
    """
    if not config.trained:
        with folder_in_one_step(TRAINED / network) as folder:
            save_untrained(network, folder)
        log.info("%s is not trained, as training.%s.trained is false", network, network)
        return
    data = [PREPARED / "train.json", PREPARED / "val.json"]
    settings = {"network": network, "config": config.to_dict(), "seed": seed}
    # Names alone would not tell that what they name has changed.
    weights = Path(config.backbone.weights)
    if weights.is_file():
        settings["weights_sha256"] = sha256_of_file(weights)
    start = Start.find(config.start, network) if config.start else None
    if start is not None:
        settings["start_sha256"] = start.digest
    hard: frozenset[str] = frozenset()
    if config.loading.hard:
        path = repository() / config.loading.hard
        hard = read_hard(path)
        settings["hard_sha256"] = sha256_of_file(path)
    key = digest(settings | {"taxonomy": taxonomy.to_dict()}, _existing(data))

    with alone(WORK / f"training-{network}.lock"):
        out = TRAINED / network
        if _is_trained(out, key):
            log.info("%s is trained already with this configuration, data and code", network)
            return
        work = WORK / f"training-{network}-{key}"
        work.mkdir(parents=True, exist_ok=True)
        pictures = Pictures(
            Dataset.read(data[0], taxonomy),
            Dataset.read(data[1], taxonomy),
            PICTURES,
            network=network,
            classes=classes_of(network, taxonomy),
            taxonomy=taxonomy,
            config=config,
            seed=seed,
            hard=hard,
        )
        if is_follower():
            fit(network, config, pictures, work=work, seed=seed, on_metrics=None, start=start)
            return
        inputs: dict[str, Any] = {"train": data[0], "val": data[1]}
        if start is not None:
            inputs["start"] = start.digest
        if config.loading.hard:
            inputs["hard"] = settings["hard_sha256"]
        with stage_run(
            f"training@{network}", tracking, params=settings, inputs=inputs, **_resume(work)
        ) as run:
            _remember(work, run)
            _fit_and_save(
                network, config, pictures, run=run, seed=seed, work=work, key=key, start=start
            )
        shutil.rmtree(work)


def _existing(paths: list[Path]) -> list[Path]:
    for path in paths:
        if not path.is_file():
            raise FileError(f"{path} is missing; run the preparation first (dvc repro)")
    return paths


def _is_trained(out: Path, key: str) -> bool:
    """Return whether another process finished this very training while this one waited."""
    if not (out / NETWORK).is_file():
        return False
    return bool(read_json(out / NETWORK).get("digest") == key)


def _resume(work: Path) -> dict[str, Any]:
    path = work / "run.json"
    return {"resume": read_json(path)["run_id"]} if path.is_file() else {}


def _remember(work: Path, run: StageRun) -> None:
    if run.run_id is not None:
        write_json(work / "run.json", {"run_id": run.run_id})


def make_trainer(config: NetworkConfig, callbacks: list[pl.Callback], *, work: Path) -> pl.Trainer:
    """Build Lightning's Trainer; `config.trainer` goes to it as it is.

    Raises:
        NetworkConfigError: If an argument is ours to set, or Lightning refuses it.
    """
    given = dict(config.trainer)
    taken = sorted(set(given) & set(OURS))
    if taken:
        raise NetworkConfigError(
            f"training.trainer.{taken[0]} is set by this step; use the settings beside it"
        )
    every = config.recall.every_epochs
    defaults: dict[str, Any] = {
        "accelerator": "auto",
        "devices": "auto",
        "gradient_clip_val": config.optimizer.clip_norm or None,
        "check_val_every_n_epoch": max(1, min(every, config.epochs)),
        "num_sanity_val_steps": 0,
        "enable_model_summary": False,
        "log_every_n_steps": 1_000_000,
        # The pictures are shared out by their own sampler (training/pictures/sampling.py).
        "use_distributed_sampler": False,
    }
    try:
        return pl.Trainer(
            **(defaults | given),
            max_epochs=config.epochs,
            callbacks=callbacks,
            logger=False,
            enable_checkpointing=False,
            default_root_dir=work,
        )
    except Exception as error:
        raise NetworkConfigError(
            f"training.trainer: Lightning refuses {given}: {str(error).splitlines()[0]}"
        ) from error


def _fit_and_save(
    network: str,
    config: NetworkConfig,
    pictures: Pictures,
    *,
    run: StageRun,
    seed: int,
    work: Path,
    key: str,
    start: Start | None,
) -> None:
    module, course = fit(
        network, config, pictures, work=work, seed=seed, on_metrics=run.log_metrics, start=start
    )
    extra: dict[str, Any] = {"digest": key, "seed": seed}
    if start is not None:
        extra["start_sha256"] = start.digest
    with folder_in_one_step(TRAINED / network) as folder:
        save_network(module.network, folder, extra=extra)
        history = {
            "schema_version": SCHEMA_VERSION,
            "network": network,
            "run_id": run.run_id,
            "pictures": {"train": len(pictures.train_set), "val": len(pictures.val_set)},
            "epochs": course.rows,
            **({} if course.best is None else {"best": course.best}),
        }
        write_json(folder / HISTORY, history)


def fit(
    network: str,
    config: NetworkConfig,
    pictures: Pictures,
    *,
    work: Path,
    seed: int,
    on_metrics: Any,
    start: Start | None = None,
) -> tuple[TrainingModule, Course]:
    """Train, from the last checkpoint in `work` where there is one.

    Returns:
        The module with the weights to ship, and the course of the training.
    """
    # Lightning's own news (devices found, advice, checkpoints) would drown the lines of this step.
    for name in ("pytorch_lightning", "lightning_utilities.core.rank_zero", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    pl.seed_everything(seed, verbose=False)
    shown = pictures.train_set
    keypoint_class = shown.taxonomy.keypoint_class
    if start is None:
        built = build_network(network, config, shown.classes, keypoint_class=keypoint_class)
    else:
        built = build_network(
            network,
            config,
            shown.classes,
            pretrained=False,
            frozen=True,
            keypoint_class=keypoint_class,
        )
        start.load_into(built)
    module = TrainingModule(built, seed)
    course = Course(lambda metrics, step: on_metrics(metrics, step=step))
    checkpoint = work / "last.ckpt"
    averaged = config.optimizer.ema_decay > 0
    average = AveragedWeights(config.optimizer.ema_decay) if averaged else None
    best = BestWeights(config.recall.patience, average) if config.recall.patience else None
    last = LastCheckpoint(checkpoint)
    optional: list[pl.Callback | None] = [MeasureLast(), average, best, course, last]
    callbacks = [callback for callback in optional if callback is not None]
    trainer = make_trainer(config, callbacks, work=work)
    resumed = checkpoint if checkpoint.is_file() else None
    if resumed:
        log.info("going on with %s from %s", network, checkpoint)
    # Bodies come in eval mode, and Lightning leaves modes alone; frozen norms stay in it.
    module.network.train()
    with warnings.catch_warnings():
        # Lightning advises more loading workers than the cores have room for beside training.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        # Frozen norms are meant to stay in eval mode; the rest is Lightning's own upkeep.
        warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")
        warnings.filterwarnings("ignore", ".*LeafSpec.*")
        warnings.filterwarnings("ignore", ".*Sparse CS. tensor support is in beta.*")
        warnings.filterwarnings("ignore", ".*`weights_only` was not set.*")
        trainer.fit(module, datamodule=pictures, ckpt_path=resumed, weights_only=True)
    if average is not None:
        average.swap(module.network)
    if best is not None and best.best is not None:
        best.take(module)
        course.best = best.best
        log.info("weights of epoch %d are kept, with a recall of %.3f on val", *best.best.values())
    return module, course
