"""The files of real boards, as their kernels write them, in a folder: what the doctor reads below a root."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

Files = Mapping[str, str]


def _cores(count: int, now_khz: int, top_khz: int) -> dict[str, str]:
    folder = "sys/devices/system/cpu/cpu{}/cpufreq/{}"
    return {
        folder.format(core, name): f"{value}\n"
        for core in range(count)
        for name, value in (("scaling_cur_freq", now_khz), ("cpuinfo_max_freq", top_khz))
    }


def _memory(total_kb: int, available_kb: int) -> dict[str, str]:
    text = f"MemTotal:        {total_kb} kB\nMemFree:          123456 kB\nMemAvailable:    {available_kb} kB\n"
    return {"proc/meminfo": text}


def _zone(number: int, kind: str, millidegrees: int) -> dict[str, str]:
    folder = f"sys/devices/virtual/thermal/thermal_zone{number}"
    return {f"{folder}/type": f"{kind}\n", f"{folder}/temp": f"{millidegrees}\n"}


def _pci(address: str, vendor: int, device: int, kind: int) -> dict[str, str]:
    folder = f"sys/bus/pci/devices/{address}"
    return {
        f"{folder}/vendor": f"0x{vendor:04x}\n",
        f"{folder}/device": f"0x{device:04x}\n",
        f"{folder}/class": f"0x{kind:06x}\n",
    }


def _usb(port: str, vendor: str, product: str) -> dict[str, str]:
    return {
        f"sys/bus/usb/devices/{port}/idVendor": f"{vendor}\n",
        f"sys/bus/usb/devices/{port}/idProduct": f"{product}\n",
    }


PI_4: Files = {
    "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
    "proc/device-tree/compatible": "raspberrypi,4-model-b\0brcm,bcm2711\0",
    "sys/class/hwmon/hwmon0/name": "cpu_thermal\n",
    "sys/class/hwmon/hwmon1/name": "rpi_volt\n",
    "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
    **_cores(4, 600_000, 1_800_000),
    **_memory(3_884_600, 3_311_000),
    **_zone(0, "cpu-thermal", 83_250),
}

PI_5: Files = {
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0",
    "sys/class/hwmon/hwmon2/name": "rpi_volt\n",
    "sys/class/hwmon/hwmon2/in0_lcrit_alarm": "0\n",
    **_cores(4, 1_500_000, 2_400_000),
    **_memory(8_254_000, 7_600_000),
    **_zone(0, "cpu-thermal", 51_800),
    **_pci("0000:00:00.0", 0x14E4, 0x2712, 0x060400),
}

PI_5_CORAL_PCIE: Files = {
    **PI_5,
    **_pci("0000:01:00.0", 0x1AC1, 0x089A, 0x0880FF),
    "dev/apex_0": "",
}
PI_5_CORAL_PCIE_NO_DRIVER: Files = {**PI_5, **_pci("0000:01:00.0", 0x1AC1, 0x089A, 0x0880FF)}
PI_4_CORAL_USB: Files = {**PI_4, **_usb("1-1", "2109", "3431"), **_usb("2-1", "1a6e", "089a")}
PI_4_CORAL_USB_LOADED: Files = {**PI_4, **_usb("2-1", "18d1", "9302")}
PI_5_HAILO: Files = {**PI_5, **_pci("0001:01:00.0", 0x1E60, 0x2864, 0x120000), "dev/hailo0": ""}

_INA = "sys/bus/i2c/devices/1-0040/hwmon/hwmon1"
_GPU = "sys/class/devfreq/17000000.ga10b"
ORIN_NANO: Files = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 3.0, GCID: 36923193, BOARD: generic, EABI: aarch64\n",
    f"{_GPU}/device/load": "215\n",
    f"{_INA}/name": "ina3221\n",
    f"{_INA}/in1_label": "VDD_IN\n",
    f"{_INA}/in1_input": "5080\n",
    f"{_INA}/curr1_input": "960\n",
    f"{_INA}/in2_label": "VDD_CPU_GPU_CV\n",
    f"{_INA}/in2_input": "5080\n",
    f"{_INA}/curr2_input": "120\n",
    **_cores(6, 729_600, 1_510_400),
    **_memory(7_816_000, 5_900_000),
    **_zone(0, "cpu-thermal", 47_500),
    **_zone(1, "gpu-thermal", 45_900),
    **_zone(9, "PMIC-Die", 100_000),
}

X86_64: Files = {
    "sys/class/dmi/id/sys_vendor": "LENOVO\n",
    "sys/class/dmi/id/product_name": "20XW00ABGE\n",
    "proc/cpuinfo": "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: 11th Gen Intel(R) Core(TM) i7-1165G7\n",
    "dev/dri/renderD128": "",
    **_pci("0000:00:02.0", 0x8086, 0x9A49, 0x030000),
    **_pci("0000:01:00.0", 0x10DE, 0x25A0, 0x030200),
    **_cores(8, 2_800_000, 4_700_000),
    **_memory(16_100_000, 9_000_000),
    **_zone(0, "x86_pkg_temp", 61_000),
}

MACOS: Files = {}
"""It has no such files."""


def write_board(files: Files, root: Path) -> Path:
    """Write the files below `root`; returns it."""
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root
