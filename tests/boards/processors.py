"""What the oldest boards' kernels say of their processors: what a runtime reads before it chooses its kernels."""

from __future__ import annotations

from tests.fakes.boards import PI_4, Files

CORTEX_A72 = 0xD08


def _cpuinfo(part: int, features: str, cores: int, architecture: int) -> str:
    core = (
        "processor\t: {number}\nBogoMIPS\t: 108.00\n"
        f"Features\t: {features}\nCPU implementer\t: 0x41\nCPU architecture: {architecture}\n"
        f"CPU variant\t: 0x0\nCPU part\t: {part:#05x}\nCPU revision\t: 3\n\n"
    )
    board = "Hardware\t: BCM2835\nRevision\t: c03111\nSerial\t\t: 10000000deadbeef\nModel\t\t: Raspberry Pi 4 Model B\n"
    return "".join(core.format(number=number) for number in range(cores)) + board


def _processors(part: int, cores: int) -> dict[str, str]:
    folder = "sys/devices/system/cpu"
    listed = f"0-{cores - 1}\n"
    midr = 0x410F0003 | part << 4
    files = {f"{folder}/{name}": listed for name in ("possible", "present", "online")}
    for core in range(cores):
        files[f"{folder}/cpu{core}/topology/core_id"] = f"{core}\n"
        files[f"{folder}/cpu{core}/topology/physical_package_id"] = "0\n"
        files[f"{folder}/cpu{core}/regs/identification/midr_el1"] = f"{midr:#018x}\n"
    return files


PI_4_64: Files = {
    **PI_4,
    "proc/cpuinfo": _cpuinfo(CORTEX_A72, "fp asimd evtstrm crc32 cpuid", 4, 8),
    **_processors(CORTEX_A72, 4),
}
PI_4_32: Files = {
    **PI_4,
    "proc/cpuinfo": _cpuinfo(
        CORTEX_A72, "half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm crc32", 4, 7
    ),
    **_processors(CORTEX_A72, 4),
}
