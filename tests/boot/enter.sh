#!/bin/sh
# Ansible's chroot connection calls: enter.sh FOLDER COMMAND... ; the command runs inside the booted container whose
# first process is named by $HOLDFAST_LEADER, so that it sees the container's systemd.
shift
exec nsenter -t "$HOLDFAST_LEADER" -m -u -i -n -p -- "$@"
