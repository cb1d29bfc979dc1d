#!/bin/sh
# Installs Debian or Ubuntu packages, as root or through sudo.
set -eu
root=""
[ "$(id -u)" = 0 ] || root="sudo"
$root apt-get update -qq
DEBIAN_FRONTEND=noninteractive $root apt-get install -y -qq --no-install-recommends "$@"
