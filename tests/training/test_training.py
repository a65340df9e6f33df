"""Training goes on after a kill, names what breaks it, and is alone at its work."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")

import pytorch_lightning as pl  # noqa: E402
from PIL import Image as PillowImage  # noqa: E402

from anonymization.taxonomy import ClassSpec, Taxonomy  # noqa: E402
from conf import alone  # noqa: E402
from data.coco import Annotation, Dataset, Image  # noqa: E402
from training import run as training_run  # noqa: E402
from training.callbacks import BestWeights  # noqa: E402
from training.config import (  # noqa: E402
    AugmentationConfig,
    BackboneConfig,
    HeadConfig,
    InputConfig,
    LoadingConfig,
    NetworkConfig,
    OptimizerConfig,
    RecallConfig,
)
from training.errors import (  # noqa: E402
    NetworkConfigError,
    NonFiniteLossError,
    TrainingDataError,
)
from training.module import TrainingModule, rate_share  # noqa: E402
from training.network.rcnn import build_network  # noqa: E402
from training.pictures.loading import Pictures, padded_size, usable  # noqa: E402
from training.recall import recalled  # noqa: E402
from training.work import digest  # noqa: E402

TAXONOMY = Taxonomy(
    {
        "sign": ClassSpec(geometry="box", shape="box", identifiable_px=8),
        "ball": ClassSpec(geometry="ellipse", shape="ellipse", identifiable_px=8),
    }
)


def small_config(**changes: Any) -> NetworkConfig:
    config = NetworkConfig(
        backbone=BackboneConfig(channels=32),
        heads=HeadConfig(box_features=64, samples=64, mask_channels=[32]),
        input=InputConfig(long_side=128),
        optimizer=OptimizerConfig(warmup_steps=5, ema_decay=0.9),
        loading=LoadingConfig(batch_size=2, workers=0, cache_mb=50),
        recall=RecallConfig(every_epochs=0),
        epochs=2,
        trainer={"enable_progress_bar": False, "accelerator": "cpu"},
    )
    return replace(config, **changes)


@pytest.fixture
def drawn(tmp_path: Path) -> Dataset:
    """Eight pictures with a red rectangle and a green disc each."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(8):
        pixels = rng.integers(60, 90, (96, 128, 3)).astype(np.uint8)
        x, y = int(rng.integers(2, 20)), int(rng.integers(2, 50))
        pixels[y : y + 16, x : x + 40] = (220, 30, 30)
        cx, cy = int(rng.integers(90, 105)), int(rng.integers(20, 70))
        rows, columns = np.ogrid[:96, :128]
        pixels[(rows - cy) ** 2 + (columns - cx) ** 2 <= 144] = (30, 220, 30)
        name = f"picture{number}.png"
        PillowImage.fromarray(pixels).save(tmp_path / name)
        images.append(Image(number, f"{number:064d}", name, 128, 96, labelled=TAXONOMY.names))
        boxes = {"sign": (x, y, x + 40, y + 16), "ball": (cx - 12, cy - 12, cx + 13, cy + 13)}
        for kind, box in boxes.items():
            annotations.append(Annotation(len(annotations), number, kind, box))
    return Dataset(tuple(images), tuple(annotations))


@pytest.fixture
def pictures(drawn: Dataset, tmp_path: Path) -> Callable[[NetworkConfig], Pictures]:
    def make(config: NetworkConfig) -> Pictures:
        return Pictures(
            drawn,
            drawn,
            tmp_path,
            network="mask_rcnn",
            classes=TAXONOMY.names,
            taxonomy=TAXONOMY,
            config=config,
            seed=1,
        )

    return make


def fit(config: NetworkConfig, pictures: Pictures, work: Path) -> Any:
    return training_run.fit(
        "mask_rcnn", config, pictures, work=work, seed=1, on_metrics=lambda metrics, step: None
    )


class Stop(pl.Callback):
    """Stands for a kill in the second epoch."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize("mosaic", [0.0, 0.5])
def test_the_size_of_a_sample_is_told_before_it_is_made(pictures: Any, mosaic: float) -> None:
    augmentation = AugmentationConfig(mosaic=mosaic, paste=mosaic, rotation=10 * mosaic)
    shown = pictures(small_config(augmentation=augmentation)).train_set
    keys = [(epoch, position, 0) for epoch in range(3) for position in range(len(shown))]
    told = [shown.canvas(key) for key in keys]
    samples = [shown.sample(key) for key in keys]
    assert told == [padded_size(sample.size) for sample in samples]
    assert len(set(told)) > 1
    joined = sum(" with " in sample.name for sample in samples)
    assert 0 < joined < len(keys) if mosaic else joined == 0
    again = shown.sample(keys[5])
    assert (again.pixels == samples[5].pixels).all()


def test_pictures_grow_from_the_first_epoch_to_the_last(pictures: Any) -> None:
    config = small_config()
    growing = replace(config.augmentation, scale_min=0.8, scale_max=0.8, scale_first=0.5)
    shown = pictures(replace(config, augmentation=growing, epochs=3)).train_set
    heights = [shown.sample((epoch, 0, 0)).size[0] for epoch in range(3)]
    full = shown.sample((2, 0, 0)).base_size[0]
    assert heights == pytest.approx([0.4 * full, 0.6 * full, 0.8 * full], abs=1)
    assert shown.canvas((0, 0, 0)) == padded_size(shown.sample((0, 0, 0)).size)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_killed_training_ends_with_the_weights_of_an_undisturbed_one(
    pictures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    config = small_config(
        loading=LoadingConfig(batch_size=2, workers=workers, cache_mb=50),
        augmentation=AugmentationConfig(scale_first=0.5),
    )
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole, course = fit(config, pictures(config), tmp_path / "whole")

    plain = training_run.make_trainer
    with monkeypatch.context() as patch:
        patch.setattr(
            training_run,
            "make_trainer",
            lambda c, callbacks, work: plain(c, [*callbacks, Stop()], work=work),
        )
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            fit(config, pictures(config), tmp_path / "killed")
    assert (tmp_path / "killed" / "last.ckpt").is_file()
    resumed, again = fit(config, pictures(config), tmp_path / "killed")

    pairs = zip(whole.network.parameters(), resumed.network.parameters(), strict=True)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in pairs)
    assert [row["loss"] for row in again.rows] == pytest.approx(
        [row["loss"] for row in course.rows]
    )


@pytest.mark.slow
def test_eight_pictures_are_learnt_by_heart(pictures: Any, tmp_path: Path) -> None:
    config = small_config(
        epochs=30, recall=RecallConfig(every_epochs=30, pictures=0, score_min=0.3), lr=2e-3
    )

    _, course = fit(config, pictures(config), tmp_path)

    assert course.rows[-1]["recall"] == {"sign": 1.0, "ball": 1.0}


def best_after(recalls: list[float | None], *, patience: int) -> tuple[BestWeights, int]:
    """Show a callback one measurement an epoch; the weight is the epoch's number."""
    callback = BestWeights(patience, None)
    network = torch.nn.Linear(1, 1, bias=False)
    module: Any = SimpleNamespace(network=network, recall={})
    trainer: Any = SimpleNamespace(should_stop=False, current_epoch=0)
    for epoch, recall in enumerate(recalls):
        trainer.current_epoch = epoch
        torch.nn.init.constant_(network.weight, epoch + 1)
        module.recall = {} if recall is None else {"face": recall, "sign": None}
        callback.on_train_epoch_end(trainer, module)
        if trainer.should_stop:
            break
    callback.take(module)
    assert callback.best is not None
    assert float(network.weight.detach()) == callback.best["epoch"]
    return callback, trainer.current_epoch + 1


@pytest.mark.parametrize(
    ("recalls", "kept", "ended", "reason"),
    [
        ([0.1, 0.5, 0.4, 0.3, 0.9], 2, 4, "two in a row are not better"),
        ([0.1, 0.5, 0.4, 0.6, 0.5], 4, 5, "the count starts anew with a better one"),
        ([0.5, 0.5, 0.5], 3, 3, "of equals the latest, but they are not better"),
        ([0.5, None, None, None, 0.4], 1, 5, "epochs without measurement do not count"),
    ],
)
def test_training_stops_when_recall_no_longer_rises(
    recalls: list[float | None], kept: int, ended: int, reason: str
) -> None:
    callback, last = best_after(recalls, patience=2)
    assert callback.best is not None
    assert (callback.best["epoch"], last) == (kept, ended), reason


def test_a_killed_training_remembers_the_best_weights() -> None:
    before, _ = best_after([0.5, 0.1], patience=2)
    after = BestWeights(2, None)
    after.load_state_dict(before.state_dict())
    assert (after.best, after.waited) == (before.best, 1)
    assert [float(w) for w in after.weights] == [1.0]


def test_the_averaged_weights_measured_best_are_shipped(
    pictures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = iter([0.2, 0.6, 0.1])
    averages: list[Any] = []

    def measure(self: TrainingModule) -> None:
        averages.append([p.detach().clone() for p in self.network.parameters()])
        self.recall = {"sign": next(measured)}

    monkeypatch.setattr(TrainingModule, "on_validation_epoch_end", measure)
    config = small_config(epochs=6, recall=RecallConfig(every_epochs=1, pictures=1, patience=1))

    module, course = fit(config, pictures(config), tmp_path)

    assert len(course.rows) == 3, "stopped after the first that was not better"
    assert course.best == {"epoch": 2, "recall": 0.6}
    pairs = zip(module.network.parameters(), averages[1], strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not all(
        torch.equal(a, b) for a, b in zip(module.network.parameters(), averages[2], strict=True)
    )


def test_a_loss_that_is_not_finite_stops_with_the_pictures_named(
    pictures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config()
    real = TrainingModule.training_step

    def broken(self: TrainingModule, batch: dict[str, Any], index: int) -> Any:
        with torch.no_grad():
            self.network.heads.box_predictor.scores.bias.fill_(float("nan"))
        return real(self, batch, index)

    monkeypatch.setattr(TrainingModule, "training_step", broken)
    with pytest.raises(NonFiniteLossError, match=r"not finite at step 0 .*picture\d\.png, pict"):
        fit(config, pictures(config), tmp_path)


def test_trainer_arguments_that_are_ours_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NetworkConfigError, match=r"training.trainer.max_epochs is set by this"):
        training_run.make_trainer(small_config(trainer={"max_epochs": 3}), [], work=tmp_path)


def test_a_trainer_argument_that_lightning_lacks_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(NetworkConfigError, match=r"Lightning refuses .*devicse"):
        training_run.make_trainer(small_config(trainer={"devicse": 3}), [], work=tmp_path)


def test_pictures_without_the_networks_classes_are_refused(drawn: Dataset, tmp_path: Path) -> None:
    bare = Dataset(tuple(replace(i, labelled=()) for i in drawn.images), drawn.annotations)
    with pytest.raises(TrainingDataError, match="none of 8 training pictures can teach mask_rcnn"):
        Pictures(
            bare,
            drawn,
            tmp_path,
            network="mask_rcnn",
            classes=TAXONOMY.names,
            taxonomy=TAXONOMY,
            config=small_config(),
            seed=1,
        )


@pytest.mark.parametrize(
    ("labelled", "points", "with_object", "used", "reason"),
    [
        (("ball",), True, True, True, "labelled, with keypoints"),
        (("ball",), False, True, False, "a person without keypoints"),
        (("ball",), False, False, True, "nobody in it: all background"),
        ((), True, True, False, "persons unlabelled"),
    ],
)
def test_the_keypoint_network_takes_pictures_that_can_teach_it(
    labelled: tuple[str, ...], points: bool, with_object: bool, used: bool, reason: str
) -> None:
    image = Image(0, "0" * 64, "a.png", 9, 9, labelled, ("sign",), points)
    objects = (Annotation(0, 0, "ball", (0, 0, 5, 5)),) if with_object else ()

    found = usable(Dataset((image,), objects), network="keypoint_rcnn", classes=("ball",))

    assert bool(found) == used, reason


def _hold(path: Path, held: Any) -> None:
    with alone(path):
        held.set()
        time.sleep(1.0)


def test_a_second_training_waits_for_the_first_and_names_its_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    path = tmp_path / "training.lock"
    first = context.Process(target=_hold, args=(path, held))
    first.start()
    assert held.wait(60)

    with alone(path):
        pass

    first.join()
    assert f"process {first.pid} of an earlier turn runs this stage still" in caplog.text


def test_the_work_folder_is_another_one_when_settings_or_data_change(tmp_path: Path) -> None:
    data = tmp_path / "train.json"
    data.write_text("one")
    first = digest({"lr": 1}, [data])

    assert digest({"lr": 1}, [data]) == first
    assert digest({"lr": 2}, [data]) != first
    data.write_text("two")
    assert digest({"lr": 1}, [data]) != first


def test_the_learning_rate_warms_up_and_ends_at_its_share() -> None:
    config = OptimizerConfig(warmup_steps=10, final_share=0.1)

    shares = [rate_share(step, steps=110, config=config) for step in (0, 9, 60, 110)]

    assert shares == pytest.approx([0.1, 1.0, 0.55, 0.1])


def test_recall_is_counted_one_to_one() -> None:
    truth = torch.tensor([[0.0, 0, 10, 10], [20.0, 0, 30, 10]])
    twice_the_first = truth[[0, 0]]
    scores = torch.tensor([0.9, 0.8])

    assert recalled(truth, truth, scores, iou_min=0.5) == 2, "perfect"
    assert recalled(truth, truth[:0], scores[:0], iou_min=0.5) == 0, "nothing found"
    assert recalled(truth, twice_the_first, scores, iou_min=0.5) == 1, "by hand"


def test_a_network_step_of_the_module_is_the_networks_own_loss(pictures: Any) -> None:
    config = small_config()
    data = pictures(config)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    network = build_network("mask_rcnn", config, TAXONOMY.names).train()

    losses = network(batch["images"].float() / 255, batch["targets"])

    assert set(losses) == {"rpn_class", "rpn_box", "box_class", "box", "mask"}
    assert batch["images"].shape[2] % 32 == 0
    assert batch["images"].shape[3] % 32 == 0


@pytest.mark.slow
def test_the_last_epoch_is_measured_whatever_their_number(pictures: Any, tmp_path: Path) -> None:
    config = small_config(epochs=3, recall=RecallConfig(every_epochs=2, pictures=0, score_min=0.3))

    _, course = fit(config, pictures(config), tmp_path)

    assert [bool(row["recall"]) for row in course.rows] == [False, True, True]
