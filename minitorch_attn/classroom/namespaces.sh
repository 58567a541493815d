#!/bin/sh
# Run a command where little else is: namespaces.sh ROOM SIZE [--show PATH | --hide PATH]... -- COMMAND
#
# Started by util-linux's `unshare` in namespaces of its own. ROOM is an empty folder, which becomes
# the root; SIZE, in bytes, is what may be written. What is shown can only be read, what is hidden
# is empty. /tmp is the one place to write to.
set -eu
room=$1 size=$2
shift 2
PATH=$PATH:/usr/sbin:/sbin

mount --make-rprivate /
mount -t tmpfs -o mode=755,nosuid,nodev,size=1m tmpfs "$room"
mkdir "$room/tmp" # first: what is shown may lie below it
mount -t tmpfs -o "mode=1777,nosuid,nodev,size=$size" tmpfs "$room/tmp"

place() { # an empty file or folder, to mount something on
    if [ -d "$1" ]; then
        mkdir -p "$room$1"
    else
        mkdir -p "$room$(dirname "$1")"
        [ -e "$room$1" ] || : >"$room$1"
    fi
}

show() {
    if [ -L "$1" ]; then
        mkdir -p "$room$(dirname "$1")"
        cp -P "$1" "$room$1"
    else
        place "$1"
        mount --bind "$1" "$room$1"
        mount -o remount,bind,ro,nosuid,nodev "$room$1"
    fi
}

hide() {
    if [ -d "$1" ]; then
        mount -t tmpfs -o ro,size=4k tmpfs "$room$1"
    else
        mount --bind /dev/null "$room$1"
    fi
}

while [ "$1" != -- ]; do
    case $1 in
    --show) show "$2" ;;
    --hide) hide "$2" ;;
    esac
    shift 2
done
shift

for device in null zero full random urandom; do
    place "/dev/$device"
    mount --bind "/dev/$device" "$room/dev/$device"
done
mkdir "$room/proc" "$room/.outside"
mount -t proc -o nosuid,nodev,noexec proc "$room/proc"
mkdir "$room/dev/shm"
mount --bind "$room/tmp" "$room/dev/shm"

cd "$room"
pivot_root . .outside
umount -l /.outside
mount -o remount,bind,ro /
cd /tmp
exec "$@"
