"""See that the tests find a Mosquitto, its clients, and SoftHSM: install Debian's packages as root, else say which.

Never fails: without Mosquitto the tests run against the NATS server that pip installs, and say so. The test of a fleet
in shell needs both, and that of keys in a module needs SoftHSM; each says so, too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"])


PACKAGES = {
    "mosquitto": "mosquitto",
    "mosquitto_pub": "mosquitto-clients",
    "mosquitto_sub": "mosquitto-clients",
    "softhsm2-util": "softhsm2",
}
"""Program -> the Debian package that has it."""


def missing() -> list[str]:
    """Return the packages whose programs are not there."""
    return sorted({package for program, package in PACKAGES.items() if not shutil.which(program, path=PATH)})


def main() -> int:
    """Install what is missing where that is possible without asking."""
    packages = missing()
    if packages and hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"installing the Debian packages {' '.join(packages)} ...", flush=True)
        # Debian starts the service on installation; the tests start brokers of their own on free ports.
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        subprocess.run(["apt-get", "update", "-qq"], check=False, env=environment, stdout=subprocess.DEVNULL)
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
        subprocess.run(install, check=False, env=environment, stdout=subprocess.DEVNULL)
        packages = missing()
    if packages:
        print(f"missing for the tests: sudo apt install {' '.join(packages)}", file=sys.stderr)
    if "mosquitto" in packages:
        print("without mosquitto they run against NATS only", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
