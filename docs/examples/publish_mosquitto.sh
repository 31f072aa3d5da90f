#!/bin/sh
# Sends one reading over MQTT with mosquitto_rr, waits for the receipt and prints it.
set -eu
base="${FLEET_MQTT_URL#mqtt://}"
login="${base%@*}" address="${base##*@}"

mosquitto_rr -V 5 -q 1 -W 10 -h "${address%:*}" -p "${address##*:}" -u "${login%%:*}" -P "${login#*:}" \
    -t fleet/vehicle/EV_002/telemetry -e fleet/vehicle/EV_002/receipt -D publish correlation-data "$$" \
    -m '{"vehicleId": "EV_002", "soc": 72.5, "kwhDeliveredDc": 4.25, "batteryTemp": 38.6, "timestamp": "'"$(date -u +%FT%TZ)"'"}'
