#!/bin/sh
# Installs or upgrades the agent on a running board from the folder that this script lies in, such as a USB stick, without
# a network. Run again it changes nothing; the model that serves now serves on.
#
#   sudo sh install.sh [--config FILE] [--client USER]... [FOLDER]
#   sudo sh install.sh --remove | --purge
#
# FOLDER holds autoglm-edge-agent_VERSION_ARCH.deb, of several architectures and versions if need be, and, for a board
# that is to enrol, claim.json; or a folder claims/ of which each board takes one away.
set -eu

etc=/etc/autoglm-edge
identity=/var/lib/autoglm-edge/identity/identity.json
name=autoglm-edge-agent

fail() {
  echo "install.sh: $1" >&2
  exit 1
}

package_for() {
  best="" best_version=""
  for candidate in "$1/$name"_*_"$2".deb; do
    [ -f "$candidate" ] || continue
    version=$(dpkg-deb --field "$candidate" Version 2>/dev/null) || fail "$candidate is damaged; copy it again"
    if [ -z "$best" ] || dpkg --compare-versions "$version" gt "$best_version"; then
      best=$candidate best_version=$version
    fi
  done
  [ -n "$best" ] || fail "$1 has no package for $2; make one with: autoglm-edge flash package --arch $2"
}

is_met() {
  # One alternative of a dependency, such as: python3 (>= 3.11)
  set -- $1
  has=$(dpkg-query --show --showformat '${db:Status-Status} ${Version}' "$1" 2>/dev/null) || return 1
  [ "${has%% *}" = installed ] || return 1
  [ $# = 1 ] || dpkg --compare-versions "${has#* }" "${2#(}" "${3%)}"
}

unmet() {
  # What the package depends on and the board has not.
  dpkg-deb --field "$1" Depends | tr ',' '\n' | while read -r group; do
    met=no
    rest="$group|"
    while [ -n "$rest" ]; do
      if is_met "${rest%%|*}"; then met=yes; fi
      rest=${rest#*|}
    done
    [ "$met" = yes ] || echo "$group"
  done | paste -sd, - | sed 's/,/, /g'
}

check_space() {
  needed_kib=$(dpkg-deb --field "$1" Installed-Size)
  free_kib=$(df -Pk /opt 2>/dev/null | { read -r _ && read -r _ _ _ free _ && echo "$free"; } || true)
  [ -z "$free_kib" ] || [ "$free_kib" -gt $((needed_kib * 5 / 4)) ] ||
    fail "/opt has $((free_kib / 1024)) MB free and needs $((needed_kib * 5 / 4096)) MB; nothing was changed"
}

install_package() {
  installed=$(dpkg-query --show --showformat '${db:Status-Status} ${Version}' "$name" 2>/dev/null || true)
  if [ "$installed" = "installed $best_version" ]; then
    echo "$name $best_version is installed already"
    return
  fi
  case $installed in
    "installed "*)
      dpkg --compare-versions "${installed#* }" lt "$best_version" ||
        fail "$name ${installed#* } is installed, newer than $best_version here; remove it first to go back" ;;
  esac
  check_space "$best"
  # Both before anything is changed: dpkg would leave the new package unconfigured, and the old one gone.
  lacks=$(unmet "$best")
  [ -z "$lacks" ] || fail "the board lacks $lacks; install that, or make a package for its Python; nothing was changed"
  dpkg-deb --contents "$best" >/dev/null 2>&1 || fail "$best is damaged; copy it again; nothing was changed"
  dpkg --force-confold --install "$best" >/dev/null
  echo "$name $best_version is installed"
}

keep_private() {
  # Written beside and moved, so that no half of it is ever there.
  install -m "$3" -o root -g root "$1" "$2.new"
  mv "$2.new" "$2"
}

take_claim() {
  if [ -f "$1/claim.json" ]; then
    found=$1/claim.json
  else
    found=$(find "$1/claims" -maxdepth 1 -name '*.json' 2>/dev/null | sort | head -n 1)
  fi
  [ -n "$found" ] || return 0
  if [ -e "$identity" ]; then
    echo "this board is a device already; $found is left for another"
    return 0
  fi
  [ ! -e "$etc/claim.json" ] || return 0
  keep_private "$found" "$etc/claim.json" 0600
  sync
  case $found in "$1/claims/"*) rm -f "$found" ;; esac
  echo "the board enrols with $found"
}

action=install folder=$(dirname "$0") config="" clients=""
while [ $# -gt 0 ]; do
  case $1 in
    --remove | --purge) action=${1#--} ;;
    --config) config=${2:?--config needs a file}; shift ;;
    --client) clients="$clients ${2:?--client needs a user}"; shift ;;
    -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) fail "unknown option $1; see --help" ;;
    *) folder=$1 ;;
  esac
  shift
done

[ "$(id -u)" = 0 ] || fail "it needs root: sudo sh $0"
command -v dpkg >/dev/null || fail "this is no Debian, Raspberry Pi OS or Ubuntu: there is no dpkg"

if [ "$action" != install ]; then
  dpkg-query --show "$name" >/dev/null 2>&1 || { echo "$name is not installed"; exit 0; }
  dpkg "--$action" "$name"
  exit 0
fi

[ -d "$folder" ] || fail "$folder is no folder"
[ -z "$config" ] || [ -f "$config" ] || fail "$config is no file"
for client in $clients; do
  id "$client" >/dev/null 2>&1 || fail "there is no user $client"
done
package_for "$folder" "$(dpkg --print-architecture)"
install_package
if [ -n "$config" ]; then
  keep_private "$config" "$etc/agent.toml" 0644
  touch "$etc/configured-by-hand"
fi
for client in $clients; do usermod -a -G autoglm-edge-clients "$client"; done
[ -n "$config" ] || take_claim "$folder"
if [ -d /run/systemd/system ]; then
  if [ -e "$etc/claim.json" ]; then systemctl start --no-block autoglm-edge-enrol.service; fi
  if [ -n "$config" ]; then systemctl restart autoglm-edge-agent.service; fi
fi
