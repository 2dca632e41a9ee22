#!/bin/sh
# publish.sh NAME VERSION BUNDLE: take a bundle, packed or a folder, into the repository and sign for it.
. "$(dirname "$0")/common.sh"

name=$1 version=$2 bundle=$3
if [ -f "$bundle" ]; then
    mkdir "$scratch/bundle"
    tar -xf "$bundle" -C "$scratch/bundle"
    bundle=$scratch/bundle
fi
find "$bundle" -type f >"$scratch/files"
while read -r file; do keep "$file"; done <"$scratch/files"
mkdir -p "$FLEET_DIR/bundles/$name"
cp "$bundle/manifest.json" "$FLEET_DIR/bundles/$name/$version"
"$(dirname "$0")/renew.sh"
