"""What can go wrong in training that a user can mend."""

from __future__ import annotations

from anonymization.errors import BlurloopError


class NetworkConfigError(BlurloopError):
    """A setting of a network is out of range or does not fit another; found before training."""

    exit_code = 2


class BackboneError(BlurloopError):
    """A backbone or its pretrained weights cannot be had."""


class TrainingDataError(BlurloopError):
    """The prepared data cannot train this network."""


class NonFiniteLossError(BlurloopError):
    """The loss became NaN or infinite; the message names the batch."""


class TrainedNetworkError(BlurloopError):
    """A trained folder is incomplete or does not fit this version."""


class ExportError(BlurloopError):
    """A network could not be written as ONNX."""


class StartError(BlurloopError):
    """The trained network that a training should start from is missing or does not fit."""


class QuantizationError(BlurloopError):
    """A graph cannot be made to count in 8 bits."""
