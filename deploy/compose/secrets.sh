#!/bin/sh
# Makes what the fleet must know and nobody else: the database's password, its URL, the master key. Never overwrites: a
# database whose master key is lost can sign nothing.
set -eu
folder="$(dirname "$0")/secrets"
mkdir -p "$folder" && chmod 700 "$folder"
cd "$folder"
for name in postgres_password database_url master_key; do
    [ ! -e "$name" ] || { echo "secrets.sh: $folder/$name is there already; nothing was changed" >&2; exit 1; }
done
# Compose mounts the files as they are, and the containers' users are others than yours: the folder keeps them to you.
umask 022
openssl rand -hex 24 >postgres_password
printf 'postgresql://fastauth:%s@postgres:5432/fastauth\n' "$(cat postgres_password)" >database_url
openssl rand -base64 32 >master_key
