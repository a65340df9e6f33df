"""An 8192x4096 JPEG with 50 objects: all but the network, and memory."""

from __future__ import annotations

import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor

import cv2
import numpy as np

from anonymization.anonymizer import Anonymizer
from anonymization.card import Card
from anonymization.detection.finds import Detections
from anonymization.formats.picture import decode
from anonymization.memory import keep_freed_memory
from benchmarks.anonymizing.timing import Setting, in_turns, libjpeg
from benchmarks.encoding import picture_bytes


def large_jpeg(setting: Setting) -> tuple[bytes, Detections]:
    """Return a JPEG of 8192x4096 from a photograph, with a camera's grain, and 50 objects in it."""
    content = picture_bytes(str(setting.pictures[0]), 8192, 4096)
    random = np.random.default_rng(0)
    corners = random.uniform((0, 1500), (7900, 3500), (50, 2))
    boxes = np.hstack([corners, corners + random.uniform(30, 250, (50, 2))])
    classes = np.arange(50) % len(setting.bundle.card.taxonomy.names)
    return content, Detections.from_boxes(boxes, class_ids=classes)


def rewritten(anonymizer: Anonymizer, content: bytes, finds: Detections) -> None:
    """Do everything to a picture but detect."""
    picture = decode(content)
    width, height = picture.width, picture.height
    decided = anonymizer.decide(finds, name="", width=width, height=height)
    anonymizer.rewrite(picture, decided)


def peak_gb(card: Card, content: bytes, finds: Detections) -> float:
    """Return the most memory that one such picture takes; for a process of its own."""
    cv2.setNumThreads(1)
    keep_freed_memory()  # as the command does
    rewritten(Anonymizer.for_known_regions(card), content, finds)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure_large(setting: Setting) -> None:
    """Print what an 8192x4096 JPEG with 50 objects costs beside the network."""
    content, finds = large_jpeg(setting)
    card = setting.bundle.card
    anonymizer = Anonymizer.for_known_regions(card)
    mine, theirs = in_turns(
        lambda: rewritten(anonymizer, content, finds),
        lambda: libjpeg(content),
        clock=time.thread_time,
    )
    # Spawned: a fork would begin with the memory of this process.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
        peak = other.submit(peak_gb, card, content, finds).result()
    print(
        f"large       8192x4096, 50 objects: {mine:.2f} s; libjpeg-turbo {theirs:.2f} s; "
        f"ratio {mine / theirs:.2f}   (promised: under 1.50); "
        f"memory {peak:.2f} GB   (promised: under 1.50)"
    )
