#!/bin/sh
# command.sh NAME: send the device a command, and print its answer. Fails when none comes within a minute.
. "$(dirname "$0")/common.sh"

id=$(openssl rand -hex 8)
now=$(date +%s)
metadata=$(cat "$FLEET_DIR/version")
printf '{"schema_version":1,"command_id":"%s","fleet":"%s","device":"%s","name":"%s","arguments":{},"expires_at":%s,"signed_at":%s}' \
    "$id" "$FLEET" "$DEVICE" "$1" "$((now + 3600))" "$now" |
    signed_message application/vnd.autoglm-edge.command.v1+json 1.root.json timestamp.json \
        "$metadata.snapshot.json" "$metadata.targets.json" >"$scratch/message"

# Answers are not retained: the broker is to keep them in a session that exists before the command is sent.
session=shell-fleet-$id
# shellcheck disable=SC2086
session() { mosquitto_sub -h "$BROKER_HOST" -p "$BROKER_PORT" $MQTT_OPTIONS -i "$session" -q 1 -t "$TOPIC/$DEVICE/answer" "$@"; }
session -c -E
pub -q 1 -t "$TOPIC/$DEVICE/command" -f "$scratch/message"
listen -i "$session" -c -q 1 -t "$TOPIC/$DEVICE/answer" -F %p -W 60
answered=1
while read -r answer; do
    [ "$(printf %s "$answer" | text command_id)" = "$id" ] || continue
    printf '%s\n' "$answer"
    answered=0
    break
done <"$scratch/messages"
kill "$listener" 2>/dev/null || true
session -E # a clean session of the same name ends the kept one
exit "$answered"
