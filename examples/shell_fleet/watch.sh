#!/bin/sh
# watch.sh: show how the device gets on with what it was last told to run, until it has confirmed it (0) or not (1).
. "$(dirname "$0")/common.sh"

wanted=$(cat "$FLEET_DIR/generations/$DEVICE")
listen -q 1 -t "$TOPIC/$DEVICE/reported" -F %p
while read -r report; do
    deployment=$(printf %s "$report" | sed 's/.*"deployment": *{//')
    generation=$(printf %s "$deployment" | number generation)
    [ "$generation" = "$wanted" ] || continue
    phase=$(printf %s "$deployment" | text phase)
    fetched=$(printf %s "$deployment" | number fetched_bytes)
    total=$(printf %s "$deployment" | number total_bytes)
    echo "generation $generation: $phase, $fetched of $total bytes fetched"
    case $phase in
    confirmed) exit 0 ;;
    failed)
        printf %s "$deployment" | grep -o '"reason": *{[^}]*}' || true
        exit 1
        ;;
    esac
done <"$scratch/messages"
echo "the connection to the broker ended" >&2
exit 1
