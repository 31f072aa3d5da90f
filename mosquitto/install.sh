# Copies what `python -m mosquitto` has made to where the broker of the container reads it. After a change, on the host:
#   docker compose exec mosquitto sh -c "sh /run/fleet/install.sh && kill -HUP 1"
set -e
install -d -o mosquitto -g mosquitto -m 0700 /mosquitto/config
install -o mosquitto -g mosquitto -m 0400 /run/fleet/broker/* /mosquitto/config/
