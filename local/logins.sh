# The containers' logins, with the passwords of the secrets directory, set at every start.
# The same as `LOGINS` in local/postgres.py, for psql; a test compares the two.
#   sh logins.sh DIRECTORY      with PGHOST, PGUSER and PGDATABASE as psql takes them, and login.sql beside this file
set -eu
PGPASSWORD="$(cat "$1/postgres_password")"
export PGPASSWORD

login() {
    FLEET_LOGIN_PASSWORD="$(cat "$secrets/postgres_password_$1")" \
        psql -Xq -v "role=$1" -v "groups=$2" -f "$here/login.sql"
}

secrets="$1" here="$(dirname "$0")"
login bridge fleet_writer
login api fleet_writer,fleet_reader,fleet_api
