#!/bin/sh
# Run after a kernel or its initramfs was installed: the newest one is what the boot partition holds, under fixed names.
set -eu
kernel=$(ls /boot/vmlinuz-* | sort -V | tail -n 1)
initrd="/boot/initrd.img-${kernel#/boot/vmlinuz-}"
[ -e "$initrd" ] || exit 0
for pair in "$kernel:vmlinuz" "$initrd:initrd.img"; do
  target="/boot/firmware/${pair##*:}"
  # Beside it first: FAT has no journal, and the board must find one of the two whole.
  cp "${pair%:*}" "$target.new"
  sync "$target.new" 2>/dev/null || true
  mv -f "$target.new" "$target"
done
