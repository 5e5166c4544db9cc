#!/bin/sh
# rooms.sh - proves from the #include lines that a room stands only on rooms below it, through their one header.
set -eu
cd "$(dirname "$0")/../.."
rooms="core math store learn reward script jobs serve cli"
below=""
bad=0
for room in $rooms; do
  for line in $(grep -ho '#include "\.\./[^"]*"' runtime/$room/*.[ch] | sed 's/.*"\.\.\/\(.*\)"/\1/' | sort -u); do
    other=${line%%/*}
    case " $below " in *" $other "*) ;; *) echo "runtime/$room includes $line, which is not below it" >&2; bad=1 ;; esac
    [ "$line" = "$other/$other.h" ] || { echo "runtime/$room includes $line, which is not the room's header" >&2; bad=1; }
  done
  below="$below $room"
done
exit $bad
