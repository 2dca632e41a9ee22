# Sourced by the other scripts: where everything is, and what all of them do. POSIX sh, GNU coreutils, grep and sed.
set -eu
export LC_ALL=C # sort by code points, as canonical JSON wants it

: "${FLEET_DIR:=shell-fleet}" "${FLEET:=home}" "${DEVICE:=porch}"
: "${BROKER_HOST:=localhost}" "${BROKER_PORT:=1883}"
# More options of mosquitto_pub and mosquitto_sub, for TLS and passwords: "--cafile ca.pem -u fleet -P secret"
: "${MQTT_OPTIONS:=}"

TOPIC=autoglm/v1/$FLEET
SPEC_VERSION=1.0.31

scratch=$(mktemp -d)
listener=
clean_up() {
    [ -z "$listener" ] || kill "$listener" 2>/dev/null || true
    rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

# The options are several words.
# shellcheck disable=SC2086
pub() { mosquitto_pub -h "$BROKER_HOST" -p "$BROKER_PORT" $MQTT_OPTIONS "$@"; }

# listen OPTION...: mosquitto_sub in the background, one message a line in $scratch/messages, until this script ends.
# shellcheck disable=SC2086
listen() {
    mkfifo "$scratch/messages"
    mosquitto_sub -h "$BROKER_HOST" -p "$BROKER_PORT" $MQTT_OPTIONS "$@" >"$scratch/messages" &
    listener=$!
}

# number NAME, text NAME: the first field of that name in the JSON on standard input, or nothing. Enough for what is
# read here; it is no JSON parser.
number() { grep -o "\"$1\": *[0-9][0-9]*" | head -n 1 | sed 's/.*: *//'; }
text() { grep -o "\"$1\": *\"[^\"]*\"" | head -n 1 | sed 's/^[^:]*: *"//; s/"$//'; }

hex() { od -An -v -tx1 | tr -d ' \n'; }
sha256() { sha256sum "$1" | cut -d ' ' -f 1; }
size() { wc -c <"$1" | tr -d ' '; }
commas() { paste -s -d , -; }

# key NAME, keyid NAME: the public key in TUF's format, which is canonical JSON, and the SHA-256 of that.
key() {
    # The DER form of an Ed25519 public key ends with its 32 bytes.
    public=$(openssl pkey -in "$FLEET_DIR/keys/$1.pem" -pubout -outform DER | tail -c 32 | hex)
    printf '{"keytype":"ed25519","keyval":{"public":"%s"},"scheme":"ed25519"}' "$public"
}
keyid() { key "$1" | sha256sum | cut -d ' ' -f 1; }

# signature NAME FILE: the 64 bytes of an Ed25519 signature over the bytes of a file (a pipe will not do).
signature() { openssl pkeyutl -sign -rawin -inkey "$FLEET_DIR/keys/$1.pem" -in "$2"; }

# keep FILE: let devices fetch this file by its digest.
keep() { cp "$1" "$FLEET_DIR/objects/$(sha256 "$1")"; }

# sign_metadata FILE_NAME KEY...: the canonical JSON on standard input becomes a signed metadata file.
sign_metadata() {
    file=$1
    shift
    cat >"$scratch/signed"
    signatures=$(for each in "$@"; do
        printf '{"keyid":"%s","sig":"%s"}\n' "$(keyid "$each")" "$(signature "$each" "$scratch/signed" | hex)"
    done | commas)
    printf '{"signatures":[%s],"signed":%s}' "$signatures" "$(cat "$scratch/signed")" >"$FLEET_DIR/metadata/$file"
    keep "$FLEET_DIR/metadata/$file"
}

# signed_message PAYLOAD_TYPE METADATA_FILE...: the document on standard input in an envelope, with a catalogue.
signed_message() {
    type=$1
    shift
    cat >"$scratch/payload"
    { printf 'DSSEv1 %s %s %s ' "${#type}" "$type" "$(size "$scratch/payload")" && cat "$scratch/payload"; } >"$scratch/pae"
    catalogue=$(for each in "$@"; do
        path=$FLEET_DIR/metadata/$each
        printf '"%s":{"sha256":"%s","size_bytes":%s}\n' "$each" "$(sha256 "$path")" "$(size "$path")"
    done | commas)
    printf '{"schema_version":1,"envelope":{"payloadType":"%s","payload":"%s",' "$type" "$(openssl base64 -A <"$scratch/payload")"
    printf '"signatures":[{"keyid":"%s","sig":"%s"}]},' "$(keyid director)" "$(signature director "$scratch/pae" | openssl base64 -A)"
    printf '"catalogue":{%s}}' "$catalogue"
}
