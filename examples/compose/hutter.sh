#!/bin/sh
# Gives the container's interfaces the names that the article's rules use, whatever order the engine attached them in, and becomes hutter.
set -eu

rename() { # address name
  device=$(ip -o -4 address show to "$1" | awk '{ print $2 }')
  if [ -z "$device" ]; then
    echo "no interface has the address $1" >&2
    exit 1
  fi
  [ "$device" = "$2" ] && return
  ip link set "$device" down
  ip link set "$device" name "$2"
  ip link set "$2" up
}

rename 192.168.73.1 if0
rename 128.61.70.47 if1
exec hutter "$@"
