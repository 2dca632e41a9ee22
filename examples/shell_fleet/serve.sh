#!/bin/sh
# serve.sh: send the devices of the fleet the blocks that they ask for, until it is stopped.
. "$(dirname "$0")/common.sh"

refuse() { # refuse DEVICE REQUEST_ID SHA256 CODE MESSAGE
    pub -q 1 -t "$TOPIC/$1/refusal" -m "$(printf \
        '{"schema_version":1,"request_id":%s,"sha256":"%s","reason":{"code":"%s","message":"%s"}}' "$2" "$3" "$4" "$5")"
    echo "$1: refused $3: $5 ($4)"
}

answer() { # answer DEVICE REQUEST
    id=$(printf %s "$2" | number request_id)
    sha256=$(printf %s "$2" | text sha256)
    block_bytes=$(printf %s "$2" | number block_bytes)
    ranges=$(printf %s "$2" | tr -d ' ' | grep -o '"ranges":\[\(,\{0,1\}\[[0-9]*,[0-9]*\]\)*\]' | grep -o '[0-9][0-9]*,[0-9][0-9]*')
    # The digest becomes a file name: it must be one.
    printf %s "$sha256" | grep -qx '[0-9a-f]\{64\}' && [ "$id" ] && [ "$block_bytes" ] && [ "$ranges" ] || return 0
    file=$FLEET_DIR/objects/$sha256
    [ -f "$file" ] || { refuse "$1" "$id" "$sha256" not-found "no published bundle has this file" && return 0; }
    bytes=$(size "$file")
    for range in $ranges; do
        block=${range%,*} end=$((${range%,*} + ${range#*,}))
        [ $(((end - 1) * block_bytes)) -lt "$bytes" ] ||
            { refuse "$1" "$id" "$sha256" out-of-range "the file has $bytes bytes" && return 0; }
    done
    for range in $ranges; do
        block=${range%,*} end=$((${range%,*} + ${range#*,}))
        while [ "$block" -lt "$end" ]; do
            dd if="$file" bs="$block_bytes" skip="$block" count=1 status=none |
                pub -q 0 -t "$TOPIC/$1/block/$sha256/$((block * block_bytes))" -s
            block=$((block + 1))
        done
        echo "$1: blocks $range of $sha256 ($block_bytes bytes each)"
    done
}

listen -q 0 -t "$TOPIC/+/fetch" -F '%t %p'
while read -r topic request; do
    device=${topic%/fetch}
    # In a shell of its own, which a malformed number may end.
    (answer "${device##*/}" "$request") || echo "a request could not be answered: $request" >&2
done <"$scratch/messages"
