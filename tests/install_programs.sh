#!/bin/sh
# Sees to it that the programs of programs.txt are there: `install_programs.sh [faults…]`, with words for
# which tests, else for all. Root on Debian has apt-get install what is missing; others are told what to install.
set -eu
cd "$(dirname "$0")"
PATH=$PATH:/usr/sbin:/sbin
needed_by=${*:-servers browser faults}

missing() {
    while read -r program package purpose; do
        case " $needed_by " in
        *" $purpose "*) command -v "$program" >/dev/null || printf '%s ' "$package" ;;
        esac
    done <programs.txt
}

packages=$(missing)
if [ -n "$packages" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    # RUNLEVEL keeps what is installed from being started.
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    # shellcheck disable=SC2086 # one word for each package
    apt-get install -y -qq --no-install-recommends $packages >/dev/null 2>&1 ||
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends $packages; } >/dev/null || true
    packages=$(missing)
fi
[ -z "$packages" ] || {
    echo "Install these packages first (their names on Debian): $packages" >&2
    exit 1
}
