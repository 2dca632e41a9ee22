#!/bin/sh
# found.sh: make a fleet's keys and its first root, metadata/1.root.json: what a device is given to trust.
. "$(dirname "$0")/common.sh"

[ ! -e "$FLEET_DIR" ] || { echo "$FLEET_DIR is there already" >&2 && exit 1; }
mkdir -p "$FLEET_DIR/metadata" "$FLEET_DIR/objects" "$FLEET_DIR/bundles" "$FLEET_DIR/generations"
mkdir -m 700 "$FLEET_DIR/keys"
keys="root-1 root-2 root-3 targets snapshot timestamp director models"
for name in $keys; do
    openssl genpkey -algorithm ed25519 -out "$FLEET_DIR/keys/$name.pem"
done

role() { printf '{"keyids":["%s"],"threshold":1}' "$(keyid "$1")"; }

all=$(for name in $keys; do
    [ "$name" = models ] || printf '"%s":%s\n' "$(keyid "$name")" "$(key "$name")"
done | sort | commas)
{
    printf '{"_type":"root","consistent_snapshot":true,"expires":"%s",' "$(date -u -d '+365 days' +%Y-%m-%dT%H:%M:%SZ)"
    printf '"keys":{%s},"roles":{' "$all"
    printf '"root":{"keyids":["%s","%s","%s"],"threshold":2},' "$(keyid root-1)" "$(keyid root-2)" "$(keyid root-3)"
    printf '"snapshot":%s,"targets":%s,"timestamp":%s},' "$(role snapshot)" "$(role targets)" "$(role timestamp)"
    printf '"spec_version":"%s","version":1,"x-autoglm-director":%s}' "$SPEC_VERSION" "$(role director)"
} | sign_metadata 1.root.json root-1 root-2
echo "give $FLEET_DIR/metadata/1.root.json to the devices"
