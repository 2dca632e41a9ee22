#!/bin/sh
# deploy.sh NAME VERSION: tell the device to run a published bundle.
. "$(dirname "$0")/common.sh"

name=$1 version=$2
manifest=$FLEET_DIR/bundles/$name/$version
generation=$(($(cat "$FLEET_DIR/generations/$DEVICE" 2>/dev/null || echo 0) + 1))
metadata=$(cat "$FLEET_DIR/version")
now=$(date +%s)
{
    printf '{"schema_version":1,"fleet":"%s","device":"%s","generation":%s,' "$FLEET" "$DEVICE" "$generation"
    printf '"bundle":{"name":"%s","version":"%s",' "$name" "$version"
    printf '"manifest_sha256":"%s","manifest_size_bytes":%s},' "$(sha256 "$manifest")" "$(size "$manifest")"
    printf '"issued_at":%s,"signed_at":%s,"expires_at":%s}' "$now" "$now" "$((now + 90 * 24 * 3600))"
} | signed_message application/vnd.autoglm-edge.desired-state.v1+json 1.root.json timestamp.json \
    "$metadata.snapshot.json" "$metadata.targets.json" "$metadata.model-$name.json" >"$scratch/message"
echo "$generation" >"$FLEET_DIR/generations/$DEVICE"
pub -q 1 -r -t "$TOPIC/$DEVICE/desired" -f "$scratch/message"
echo "generation $generation: $DEVICE is to run $name $version"
