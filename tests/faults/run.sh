#!/bin/sh
# Runs the tests that start programs which pip does not install, and then those that need root, strace or
# mounts. Everything these mount lives in a namespace of its
# own, in which all file systems but the work folder and the folder for reports are read-only: whatever
# goes wrong in a test, nothing else on this machine can change. Called by `make test-faults`.
set -eu
cd "$(dirname "$0")/../.."
PATH=$PATH:/usr/sbin:/sbin

give_up() {
    echo "make test-faults: $*" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || give_up "these tests mount file systems and trace processes, so they need root: sudo make test-faults"

sh tests/install_programs.sh

mkdir -p build/junit
reports=$(cd build/junit && pwd -P)

"${PYTHON:-.venv/bin/python}" -m pytest -m programs -n "${WORKERS:-2}" --dist worksteal \
    --junitxml="$reports/programs.xml" tests/web tests/extras "$@" || [ $? = 5 ] # none was asked for

unshare --mount --propagation private true ||
    give_up "this machine or container does not let root mount anything (CAP_SYS_ADMIN), which these tests need"

# A shim of pyenv is a script; the interpreter itself says where it lies.
python=$("${PYTHON:-.venv/bin/python}" -c 'import sys; print(sys.executable)')

# Not below TMPDIR, whose parents another user may not enter, and on a disk, which memory is not.
# Paths without links in them, as the kernel lists its mounts.
work=$(cd "$(mktemp -d /var/tmp/comfy-files-faults.XXXXXX)" && pwd -P)
trap 'rm -rf --one-file-system "$work"' EXIT
trap 'exit 1' HUP INT TERM
chmod 755 "$work"

export TMPDIR="$work" PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0
unshare --mount --propagation private sh -eu -c '
    work=$1 reports=$2 python=$3
    shift 3
    mount --bind "$work" "$work"
    mount --bind "$reports" "$reports"
    cut -d " " -f 5 /proc/self/mountinfo | while read -r escaped; do
        place=$(printf "%b" "$escaped")
        case $place in
        "$work" | "$reports" | /proc | /proc/* | /sys | /sys/*) ;;
        /) mount -o remount,bind,ro / ;;
        *) mount -o remount,bind,ro "$place" 2>/dev/null || true ;; # hidden under another mount
        esac
    done
    exec "$python" -m pytest -m faults -n "${WORKERS:-2}" --dist worksteal -p no:cacheprovider --basetemp="$work/t" \
        tests/faults "$@"
' sh "$work" "$reports" "$python" "$@"
