#!/bin/sh
# orlock: goes out through hutter, and serves on the port that hutter forwards to it.
set -eu
ip route replace default via 192.168.73.1
exec node /opt/hutter/examples/compose/orlock.mjs "$@"
