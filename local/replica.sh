# PostgreSQL as a streaming replica, in the container of docker-compose.yml: copies the primary unless that was done, and
# starts the server with the options that are given. The same as local/replica.py.
#   sh replica.sh PASSWORD_FILE OPTION...      with PGHOST, PGUSER and PGDATA as PostgreSQL's programs take them
set -eu
password_file="$1"
shift
umask 077
mkdir -p "$PGDATA"
chown postgres "$PGDATA"
passfile="$(mktemp)"
printf '*:*:*:%s:%s\n' "$PGUSER" "$(cat "$password_file")" > "$passfile"
chown postgres "$passfile"
export PGPASSFILE="$passfile"
if [ ! -e "$PGDATA/PG_VERSION" ]; then
    rm -rf "$PGDATA.new"
    mkdir "$PGDATA.new"
    chown postgres "$PGDATA.new"
    gosu postgres pg_basebackup --checkpoint=fast -X stream -D "$PGDATA.new"
    gosu postgres touch "$PGDATA.new/standby.signal"
    rmdir "$PGDATA"
    mv "$PGDATA.new" "$PGDATA"
fi
exec gosu postgres postgres "-cprimary_conninfo=host=$PGHOST user=$PGUSER passfile=$passfile" "$@"
