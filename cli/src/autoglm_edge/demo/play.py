"""The demonstration, act by act."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from rich.console import Console

from autoglm_edge.conversion_bars import Bars
from autoglm_edge.demo.attacks import Burglar, Refused, deploy_tampered, go_back, tell
from autoglm_edge.demo.errors import DemoError
from autoglm_edge.demo.filetypes import Classifier, LabelledFile, find_classifier, gather_files
from autoglm_edge.demo.sabotage import damaged_copy, mistaken_copy
from autoglm_edge.demo.screen import Screen
from autoglm_edge.demo.stage import DEVICES, Stage
from autoglm_edge.demo.traffic import Traffic
from autoglm_edge_converter import ConversionResult, Options, convert
from autoglm_edge_fleet.deployments import Deployment
from autoglm_edge_fleet.fleet import DeviceStatus
from autoglm_edge_protocol.bundle import read_manifest
from autoglm_edge_protocol.manifest import Manifest
from autoglm_edge_protocol.probation import ProbationTerms, ShadowTerms

MODEL = "filetype"
CALIBRATION_FILE = "files.npz"
FILES = 1200
MIN_FILES = 120
CALIBRATION_SHARE = 0.5
MAX_DROP = 0.05
DEPLOY_S = 120.0
LISTEN_S = 6.0
"""How long the devices are asked after each deployment before the next act."""
TELEMETRY_S = 4.0
PROBATION = ProbationTerms(duration_s=4.0, inferences=0, patience_s=4.0)
"""Short, as nobody watches for half a minute; and nobody asks the devices during the first act."""
SHADOWED = ProbationTerms(
    duration_s=4.0,
    inferences=0,
    patience_s=90.0,
    shadow=ShadowTerms(rate=1.0, max_disagreement=0.2, min_samples=30),
)
"""With the previous model beside the new one, which rests as long as it works: a busy machine takes its time over
thirty samples. INT8 agrees with its original in well over 80 % of the files."""


@dataclass(frozen=True)
class Casting:
    """The model, and files for it: some to convert with, others to ask about."""

    classifier: Classifier
    calibration: Path
    asked: tuple[LabelledFile, ...]
    expected: tuple[str, ...]
    """What the original model answers to each of `asked`."""


@dataclass(frozen=True)
class Run:
    """What happened, for the final tables."""

    conversion: ConversionResult
    traffic: Traffic
    acts: tuple[tuple[Deployment, ...], ...]
    """FP32, INT8, damaged, mistaken: the deployments of each act."""
    sent_bytes: dict[str, int]
    """Bulk data that the fleet sent, by act."""
    devices: tuple[DeviceStatus, ...]
    """What the fleet knows of the devices at the end, their telemetry among it."""
    broker: str
    asked: tuple[LabelledFile, ...]
    attacks: tuple[Refused, ...] = ()
    """What the devices turned away at the end."""


def play(directory: Path, console: Console, broker: str | None = None) -> Run:
    """Play all acts; `broker` None takes the first kind that is installed.

    Raises DemoError, ConversionError, FleetError.
    """
    if directory.exists() and any(directory.iterdir()) and not (directory / CALIBRATION_FILE).exists():
        raise DemoError(f"{directory} holds something else; give another --output")
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    casting = _cast(directory, console)
    converted = _convert(casting, directory, console, "1.1.0", ("fp32", "int8"))
    if converted.manifest.variant("int8") is None and len(converted.manifest.variants) < 2:
        raise DemoError("no INT8 variant was good enough on this machine's files; the report says why")
    plain = _convert(casting, directory, console, "1.0.0", ("fp32",))
    damaged = damaged_copy(converted.directory, directory, "1.2.0")
    mistaken = mistaken_copy(plain.directory, directory, "1.3.0")
    tampered = damaged_copy(converted.directory, directory, "1.4.0")
    _say(console, "Starting a broker, the fleet's daemon and three agents")
    with Stage(directory, broker) as stage:
        console.print(f"  {stage.broker_kind} at {stage.fleet.config.broker}", soft_wrap=True)
        for path in (plain.packed, converted.packed, damaged, mistaken, tampered):
            console.print(f"  published {stage.fleet.publish(path).bundle.id}")
        traffic = Traffic(stage.endpoints(), MODEL, casting.asked, casting.expected, casting.classifier.labels)
        burglar = Burglar(stage.fleet, DEVICES[0])
        acts, sent = _deployments(stage, traffic, console, burglar)
        time.sleep(TELEMETRY_S)
        status = stage.fleet.status()
        attacks = _attacks(stage, burglar, console, read_manifest(tampered))
        return Run(converted, traffic, acts, sent, status, stage.broker_kind, casting.asked, attacks)


def _attacks(stage: Stage, burglar: Burglar, console: Console, tampered: Manifest) -> tuple[Refused, ...]:
    _say(console, "Attacking: the broker replays a recorded message, a bundle is tampered with, an old one deployed")
    plain = next(each.id for each in stage.fleet.bundles() if each.id.version == "1.0.0")
    return (
        tell(burglar.replay(), console),
        tell(deploy_tampered(stage.fleet, DEVICES[1], tampered.id, tampered), console),
        tell(go_back(stage.fleet, DEVICES[2], plain), console),
    )


def _deployments(
    stage: Stage, traffic: Traffic, console: Console, burglar: Burglar
) -> tuple[tuple[tuple[Deployment, ...], ...], dict[str, int]]:
    sent: dict[str, int] = {}
    first = _act(stage, None, console, "1.0.0", "Deploying the FP32 bundle to three devices")
    with traffic:
        time.sleep(LISTEN_S)
        sent["1.0.0"] = _sent(stage)
        second = _act(stage, traffic, console, "1.1.0", "Deploying the INT8 bundle while the devices are being asked")
        time.sleep(LISTEN_S)
        sent["1.1.0"] = _sent(stage) - sum(sent.values())
        burglar.record()
        third = _act(stage, traffic, console, "1.2.0", "Deploying a bundle with damaged weights and right digests")
        time.sleep(LISTEN_S / 2)
        sent["1.2.0"] = _sent(stage) - sum(sent.values())
        title = "Deploying a bundle that agrees with its own golden set, but not with its predecessor"
        fourth = _act(stage, traffic, console, "1.3.0", title, SHADOWED)
        time.sleep(LISTEN_S / 2)
        sent["1.3.0"] = _sent(stage) - sum(sent.values())
    _expect(first, "confirmed")
    _expect(second, "confirmed")
    _expect(third, "failed")
    _expect(fourth, "failed")
    for device in stage.fleet.devices():
        if device.current is None or device.current.bundle.version != "1.1.0":
            raise DemoError(f"{device.name} does not run {MODEL}@1.1.0 after the wrong ones were refused")
    return (first, second, third, fourth), sent


def _act(
    stage: Stage,
    traffic: Traffic | None,
    console: Console,
    version: str,
    title: str,
    probation: ProbationTerms = PROBATION,
) -> tuple[Deployment, ...]:
    _say(console, title)
    bundle = next(b.id for b in stage.fleet.bundles() if b.id.version == version)
    issued = stage.fleet.deploy(bundle, stage.fleet.device_names(), probation=probation)
    with Screen(console, traffic) as screen:
        ended = stage.fleet.wait_for_deployments(issued, DEPLOY_S, screen.show)
        screen.show(ended)
    stage.check()
    return ended


def _expect(deployments: Sequence[Deployment], phase: str) -> None:
    for each in deployments:
        if each.phase != phase:
            reason = f": {each.reason.message}" if each.reason else ""
            raise DemoError(f"{each.device} ended {each.bundle} as {each.phase}{reason}, not {phase}")


def _sent(stage: Stage) -> int:
    return stage.fleet.egress().size_bytes


def _cast(directory: Path, console: Console) -> Casting:
    try:
        classifier = find_classifier()
    except ModuleNotFoundError:
        raise DemoError("the demonstration's model is not installed: pip install 'autoglm-edge[demo]'") from None
    _say(console, "Looking for files of this machine whose type is known")
    files = gather_files(FILES)
    if len(files) < MIN_FILES:
        raise DemoError(f"only {len(files)} files with a known type were found here, {MIN_FILES} are needed")
    cut = int(len(files) * CALIBRATION_SHARE)
    types = len({file.label for file in files})
    console.print(f"  {len(files)} files of {types} types; {cut} to convert with, {len(files) - cut} to ask about")
    calibration = directory / CALIBRATION_FILE
    np.savez(calibration, files=np.stack([file.features for file in files[:cut]]))
    return Casting(classifier, calibration, tuple(files[cut:]), _original_answers(classifier, files[cut:]))


def _original_answers(classifier: Classifier, files: Sequence[LabelledFile]) -> tuple[str, ...]:
    session = onnxruntime.InferenceSession(str(classifier.model), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    # One by one, as the devices are asked: in a batch the runtime adds in another order, and near-ties may flip.
    scores = [session.run(None, {name: file.features[None]})[0] for file in files]
    return tuple(classifier.labels[int(np.argmax(score))] for score in scores)


def _convert(
    casting: Casting, directory: Path, console: Console, version: str, precisions: tuple[str, ...]
) -> ConversionResult:
    _say(console, f"Converting the model: {MODEL}@{version}, {' and '.join(precisions)}")
    labels = directory / "labels.txt"
    labels.write_text("\n".join(casting.classifier.labels) + "\n", encoding="utf-8")
    options = Options(name=MODEL, version=version, max_drop=MAX_DROP, precisions=precisions, labels=labels)
    with Bars() as bars:
        result = convert(casting.classifier.model, casting.calibration, directory, options, bars)
    manifest = read_manifest(result.directory)
    console.print(f"  {result.packed.name}: {', '.join(variant.id for variant in manifest.variants)}")
    return result


def _say(console: Console, text: str) -> None:
    console.print(f"\n[bold]{text}[/bold]")
