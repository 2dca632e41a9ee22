#!/bin/sh
# Installs what lies in the folder FOLDER: the agent's package, the board's name, the way into a wireless network.
# Every step may be done again; what is done is removed from the folder, the package last.
set -eu
folder=${1:?usage: install.sh FOLDER}
root=${AUTOGLM_EDGE_ROOT:-}

say() { echo "autoglm-edge: $*"; }

# The board's own name: what it is called, and its serial number, or else the number of this installation.
name_board() {
  [ -s "$folder/name-prefix" ] || return 0
  serial=
  [ ! -r "$root/proc/device-tree/serial-number" ] ||
    serial=$(tr -dc '0-9a-zA-Z' <"$root/proc/device-tree/serial-number")
  [ -n "$serial" ] || serial=$(tr -dc '0-9a-f' <"$root/etc/machine-id" | cut -c1-8)
  name="$(tr -dc '0-9a-zA-Z-' <"$folder/name-prefix")-$(printf %s "$serial" | tail -c 8)"
  echo "$name" >"$root/etc/hostname"
  if grep -q '^127\.0\.1\.1' "$root/etc/hosts" 2>/dev/null; then
    sed -i "s/^127\.0\.1\.1.*/127.0.1.1\t$name/" "$root/etc/hosts"
  else
    printf '127.0.1.1\t%s\n' "$name" >>"$root/etc/hosts"
  fi
  [ -n "$root" ] || echo "$name" >/proc/sys/kernel/hostname
  rm -f "$folder/name-prefix"
  say "this board is $name"
}

put_secret() { # FROM TO
  (umask 077 && cp "$1" "$2.new" && chmod 0600 "$2.new" && mv -f "$2.new" "$2")
}

join_network() {
  [ -d "$folder/wifi" ] || return 0
  if [ -d "$root/etc/NetworkManager/system-connections" ]; then
    put_secret "$folder/wifi/autoglm-edge.nmconnection" \
      "$root/etc/NetworkManager/system-connections/autoglm-edge.nmconnection"
    [ -n "$root" ] || nmcli connection reload || true
  elif [ -d "$root/etc/netplan" ]; then
    put_secret "$folder/wifi/netplan.yaml" "$root/etc/netplan/90-autoglm-edge.yaml"
    [ -n "$root" ] || netplan apply || true
  elif [ -d "$root/etc/wpa_supplicant" ]; then
    put_secret "$folder/wifi/wpa_supplicant.conf" "$root/etc/wpa_supplicant/wpa_supplicant-wlan0.conf"
    [ -n "$root" ] || systemctl enable --now wpa_supplicant@wlan0.service || true
  else
    say "nothing here joins wireless networks"
    return 0
  fi
  country=$(cat "$folder/wifi/country" 2>/dev/null || true)
  if [ -z "$root" ]; then
    [ -z "$country" ] || ! command -v raspi-config >/dev/null || raspi-config nonint do_wifi_country "$country" || true
    ! command -v rfkill >/dev/null || rfkill unblock wifi || true
  fi
  rm -rf "$folder/wifi"
}

install_package() { # DEB
  if [ -n "$root" ]; then
    dpkg --root="$root" --install "$1"
  else
    # The network is asked only where the card lacks what the package needs.
    DEBIAN_FRONTEND=noninteractive dpkg --install --force-confold "$1" ||
      DEBIAN_FRONTEND=noninteractive apt-get --yes --no-install-recommends install "$1"
  fi
}

name_board
join_network
for package in "$folder"/*.deb; do
  [ -e "$package" ] || continue
  install_package "$package"
  rm -f "$package"
done
if [ -n "$root" ]; then
  systemctl --root="$root" disable autoglm-edge-install.service
else
  systemctl disable autoglm-edge-install.service
  # Ends by itself where there is no claim, or an identity already.
  systemctl start --no-block autoglm-edge-enrol.service autoglm-edge-agent.service || true
fi
say "installed"
