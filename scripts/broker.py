"""See that the tests find a Mosquitto: install Debian's package as root, else say exactly what to install.

Never fails: without Mosquitto the tests run against the NATS server that pip installs, and say so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"])


def main() -> int:
    """Install Mosquitto where that is possible without asking."""
    if shutil.which("mosquitto", path=PATH):
        return 0
    if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        print("installing the Debian package mosquitto ...", flush=True)
        # Debian starts the service on installation; the tests start brokers of their own on free ports.
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        subprocess.run(["apt-get", "update", "-qq"], check=False, env=environment, stdout=subprocess.DEVNULL)
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "mosquitto"]
        subprocess.run(install, check=False, env=environment, stdout=subprocess.DEVNULL)
        if shutil.which("mosquitto", path=PATH):
            return 0
    print("mosquitto is missing, so the tests run against NATS only: sudo apt install mosquitto", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
