#!/bin/sh
# Every file of deploy/ by the linter of what reads it. Traefik has none: the suite runs it. Docker is not needed.
# yamllint, check-jsonschema, kubernetes-validate, hadolint and envoy are in the extras "test" and "dev".
set -eu
cd "$(dirname "$0")"
PATH="$PATH:/usr/sbin:/sbin"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

check() { # the name of a program, and the command
    name="$1" && shift
    if ! command -v "$name" >/dev/null; then
        echo "deploy/check.sh: $name is not installed, so it checked nothing" >&2
        [ "${CI:-}" != true ] || exit 1
        return 0
    fi
    "$@" >"$work/out" 2>&1 || { cat "$work/out" >&2 && echo "deploy/check.sh: refused by $name" >&2 && exit 1; }
    echo "deploy: $name"
}

for script in check.sh compose/secrets.sh; do check sh sh -n "$script"; done
check yamllint yamllint --strict -c .yamllint .
check check-jsonschema check-jsonschema --builtin-schema vendor.compose-spec compose/embedded.yaml compose/fleet.yaml
check kubernetes-validate kubernetes-validate --strict kubernetes/*.yaml
check hadolint hadolint Dockerfile
check envoy envoy --mode validate --log-level warning -c envoy/envoy.yaml

LUA_FOLDER="$PWD/haproxy" check haproxy haproxy -c -f haproxy/haproxy.cfg

temporary="client_body_temp_path $work/1; proxy_temp_path $work/2; fastcgi_temp_path $work/3; uwsgi_temp_path $work/4; scgi_temp_path $work/5;"
echo "pid $work/pid; events {} http { access_log off; $temporary include $PWD/nginx/fastauth.conf; }" >"$work/nginx.conf"
check nginx nginx -e stderr -t -p "$work" -c "$work/nginx.conf"

# It wants the program to be there: this one is. A key that it does not know is only a warning, so it has to be silent.
program="$(command -v fastauth || echo /bin/true)"
sed "s#/opt/fastauth/bin/fastauth#$program#" systemd/fastauth.service >"$work/fastauth.service"
silent() { ! "$@" 2>&1 | grep .; }
check systemd-analyze silent systemd-analyze verify --man=no --recursive-errors=no "$work/fastauth.service"
# Its sum of what the unit leaves open, in tenths; it is 15.
check systemd-analyze systemd-analyze security --offline=true --threshold=15 "$work/fastauth.service"
