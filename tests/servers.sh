#!/bin/sh
# The real servers and tools that the suite runs: installed where they are missing and may be, else named in one line.
# With arguments only the programs that they name.
set -eu
missing="" for_checks=""
[ $# = 0 ] || for_checks="systemd-analyze:systemd"
for pair in $for_checks nginx:nginx-light haproxy:haproxy openssl:openssl curl:curl \
    redis-server:redis-server redis-sentinel:redis-sentinel redis-cli:redis-tools \
    psql:postgresql pgbouncer:pgbouncer slapd:slapd chromium:chromium slowhttptest:slowhttptest prometheus:prometheus valgrind:valgrind; do
    case " ${*:-${pair%%:*}} " in *" ${pair%%:*} "*) ;; *) continue ;; esac
    PATH="$PATH:/usr/sbin" command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
done
if [ $# = 0 ]; then
    [ -e /usr/include/ldap.h ] || missing="$missing libldap2-dev"
    [ -e /usr/include/sasl/sasl.h ] || missing="$missing libsasl2-dev"
    ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || missing="$missing libfaketime"
fi
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    export DEBIAN_FRONTEND=noninteractive
    policy=/usr/sbin/policy-rc.d # Debian asks it before a package starts its service; the tests start their own
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        trap 'exit 1' HUP INT TERM
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
    fi
    # shellcheck disable=SC2086
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing; } >/dev/null 2>&1 && exit 0
fi
echo "fastauth: the tests need$missing; install them with the system's package manager" >&2
