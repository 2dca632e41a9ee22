"""What can stop a conversion, each with one line that says what to give instead.

ConversionError
 |- BadModel
 |   |- NotAModel            of no known format, truncated, or empty
 |   |- MissingWeights       external data that is not beside the model
 |   |- BrokenWeights        NaN or infinity in the weights, or in the model's own answers
 |   |- UnknownOperator      a node that this runtime does not know
 |   |- UnknownShape         an input whose rank the file does not tell
 |   `- ModelDoesNotRun      the runtime refuses the original
 |- BadSamples
 |   |- NoSamples            missing, empty or unreadable calibration data
 |   |- TooFewSamples        fewer than can be split in three
 |   |- SampleMismatch       another name, dtype or shape than the model takes
 |   `- UnreadableSample     an image, sound or table that is damaged or above a limit
 |- BadOption                a hint, label file or name that does not fit the model
 |- UserCodeFailed            a function given as module.py:function that is not there or raises
 |- MissingPackage           an extra that is not installed
 |- EnvironmentUnavailable   an isolated environment of another version that cannot be made here
 |- OutOfMemory              too little memory in the main process, where calibration goes on
 |- OutputUnavailable        the result cannot be written, or is there already
 `- CandidateFailed          a variant that crashed or gave an error; a finding of the search, not the user's fault
"""

from __future__ import annotations


class ConversionError(Exception):
    """Base of this distribution's errors. `str(error)` is one line for a user: what failed, why, what to do."""


class BadModel(ConversionError):
    """The model file cannot be converted."""


class NotAModel(BadModel):
    """The file is no model of a known format."""


class MissingWeights(BadModel):
    """The model keeps its weights in a file that is not there."""


class BrokenWeights(BadModel):
    """The model holds or gives NaN or infinity."""


class UnknownOperator(BadModel):
    """A node's operator is not known here; `problem` says why and what to do where it is not ONNX Runtime's."""

    def __init__(self, operator: str, node: str, problem: str | None = None) -> None:
        known = (
            "is not known to this onnxruntime: give its library with --ops, "
            "export the model with standard ONNX operators, or update onnxruntime"
        )
        super().__init__(f"operator {operator} (node {node!r}) {problem or known}")
        self.operator = operator
        self.node = node


class UnknownShape(BadModel):
    """The model does not say how many axes an input has, so the batch axis of the samples cannot be told."""

    def __init__(self, name: str) -> None:
        super().__init__(f"input {name!r} has no shape in the model: give it with --shape {name}=1,3,224,224")
        self.name = name


class ModelDoesNotRun(BadModel):
    """The runtime refuses the original model."""


class BadSamples(ConversionError):
    """The calibration data cannot be used."""


class NoSamples(BadSamples):
    """There is no calibration data at the path given."""


class TooFewSamples(BadSamples):
    """Too few samples to keep calibration, search and evaluation apart."""

    def __init__(self, found: int, needed: int) -> None:
        super().__init__(
            f"{found} calibration sample{'' if found == 1 else 's'}, at least {needed} are needed "
            "(calibration, search and evaluation must not share any) and 100 or more advised"
        )
        self.found = found
        self.needed = needed


class SampleMismatch(BadSamples):
    """A sample does not fit the model's inputs."""


class UnreadableSample(BadSamples):
    """A file of the data is damaged, not of its kind, or above a limit."""


class UserCodeFailed(ConversionError):
    """A function given as `module.py:function` cannot be loaded, raises, or gives what cannot be used."""


class BadOption(ConversionError):
    """An option does not fit the model or is not well formed."""


_FIRST = {"torch": "; without a GPU install the CPU build of torch 2.13 before it (pytorch.org, Get started, CPU)"}
"""By module: what pip cannot choose. The package index has PyTorch with CUDA, ten times the size."""


class MissingPackage(ConversionError):
    """What is asked for needs packages that the light installation does not bring."""

    def __init__(self, what: str, extra: str, module: str) -> None:
        super().__init__(
            f"{what} need the package {module}, which is not installed: pip install 'autoglm-edge-converter[{extra}]'"
            f"{_FIRST.get(module, '')}"
        )
        self.extra = extra


class EnvironmentUnavailable(ConversionError):
    """An isolated environment cannot be made: no interpreter of its version, no package index, no room."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"the isolated environment {name} could not be made: {reason}")
        self.name = name
        self.reason = reason


class OutOfMemory(ConversionError):
    """Memory ran out in the process that calibrates and builds."""

    def __init__(self, model: str) -> None:
        super().__init__(
            f"not enough memory to convert {model}: give fewer or smaller samples, end other programs, "
            "or convert on a machine with more"
        )
        self.model = model


class OutputUnavailable(ConversionError):
    """The bundle cannot be written where it should go."""


class CandidateFailed(ConversionError):
    """A candidate crashed its process or was refused by the runtime."""
