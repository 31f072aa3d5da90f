#!/bin/sh
# Sends one reading over HTTP. 201 means that it is committed. After any status but 2xx and 422, keep it and send it again.
set -eu

curl -sS --fail-with-body --max-time 15 "$FLEET_API_URL/v1/ingest" \
    -H "Authorization: Bearer $FLEET_API_KEY" -H 'Content-Type: application/json' \
    -d '{"meterId": "METER_001", "kwhConsumedAc": 5.10, "voltage": 231.5, "timestamp": "'"$(date -u +%FT%TZ)"'"}'
echo
