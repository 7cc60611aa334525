#!/bin/sh
# Makes the stack's secrets, once, in the volume at /run/fmops: an existing one is kept. Nothing is printed.
# Runs as root in the redis image, which every start needs anyway. Each file is readable by the one user that needs it:
# root (the postgres image reads its file before it drops to postgres), redis, or airflow (uid 50000).
set -eu
umask 077
cd /run/fmops
chmod 0755 .
airflow=50000:0

# keep FILE OWNER: standard input becomes FILE by a rename, so that an interrupted start leaves no half-written secret.
keep() {
  cat >"$1.new"
  chown "$2" "$1.new"
  mv "$1.new" "$1"
}
hex() { head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }

[ -s fernet_key ] || head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n' | keep fernet_key "$airflow"
for name in api_secret_key jwt_secret admin_password; do
  [ -s "$name" ] || hex | keep "$name" "$airflow"
done
for name in postgres_password redis_password; do
  [ -s "$name" ] || hex | keep "$name" 0:0
done

# The same passwords in the form that each reader takes.
printf 'postgresql+psycopg2://airflow:%s@postgres/airflow' "$(cat postgres_password)" | keep sql_alchemy_conn "$airflow"
printf 'redis://:%s@redis:6379/0' "$(cat redis_password)" | keep broker_url "$airflow"
printf 'requirepass %s\ndir /data\nappendonly yes\n' "$(cat redis_password)" | keep redis.conf redis:redis

chown redis:redis /data
