"""What the doctor reads from the files of real boards."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.fakes import boards
from tests.fakes.boards import Files, write_board

from autoglm_edge_agent.doctor.advice import advise
from autoglm_edge_agent.doctor.examination import System, look
from autoglm_edge_agent.doctor.findings import Ability, Clock, Findings, Runtime
from autoglm_edge_agent.doctor.power import throttled_word
from autoglm_edge_agent.doctor.table import table

LINUX = System("Linux", "aarch64", 4, 1 << 30, 1 << 29)
MAC = System("Darwin", "arm64", 8, 16 << 30, 8 << 30, model="Mac14,2")
WORKING = Runtime(name="litert", version="2.3.0", abilities=(Ability(provider="cpu", works=True),))


def _look(files: Files, tmp_path: Path, system: System = LINUX) -> Findings:
    return look(write_board(files, tmp_path / "board"), system)


def test_a_raspberry_pi_4_on_a_weak_supply(tmp_path: Path) -> None:
    found = _look(boards.PI_4, tmp_path)
    assert (found.board, found.compatible) == (
        "Raspberry Pi 4 Model B Rev 1.4",
        ("raspberrypi,4-model-b", "brcm,bcm2711"),
    )
    assert (found.memory_bytes, found.available_bytes) == (3_884_600 * 1024, 3_311_000 * 1024)
    assert found.clocks == (Clock(cores=(0, 1, 2, 3), now_mhz=600, highest_mhz=1800),)
    assert [(t.part, t.celsius) for t in found.temperatures] == [("cpu-thermal", 83.25)]
    assert found.power.undervoltage_now is True
    assert found.power.now == found.power.since_boot == ("under-voltage", "throttled")
    said = advise(found.model_copy(update={"runtimes": (WORKING,)}))
    assert [line.split(":")[0] for line in said] == [
        "the supply is too weak at this moment",
        "the board slows itself down (under-voltage, throttled)",
        "cpu-thermal has 83 °C",
    ]


def test_a_raspberry_pi_5_whose_kernel_leaves_throttling_to_vcgencmd(tmp_path: Path) -> None:
    system = System("Linux", "aarch64", 4, 1, 1, throttled=throttled_word("throttled=0x80000"))
    found = _look(boards.PI_5, tmp_path, system)
    assert found.board.startswith("Raspberry Pi 5")
    assert (found.power.undervoltage_now, found.power.now) == (False, ())
    assert found.power.since_boot == ("soft temperature limit",)
    assert found.accelerators == ()
    assert throttled_word("") is None


ACCELERATORS: list[tuple[str, Files, str, bool, tuple[str, ...]]] = [
    ("PCIe", boards.PI_5_CORAL_PCIE, "Coral Edge TPU (PCIe)", True, ("litert/edgetpu", "tflite/edgetpu")),
    (
        "no driver",
        boards.PI_5_CORAL_PCIE_NO_DRIVER,
        "Coral Edge TPU (PCIe)",
        False,
        ("litert/edgetpu", "tflite/edgetpu"),
    ),
    ("USB at first", boards.PI_4_CORAL_USB, "Coral Edge TPU (USB)", True, ("litert/edgetpu", "tflite/edgetpu")),
    ("USB, loaded", boards.PI_4_CORAL_USB_LOADED, "Coral Edge TPU (USB)", True, ("litert/edgetpu", "tflite/edgetpu")),
    ("Hailo", boards.PI_5_HAILO, "Hailo-8", True, ()),
    ("Jetson", boards.ORIN_NANO, "Jetson Orin GPU (ga10b)", True, ("onnxruntime/tensorrt", "onnxruntime/cuda")),
]


@pytest.mark.parametrize(
    ("files", "name", "ready", "used_by"), [r[1:] for r in ACCELERATORS], ids=[r[0] for r in ACCELERATORS]
)
def test_accelerators(tmp_path: Path, files: Files, name: str, ready: bool, used_by: tuple[str, ...]) -> None:
    (found,) = _look(files, tmp_path).accelerators
    assert (found.name, found.ready, found.used_by) == (name, ready, used_by)


def test_a_jetson_tells_its_release_its_rails_and_its_load(tmp_path: Path) -> None:
    found = _look(boards.ORIN_NANO, tmp_path)
    assert found.board == "NVIDIA Jetson Orin Nano Developer Kit"
    assert found.compatible[-1] == "l4t-r36.3.0"
    assert found.power.rails_mw == {"VDD_IN": 4876, "VDD_CPU_GPU_CV": 609}
    assert found.accelerators[0].load_percent == 21.5
    assert [t.part for t in found.temperatures] == ["cpu-thermal", "gpu-thermal"], "a PMIC's zone tells nothing"


def test_a_pc_with_two_gpus_of_which_one_has_no_driver(tmp_path: Path) -> None:
    found = _look(boards.X86_64, tmp_path, System("Linux", "x86_64", 8, 1, 1))
    assert (found.board, found.processor) == ("LENOVO 20XW00ABGE", "11th Gen Intel(R) Core(TM) i7-1165G7")
    assert [(a.name, a.ready, a.lacks) for a in found.accelerators] == [
        ("Intel GPU", True, ""),
        ("NVIDIA GPU", False, "NVIDIA's driver"),
    ]


def test_a_mac_has_no_such_files(tmp_path: Path) -> None:
    found = _look(boards.MACOS, tmp_path, MAC)
    assert (found.board, found.memory_bytes, found.clocks, found.temperatures) == ("Mac14,2", 16 << 30, (), ())
    assert found.power.undervoltage_now is None
    assert [a.name for a in found.accelerators] == ["Apple Neural Engine"]


def _runtime(name: str, **abilities: Ability) -> Runtime:
    return Runtime(name=name, version="1", abilities=tuple(abilities.values()))


def test_advice_about_accelerators_and_partial_fall_backs(tmp_path: Path) -> None:
    found = _look(boards.ORIN_NANO, tmp_path)
    cuda = Ability(provider="cuda", works=False, why="no device")
    tensorrt = Ability(provider="tensorrt", works=True, placement={"tensorrt": 3, "cpu": 2})
    said = advise(found.model_copy(update={"runtimes": (_runtime("onnxruntime", a=cuda, b=tensorrt),)}))
    assert said == ("onnxruntime/tensorrt leaves nodes to cpu",)
    said = advise(found.model_copy(update={"runtimes": (_runtime("onnxruntime", a=cuda),)}))
    assert said[0].startswith("no runtime works here")
    assert said[1].endswith("is not used: none of onnxruntime/tensorrt, onnxruntime/cuda works")


@pytest.mark.parametrize(
    "files", [boards.PI_4, boards.PI_5_CORAL_PCIE_NO_DRIVER, boards.PI_5_HAILO, boards.ORIN_NANO, boards.MACOS]
)
def test_the_table_says_all_that_was_found(tmp_path: Path, files: Files) -> None:
    found = _look(files, tmp_path).model_copy(update={"runtimes": (WORKING,), "advice": ("do something",)})
    text = table(found)
    assert found.board in text
    for expected in (*found.power.now, *(a.name for a in found.accelerators), *(t.part for t in found.temperatures)):
        assert expected in text
    assert text.endswith("! do something")


@pytest.mark.parametrize("content", ["", "garbage\n", "\xff\xfe", "99999999999999999999\n"])
def test_files_that_hold_nonsense_are_passed_over(tmp_path: Path, content: str) -> None:
    kinds = (boards.PI_4, boards.PI_5_CORAL_PCIE, boards.ORIN_NANO, boards.X86_64)
    nonsense = dict.fromkeys((path for files in kinds for path in files), content)
    found = _look(nonsense, tmp_path)
    assert (found.memory_bytes, found.power.rails_mw) == (LINUX.memory_bytes, {})
