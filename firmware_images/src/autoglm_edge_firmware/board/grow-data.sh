#!/bin/sh
# Lets the data partition, the last one, reach the end of the card; the file system follows when it is mounted.
# Does nothing where it does so already, and so runs at every boot: also a card that was copied to a larger one grows.
set -eu
number=3
root=$(findmnt --noheadings --output SOURCE /)
disk=$(lsblk --noheadings --nodeps --output PKNAME "$root")
part=
for each in "/sys/block/$disk/$disk"*; do
  [ "$(cat "$each/partition" 2>/dev/null)" != "$number" ] || part=$each
done
[ -n "$part" ] || exit 0
free=$(($(cat "/sys/block/$disk/size") - $(cat "$part/start") - $(cat "$part/size")))
# Less than 4 MiB is what aligning leaves.
[ "$free" -ge 8192 ] || exit 0
# Whoever looks at the partition between the two steps below finds that table and kernel differ, and takes it for gone,
# with what is mounted from it: nobody looks while the disk is locked, and nothing is mounted before all have looked.
udevadm settle --timeout=120 || true
# The table is one sector: written whole or not at all, whenever the power goes.
flock --exclusive "/dev/$disk" sh -c '
  echo ", +" | sfdisk --quiet --force --no-reread --no-tell-kernel -N "$1" "$2"
  partx --update --nr "$1" "$2"
' sh "$number" "/dev/$disk"
udevadm settle --timeout=120 || true
