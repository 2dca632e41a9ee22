#!/bin/sh
# renew.sh: sign the metadata of everything that is published anew, as one version higher. It lasts for 30 days.
. "$(dirname "$0")/common.sh"

version=$(($(cat "$FLEET_DIR/version" 2>/dev/null || echo 0) + 1))
expires=$(date -u -d '+30 days' +%Y-%m-%dT%H:%M:%SZ)

models=$(for folder in "$FLEET_DIR"/bundles/*/; do basename "$folder"; done | sort)
for model in $models; do
    targets=$(for manifest in "$FLEET_DIR/bundles/$model"/*; do
        bundle_version=$(basename "$manifest")
        printf '"%s/%s/manifest.json":' "$model" "$bundle_version"
        printf '{"custom":{"name":"%s","version":"%s"},' "$model" "$bundle_version"
        printf '"hashes":{"sha256":"%s"},"length":%s}\n' "$(sha256 "$manifest")" "$(size "$manifest")"
    done | sort | commas)
    printf '{"_type":"targets","expires":"%s","spec_version":"%s","targets":{%s},"version":%s}' \
        "$expires" "$SPEC_VERSION" "$targets" "$version" | sign_metadata "$version.model-$model.json" models
done

delegated=$(for model in $models; do
    printf '{"keyids":["%s"],"name":"model-%s","paths":["%s/*/manifest.json"],' "$(keyid models)" "$model" "$model"
    printf '"terminating":true,"threshold":1}\n'
done | commas)
{
    printf '{"_type":"targets","delegations":{"keys":{"%s":%s},"roles":[%s]},' "$(keyid models)" "$(key models)" "$delegated"
    printf '"expires":"%s","spec_version":"%s","targets":{},"version":%s}' "$expires" "$SPEC_VERSION" "$version"
} | sign_metadata "$version.targets.json" targets

meta=$({
    for model in $models; do printf '"model-%s.json":{"version":%s}\n' "$model" "$version"; done
    printf '"targets.json":{"version":%s}\n' "$version"
} | sort | commas)
printf '{"_type":"snapshot","expires":"%s","meta":{%s},"spec_version":"%s","version":%s}' \
    "$expires" "$meta" "$SPEC_VERSION" "$version" | sign_metadata "$version.snapshot.json" snapshot

printf '{"_type":"timestamp","expires":"%s","meta":{"snapshot.json":{"version":%s}},"spec_version":"%s","version":%s}' \
    "$expires" "$version" "$SPEC_VERSION" "$version" | sign_metadata timestamp.json timestamp
echo "$version" >"$FLEET_DIR/version"
echo "signed: version $version of the metadata"
