#!/bin/sh
# Put onto the boot partition of a card, and run once by whatever the system runs at its first boot: firstrun.sh,
# cloud-init or rpi-preseed. All it does is quick; the work is done by the unit, as often as it takes.
# usage: begin.sh [now]
set -eu
root=${AUTOGLM_EDGE_ROOT:-}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$root/usr/local/lib/autoglm-edge-install" "$root/etc/systemd/system"
cp "$here/install.sh" "$root/usr/local/lib/autoglm-edge-install/install.sh"
sed "s|@FOLDER@|$here|" "$here/autoglm-edge-install.service" >"$root/etc/systemd/system/autoglm-edge-install.service"
chmod 0755 "$root/usr/local/lib/autoglm-edge-install/install.sh"
chmod 0644 "$root/etc/systemd/system/autoglm-edge-install.service"
if [ -n "$root" ]; then
  systemctl --root="$root" enable autoglm-edge-install.service
  exit 0
fi
systemctl daemon-reload
systemctl enable autoglm-edge-install.service
# Not from firstrun.sh, which ends in a restart of the board: the unit is then started by the next boot.
[ "${1:-}" != now ] || systemctl start --no-block autoglm-edge-install.service
