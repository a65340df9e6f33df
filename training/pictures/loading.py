"""Pictures on their way to the network: which ones, in which order, cached and batched."""

from __future__ import annotations

from collections.abc import Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from anonymization.taxonomy import Taxonomy
from data import coco
from data.coco import Annotation, Image
from training.config import NetworkConfig
from training.errors import TrainingDataError
from training.network.rcnn import MULTIPLE
from training.pictures.companions import Companions
from training.pictures.mosaic import TILES, draw_tile_view, draw_tiles, join
from training.pictures.pasting import draw_paste
from training.pictures.samples import (
    Photometry,
    Sample,
    base_size,
    draw_scale,
    draw_view,
    growth,
    make_sample,
    show,
    shown_size,
    to_target,
)
from training.pictures.sampling import EpochSampler, Key, hard_factors, repeat_factors
from training.pictures.tilting import draw_tilt, tilt


def usable(dataset: coco.Dataset, *, network: str, classes: Sequence[str]) -> list[Image]:
    """Return the pictures that can teach a network, in order.

    The keypoint network learns from pictures whose persons are all labelled, with keypoints; and
    from those that show nobody.
    """
    found = []
    for image in dataset.images:
        if not set(classes) & {*image.labelled, *image.partial}:
            continue
        nobody = all(a.class_name not in classes for a in dataset.by_image[image.id])
        with_points = image.keypoints_labelled or nobody
        complete = set(classes) <= set(image.labelled)
        if network == "mask_rcnn" or (complete and with_points):
            found.append(image)
    return found


class PictureSet(Dataset[dict[str, Any]]):
    """Samples of a list of pictures, kept in memory as far as it goes.

    Index with a `Key`: an augmented sample depends on the seed and its key alone, whichever
    process makes it, so that a resumed training sees what an undisturbed one does.
    """

    def __init__(
        self,
        images: Sequence[Image],
        annotations: dict[int, tuple[Annotation, ...]],
        folder: Path,
        *,
        network: str,
        classes: tuple[str, ...],
        taxonomy: Taxonomy,
        config: NetworkConfig,
        seed: int | None,
        factors: NDArray[np.float64] | None = None,
    ) -> None:
        """Take pictures.

        Args:
            images: Which.
            annotations: Their objects, by image id.
            folder: Where they lie.
            network: `mask_rcnn` or `keypoint_rcnn`.
            classes: The network's classes.
            taxonomy: Says what is known of them.
            config: The network's settings.
            seed: Of augmentation; None leaves pictures as they are.
            factors: How often each is shown; None for all alike.
        """
        self.images = list(images)
        self.annotations = annotations
        self.folder = folder
        self.maps = config.maps(network)
        self.classes = classes
        self.taxonomy = taxonomy
        self.config = config
        self.seed = seed
        self.geometries = tuple(taxonomy[name].geometry for name in classes)
        self.cache: dict[int, tuple[Sample, list[Any]]] = {}
        self.photometry: Photometry | None = None
        self.companions: Companions | None = None
        if seed is not None and (config.augmentation.mosaic or config.augmentation.paste):
            self.companions = Companions(
                self.images,
                annotations,
                classes=classes,
                taxonomy=taxonomy,
                factors=np.ones(len(self.images)) if factors is None else factors,
            )

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.images)

    def warm(self, limit_bytes: int) -> None:
        """Decode pictures into memory until the limit, in the order of the list."""
        from tqdm import tqdm

        used = 0
        with ThreadPoolExecutor(2) as pool:
            bar = tqdm(total=len(self.images), desc="pictures", unit="picture", leave=False)
            for start in range(0, len(self.images), 16):
                part = range(start, min(start + 16, len(self.images)))
                for position, sample in zip(part, pool.map(self._load, part), strict=True):
                    self.cache[position] = _packed(sample)
                    used += sample.pixels.nbytes
                    bar.update()
                if used > limit_bytes:
                    break
            bar.close()

    def _load(self, position: int) -> Sample:
        from anonymization.formats.picture import read_picture

        image = self.images[position]
        return make_sample(
            image,
            self.annotations[image.id],
            read_picture(self.folder / image.file_name).pixels,
            classes=self.classes,
            taxonomy=self.taxonomy,
            config=self.config.input,
            headroom=1.0 if self.seed is None else self.config.augmentation.scale_max,
        )

    def canvas(self, key: Key) -> tuple[int, int]:
        """Return (height, width) that a sample takes in its batch, without making it."""
        image = self.images[key[1]]
        size = base_size(image.height, image.width, self.config.input)
        if self.seed is not None:
            rng = np.random.default_rng([self.seed, *key])
            if self._draw_mosaic(key, rng):
                return padded_size(self._mosaic_size(size, key))
            scale = draw_scale(self.config.augmentation, rng, grown=self.grown(key))
            size = shown_size(size, scale)
        return padded_size(size)

    def _draw_mosaic(self, key: Key, rng: np.random.Generator) -> bool:
        """Draw whether a sample is a mosaic; draws nothing where there are none."""
        share = self.config.augmentation.mosaic
        if self.companions is None or share == 0:
            return False
        return bool(rng.random() < share) and self.companions.number_alike(key[1]) >= TILES

    def _mosaic_size(self, size: tuple[int, int], key: Key) -> tuple[int, int]:
        return shown_size(size, growth(self.config.augmentation, self.grown(key)))

    def grown(self, key: Key) -> float:
        """Return the share of the epochs that have passed: 0 in the first, 1 in the last."""
        return min(1.0, key[0] / (self.config.epochs - 1)) if self.config.epochs > 1 else 1.0

    def sample(self, key: Key) -> Sample:
        """Return the sample that the network sees."""
        if self.seed is None:
            return self._whole(key[1])
        rng = np.random.default_rng([self.seed, *key])
        augmentation = self.config.augmentation
        visible_min = augmentation.visible_min
        if self._draw_mosaic(key, rng):
            sample = self._mosaic(key, rng)
        else:
            sample = self._whole(key[1])
            view = draw_view(sample, augmentation, rng, grown=self.grown(key))
            sample = show(sample, view, visible_min=visible_min)
        if augmentation.paste and rng.random() < augmentation.paste:
            sample = self._pasted(sample, key, rng)
        if augmentation.rotation or augmentation.perspective:
            matrix = draw_tilt(sample.size, augmentation, rng)
            sample = tilt(sample, matrix, geometries=self.geometries, visible_min=visible_min)
        self.photometry = self.photometry or Photometry(augmentation)
        return replace(sample, pixels=self.photometry(sample.pixels, rng))

    def _whole(self, position: int) -> Sample:
        cached = self.cache.get(position)
        return _unpacked(*cached) if cached else self._load(position)

    def _mosaic(self, key: Key, rng: np.random.Generator) -> Sample:
        """Join a picture with three others."""
        assert self.companions is not None
        augmentation = self.config.augmentation
        others = self.companions.draw_alike(key[1], TILES - 1, rng)
        shown = [self._whole(position) for position in (key[1], *others)]
        size = self._mosaic_size(shown[0].base_size, key)
        tiles = draw_tiles(size, rng)
        views = [
            draw_tile_view(sample, tile, augmentation, rng)
            for sample, tile in zip(shown, tiles, strict=True)
        ]
        cut = [
            show(sample, view, visible_min=augmentation.visible_min)
            for sample, view in zip(shown, views, strict=True)
        ]
        return join(cut, tiles, size)

    def _pasted(self, sample: Sample, key: Key, rng: np.random.Generator) -> Sample:
        """Paste some objects of other pictures."""
        assert self.companions is not None
        augmentation = self.config.augmentation
        for _ in range(int(rng.integers(1, augmentation.paste_objects + 1))):
            drawn = self.companions.draw_donor(key[1], rng)
            if drawn is None:
                return sample
            donor = self._whole(drawn[0])
            shown = draw_scale(augmentation, rng, grown=self.grown(key))
            sample = draw_paste(
                sample,
                donor,
                drawn[1],
                scale=shown * donor.base_size[0] / donor.size[0],
                mirrored=bool(rng.random() < augmentation.flip),
                visible_min=augmentation.visible_min,
                rng=rng,
            )
        return sample

    def __getitem__(self, key: Key) -> dict[str, Any]:
        """Return pixels, target and name."""
        sample = self.sample(key)
        target = to_target(
            sample,
            geometries=self.geometries,
            min_side_px=self.config.input.min_side_px,
            maps=self.maps,
        )
        target["identifiable"] = torch.from_numpy(sample.boxes[sample.identifiable])
        target["identifiable_labels"] = torch.from_numpy(sample.labels[sample.identifiable])
        return {"pixels": sample.pixels, "target": target, "name": sample.name}


def _packed(sample: Sample) -> tuple[Sample, list[Any]]:
    """Keep masks run-length encoded: twenty bool masks weigh more than their picture."""
    from pycocotools import mask as coco_mask

    packed = [
        None if m is None else coco_mask.encode(np.asfortranarray(m, dtype=np.uint8))
        for m in sample.masks
    ]
    return replace(sample, masks=()), packed


def _unpacked(sample: Sample, packed: list[Any]) -> Sample:
    from pycocotools import mask as coco_mask

    masks: list[NDArray[np.bool_] | None] = [
        None if rle is None else coco_mask.decode(rle).astype(bool) for rle in packed
    ]
    return replace(sample, masks=tuple(masks))


def padded_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the next multiples of 32.

    >>> padded_size((280, 448))
    (288, 448)
    """
    return -(-size[0] // MULTIPLE) * MULTIPLE, -(-size[1] // MULTIPLE) * MULTIPLE


def to_batch(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Pad pictures with black at right and below, to one size that is a multiple of 32.

    Returns:
        `images` uint8 (N, 3, H, W), `targets`, `names`.
    """
    height = max(item["pixels"].shape[0] for item in items)
    width = max(item["pixels"].shape[1] for item in items)
    images = np.zeros((len(items), *padded_size((height, width)), 3), dtype=np.uint8)
    for row, item in enumerate(items):
        own = item["pixels"]
        images[row, : own.shape[0], : own.shape[1]] = own
    return {
        # The pictures' own order of memory is channels last, which is what the network is
        # fastest on: no copy.
        "images": torch.from_numpy(images).permute(0, 3, 1, 2),
        "targets": [item["target"] for item in items],
        "names": [item["name"] for item in items],
    }


def spread(items: list[Image], limit: int) -> list[Image]:
    """Return at most `limit` items (0: all), evenly spread over the list.

    >>> spread(list(range(10)), 3)
    [0, 3, 6]
    """
    if limit == 0 or limit >= len(items):
        return items
    return [items[i * len(items) // limit] for i in range(limit)]


def _quiet_worker(_: int) -> None:
    """Leave the cores to the network: each worker uses one thread."""
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)


class Pictures(pl.LightningDataModule):
    """Training and validation pictures of one network.

    Raises:
        TrainingDataError: If no picture can teach the network.
    """

    def __init__(
        self,
        train: coco.Dataset,
        val: coco.Dataset,
        folder: Path,
        *,
        network: str,
        classes: tuple[str, ...],
        taxonomy: Taxonomy,
        config: NetworkConfig,
        seed: int,
        hard: Set[str] = frozenset(),
    ) -> None:
        super().__init__()
        common: dict[str, Any] = {
            "network": network,
            "classes": classes,
            "taxonomy": taxonomy,
            "config": config,
        }
        images = usable(train, network=network, classes=classes)
        if not images:
            raise TrainingDataError(
                f"none of {len(train.images)} training pictures can teach {network} "
                f"({', '.join(classes)}): none has its classes labelled; collect some, or see "
                "reports/preparation.json for what was dropped"
            )
        shown = (a for image in images for a in train.by_image[image.id])
        if config.joint and not any(a.keypoints for a in shown):
            raise TrainingDataError(
                f"no training picture has keypoints, so that training.{network}.joint would draw "
                "heads from noise; annotate some, or choose another setting than training=joint"
            )
        measured = spread(usable(val, network=network, classes=classes), config.recall.pictures)
        self.factors = repeat_factors(
            images, train.by_image, classes, share=config.loading.repeat_share
        )
        self.factors = self.factors * hard_factors(images, hard, factor=config.loading.hard_factor)
        self.train_set = PictureSet(
            images, train.by_image, folder, seed=seed, factors=self.factors, **common
        )
        self.val_set = PictureSet(measured, val.by_image, folder, seed=None, **common)
        self.loading = config.loading
        self.measures = config.recall.every_epochs > 0 and bool(measured)
        self.seed = seed
        self.first_epoch = 0

    def state_dict(self) -> dict[str, Any]:
        """Return how many epochs have been shown, for the checkpoint at the end of one."""
        return {"epochs": 0 if self.trainer is None else self.trainer.current_epoch + 1}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on behind the epochs of a checkpoint.

        Lightning tells a resumed epoch's sampler its number when the workers have begun with the
        first (`FitLoop.setup_data` makes the iterator, `on_advance_start` names the epoch).
        """
        self.first_epoch = int(state_dict["epochs"])

    def setup(self, stage: str) -> None:  # noqa: ARG002 - Lightning names it
        """Decode pictures before worker processes start, so that they share the memory."""
        if not self.train_set.cache:
            self.train_set.warm(self.loading.cache_mb * 2**20)
        if self.measures and not self.val_set.cache:
            self.val_set.warm(self.loading.cache_mb * 2**20 // 4)

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return augmented batches; the last of an epoch may be smaller."""
        workers = self.loading.workers
        trainer = self.trainer
        sampler = EpochSampler(
            self.factors,
            self.seed,
            rank=0 if trainer is None else trainer.global_rank,
            processes=1 if trainer is None else trainer.world_size,
            batch_size=self.loading.batch_size,
            canvas=self.train_set.canvas,
        )
        sampler.set_epoch(self.first_epoch)
        return DataLoader(
            self.train_set,
            batch_size=self.loading.batch_size,
            sampler=sampler,
            num_workers=workers,
            collate_fn=to_batch,
            worker_init_fn=_quiet_worker,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self) -> list[DataLoader[dict[str, Any]]]:
        """Return the measured validation pictures; no loader where nothing is measured."""
        if not self.measures:
            return []
        order: list[Key] = [(0, position, 0) for position in range(len(self.val_set))]
        return [
            DataLoader(
                self.val_set,
                batch_size=self.loading.batch_size,
                sampler=order,
                collate_fn=to_batch,
            )
        ]


def to_input(images: Tensor) -> Tensor:
    """Turn uint8 pictures into float32 in [0, 1]."""
    return images.float() / 255
