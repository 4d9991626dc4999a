#!/bin/sh
# kernel_client.sh SOCKET FILE: the kernel as a client under test. nbd-client does the handshake, the kernel everything after it.
device=/dev/nbd$(($$ % 16))
nbd-client -unix "$1" "$device" -N "" -t 2 >"$2.said" 2>&1 || { cat "$2.said"; exit 1; }
dd if="$device" of="$2" bs=64k conv=notrunc 2>&1
status=$?
nbd-client -d "$device" >/dev/null 2>&1
exit $status
