#!/bin/sh
# Installs Debian or Ubuntu packages, as root or through sudo. Their services are neither started nor enabled: the lab
# and the tests start programs of their own.
set -eu
command -v apt-get >/dev/null || { echo "missing: $*; install them (this machine has no apt)" >&2; exit 1; }
root=""
[ "$(id -u)" = 0 ] || { [ -t 0 ] && root="sudo" || root="sudo -n"; }
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap '$root rm -f "$policy"' EXIT
    $root sh -c "printf '#!/bin/sh\nexit 101\n' > $policy && chmod 755 $policy"
fi
$root apt-get update -qq
$root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
if command -v systemctl >/dev/null; then
    units=$(dpkg -L "$@" | sed -nE 's,.*/lib/systemd/system/([^/@]+\.(service|socket))$,\1,p' | sort -u)
    [ -z "$units" ] || $root systemctl --root=/ disable $units
fi
