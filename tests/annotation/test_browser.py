"""A scripted annotator in headless Chromium, over the W3C WebDriver protocol."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

from annotation.account import Account
from annotation.guide import draw_guide
from annotation.snapshot import read_lines
from anonymization.taxonomy import Taxonomy
from conf import arguments, compose
from data.coco import Annotation, Dataset, Image, mask_to_rle
from data.layout import ANNOTATIONS, COLLECTED, MANIFEST, PICTURES, REVIEWED, SNAPSHOT
from data.manifest import Manifest, Picture
from data.street import StreetConfig, draw_sequence

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""Key of an element's reference (https://www.w3.org/TR/webdriver2/, section 11)."""
ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--disable-background-networking", "--window-size=1500,1000",
)  # fmt: skip
TIMEOUT_S = 300


class Browser:
    """One headless window."""

    def __init__(self, driver: str, folder: Path, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}"
        self._driver = subprocess.Popen(
            [driver, f"--port={port}", f"--log-path={folder / 'chromedriver.log'}"],
            stdout=subprocess.DEVNULL,
        )
        self._wait_for_driver()
        options = {"args": [*ARGUMENTS, f"--user-data-dir={folder / 'profile'}"]}
        patience = dict.fromkeys(("script", "pageLoad"), 1000 * TIMEOUT_S)
        asked = {"goog:chromeOptions": options, "timeouts": patience}
        wanted = {"capabilities": {"alwaysMatch": asked}}
        self._session = self._ask("POST", "/session", wanted)["sessionId"]

    def _wait_for_driver(self) -> None:
        until = time.monotonic() + TIMEOUT_S
        while time.monotonic() < until:
            try:
                if self._ask("GET", "/status")["ready"]:
                    return
            except OSError:
                time.sleep(0.2)
        raise TimeoutError("chromedriver did not start")

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            self._base + path,
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()[:600]) from error

    def _in_session(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return self._ask(method, f"/session/{self._session}{path}", body)

    def open(self, url: str) -> None:
        self._in_session("POST", "/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript; it returns what it `return`s."""
        return self._in_session(
            "POST", "/execute/sync", {"script": script, "args": list(arguments)}
        )

    def until(self, script: str, *arguments: Any) -> Any:
        """Wait until a script returns something true."""
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            found = self.run(script, *arguments)
            if found:
                return found
            time.sleep(0.5)
        raise TimeoutError(f"the page never fulfilled: {script}")

    def type(self, selector: str, text: str) -> None:
        found = self._in_session("POST", "/element", {"using": "css selector", "value": selector})
        self._in_session("POST", f"/element/{found[ELEMENT]}/value", {"text": text})

    def click(self, selector: str) -> None:
        found = self._in_session("POST", "/element", {"using": "css selector", "value": selector})
        self._in_session("POST", f"/element/{found[ELEMENT]}/click", {})

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press at one point of the window, and let go at another."""
        steps: list[dict[str, Any]] = [_move(*start), {"type": "pointerDown", "button": 0}]
        for share in (0.25, 0.5, 0.75, 1.0):
            x, y = (a + (b - a) * share for a, b in zip(start, end, strict=True))
            steps.append(_move(x, y))
        steps.append({"type": "pointerUp", "button": 0})
        mouse = {"type": "pointer", "id": "mouse", "actions": steps}
        self._in_session("POST", "/actions", {"actions": [mouse]})

    def press(self, x: float, y: float) -> None:
        """Click at a point of the window."""
        steps = [
            _move(x, y),
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        mouse = {"type": "pointer", "id": "mouse", "actions": steps}
        self._in_session("POST", "/actions", {"actions": [mouse]})

    def keys(self, text: str) -> None:
        """Press keys, one after the other."""
        steps = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        board = {"type": "key", "id": "keyboard", "actions": steps}
        self._in_session("POST", "/actions", {"actions": [board]})

    def resize(self, width: int, height: int) -> None:
        """Give the page this size."""
        self._in_session("POST", "/window/rect", {"width": width, "height": height})
        frame_px = height - int(self.run("return innerHeight"))
        self._in_session("POST", "/window/rect", {"width": width, "height": height + frame_px})

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._in_session("GET", "/screenshot")))

    def close(self) -> None:
        try:
            self._in_session("DELETE", "")
        finally:
            self._driver.terminate()
            self._driver.wait(timeout=20)


def _move(x: float, y: float) -> dict[str, Any]:
    return {"type": "pointerMove", "duration": 60, "x": round(x), "y": round(y)}


REGIONS = """
    const store = window.Htx && Htx.annotationStore && Htx.annotationStore.selected;
    if (!store || !store.regionStore.regions.length) return null;
    const image = store.names.get('image');
    const stage = document.querySelector('.konvajs-content');
    if (!stage || !image.stageWidth) return null;
    const box = stage.getBoundingClientRect();
    return store.regionStore.regions.map(r => ({
        id: r.cleanId || r.id, type: r.type,
        x: box.x + (r.x || 0) * image.stageWidth / 100,
        y: box.y + (r.y || 0) * image.stageHeight / 100,
        width: image.stageWidth,
    }));
"""
"""Places of the regions in the window, from the editor's own store."""


@pytest.mark.slow
@pytest.mark.xdist_group("label_studio")
@pytest.mark.parametrize("on_its_side", [False, True], ids=["upright", "turned-by-exif"])
def test_an_annotator_moves_a_predicted_face_and_the_loop_learns_of_it(
    desk, drawn, driver, tmp_path, on_its_side
):
    (sha256,) = desk.collect(1, {0: drawn()}, on_its_side=on_its_side)
    desk.doubt({sha256: "face 1 looks too far to the left"})
    desk.sync(source_labels=True)
    (task,) = desk.tasks()
    browser = Browser(driver, tmp_path, free_port())
    try:
        sign_in(browser, desk.config.url, desk.running.account)
        browser.open(f"{desk.config.url}/projects/{desk.project}/data?task={task.id}")
        found = browser.until(REGIONS)
        assert "face 1 looks too far" in browser.run("return document.body.innerText")
        face = next(region for region in found if region["type"] == "ellipseregion")
        scale = face["width"] / 160
        start = (face["x"], face["y"])
        browser.click("[aria-label='move-tool']")
        browser.press(*start)
        browser.drag(start, (start[0] + 50 * scale, start[1] + 20 * scale))
        browser.screenshot(tmp_path / "moved.png")
        browser.run(SUBMIT)
        browser.until(
            "return Htx.annotationStore.selected.userGenerate === false || "
            "Htx.annotationStore.selected.pk"
        )
        wait_for(lambda: desk.tasks()[0].annotated == 1)
    finally:
        browser.close()
    desk.sync(source_labels=True)
    dataset, _ = desk.annotated()
    moved = next(a for a in dataset.annotations if a.class_name == "face")
    assert moved.box_xyxy == pytest.approx((60, 30, 90, 60), abs=2)
    assert moved.attributes["annotator"] == 1
    assert moved.attributes["identifiable"] is True
    person = next(a for a in dataset.annotations if a.class_name == "person")
    assert person.keypoints is not None
    assert len(person.segmentation) == 2


IN_SIGHT = """
    return [...document.querySelectorAll(arguments[0])].filter(e => {
        const box = e.getBoundingClientRect();
        return box.width && box.top >= 0 && box.bottom <= innerHeight
            && box.left >= 0 && box.right <= innerWidth;
    }).map(e => e.innerText.trim());
"""
"""Texts of the elements that an annotator sees without scrolling."""


@pytest.mark.slow
@pytest.mark.xdist_group("label_studio")
def test_all_that_an_annotator_chooses_from_is_in_sight_and_answers_to_its_key(
    desk, driver, tmp_path, monkeypatch
):
    """BLURLOOP_SCREENSHOTS names a folder for the pictures of docs/annotation.md."""
    monkeypatch.setattr("annotation.serving.draw_guide", draw_guide)
    taxonomy = arguments(compose(), {"taxonomy": Taxonomy})["taxonomy"]
    desk.config = replace(desk.config, project="Drawn street")
    sha256 = collect_street_scene(taxonomy)
    where = "vehicle at 40 % from the left, 62 % from the top, 120 x 80 px"
    desk.doubt({sha256: f"{where}: drawn twice, in nearly the same box"})
    desk.sync(taxonomy=taxonomy, source_labels=True)
    shots = Path(os.environ.get("BLURLOOP_SCREENSHOTS", tmp_path))
    browser = Browser(driver, tmp_path, free_port())
    try:
        browser.resize(1440, 900)
        sign_in(browser, desk.config.url, desk.running.account)
        browser.open(f"{desk.config.url}/projects/{desk.project}/data?labeling=1")
        browser.until(REGIONS)
        guide = "[...document.querySelectorAll('[class*=modal] img')]"
        browser.until(f"return {guide}.length === 8 && {guide}.every(i => i.naturalWidth > 50)")
        browser.screenshot(shots / "annotation-instructions.png")
        browser.run("document.querySelector('[class*=modal] button').click()")
        browser.until("return !document.querySelector('[class*=modal] img')")

        labels = browser.run(IN_SIGHT, ".lsf-label")
        assert len(labels) == 2 * len(taxonomy.names) + 17
        assert "Look again: " in browser.run(DOUBT_SHOWN)
        place = "return document.querySelector('.konvajs-content').getBoundingClientRect().top"
        top = browser.run(place)
        browser.run(SELECT_LARGEST_FACE)
        browser.until("return document.querySelectorAll('.lsf-choice').length === 5")
        assert len(browser.run(IN_SIGHT, ".lsf-choice")) == 5
        assert browser.run(place) == top  # the picture stays where it is
        browser.screenshot(shots / "annotation-task.png")
        browser.keys("nc")
        browser.until(SAID, ["not identifiable", "occluded"])
        browser.run(SUBMIT)
        wait_for(lambda: desk.tasks()[0].annotated == 1)
    finally:
        browser.close()
    desk.sync(taxonomy=taxonomy, source_labels=True)
    said = [
        result["value"]["choices"]
        for line in read_lines(SNAPSHOT)
        for annotation in line["annotations"]
        for result in annotation["result"]
        if result["type"] == "choices"
    ]
    assert ["not identifiable"] in said
    assert ["occluded"] in said


DOUBT_SHOWN = """
    const text = document.querySelector('.blurloop-doubt h4');
    return getComputedStyle(text, '::before').content + text.innerText;
"""
SELECT_LARGEST_FACE = """
    const annotation = Htx.annotationStore.selected;
    const faces = annotation.regionStore.regions.filter(r => r.type === 'ellipseregion');
    annotation.selectArea(faces.sort((a, b) => b.radiusX - a.radiusX)[0]);
"""
SAID = """
    const [region] = Htx.annotationStore.selected.selectedRegions;
    const words = region.results.flatMap(r => r.value && r.value.choices || r.mainValue || []);
    return arguments[0].every(word => words.includes(word));
"""


def collect_street_scene(taxonomy: Taxonomy) -> str:
    """Draw a street with its labels; return the picture's SHA-256."""
    config = StreetConfig(
        scenes=1, sequence_length=1, seed=3, width=1024, height=640, night_share=0, blur_share=0,
        empty_share=0,
    )  # fmt: skip
    (scene,) = draw_sequence(config, 0)
    height, width = scene.pixels.shape[:2]
    buffer = io.BytesIO()
    Pillow.fromarray(scene.pixels).save(buffer, "PNG")
    sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
    path = PICTURES / f"{sha256}.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(buffer.getvalue())
    things = [thing for thing in scene.objects if thing.mask.any()]
    objects = [
        Annotation(
            number, 1, thing.class_name, thing.box_xyxy,
            mask_to_rle(thing.mask) if taxonomy[thing.class_name].geometry == "mask" else None,
            keypoints=thing.keypoints,
        )
        for number, thing in enumerate(things, start=1)
    ]  # fmt: skip
    Manifest((Picture(sha256, path.name, width, height, "drawn", "a.png"),)).write(
        REVIEWED / MANIFEST
    )
    image = Image(1, sha256, path.name, width, height, taxonomy.names)
    Dataset((image,), tuple(objects)).write(COLLECTED / ANNOTATIONS, taxonomy)
    return sha256


SUBMIT = """
    const words = ['Submit', 'Update'];
    const button = [...document.querySelectorAll('button')]
        .find(b => words.includes(b.innerText.trim()));
    button.click();
"""


def sign_in(browser: Browser, url: str, account: Account) -> None:
    browser.open(f"{url}/user/login/")
    browser.type("input[name=email]", account.user)
    browser.type("input[name=password]", account.password)
    browser.run("document.querySelector('form').submit()")
    browser.until("return !location.pathname.includes('login')")


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, "the server never heard of it"
        time.sleep(0.5)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
