"""A scripted annotator in headless Chromium, over the W3C WebDriver protocol."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from annotation.account import Account

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
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
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
def test_an_annotator_moves_a_predicted_face_and_the_loop_learns_of_it(
    desk, drawn, driver, tmp_path
):
    (sha256,) = desk.collect(1, {0: drawn()})
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
