# Copies the files of `python -m mosquitto` to the directory that the container's broker reads. After a change, run:
#   docker compose exec mosquitto sh -c "sh /run/fleet/install.sh && kill -HUP 1"
set -e
install -d -o mosquitto -g mosquitto -m 0700 /mosquitto/config
install -o mosquitto -g mosquitto -m 0400 /run/fleet/broker/* /mosquitto/config/
