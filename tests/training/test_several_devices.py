"""Training on several devices through Lightning's own switches."""

import json
from typing import Any

import pytest

SWITCHES = ("accelerator=cpu", "devices=2", "strategy=ddp", "precision=bf16-mixed")


@pytest.mark.slow
@pytest.mark.xdist_group("turned")
def test_two_processes_share_the_pictures_and_one_writes_the_result(turned: Any) -> None:
    turned.dvc("repro", "preparation")
    history = turned.path / "artifacts/trained/mask_rcnn/history.json"
    turned.python("training", "network=mask_rcnn")
    alone = json.loads(history.read_text())["epochs"][-1]
    for path in (history, history.with_name("network.json")):
        path.unlink()

    switches = [f"+training.mask_rcnn.trainer.{switch}" for switch in SWITCHES]
    turned.python("training", "network=mask_rcnn", *switches)

    together = json.loads(history.read_text())["epochs"][-1]
    assert together["step"] == pytest.approx(alone["step"] / 2, abs=1)
    assert together["loss"] == pytest.approx(alone["loss"], rel=0.5)
    assert not list((turned.path / "artifacts/.work").glob("training-mask_rcnn-*"))
