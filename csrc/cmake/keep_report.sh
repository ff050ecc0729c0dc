#!/bin/sh
# Runs nvcc, given with its arguments, and keeps what ptxas says of each kernel in <object>.ptxas.
for argument; do
  [ "$previous" = -o ] && object=$argument
  previous=$argument
done
"$@" 2>"$object.ptxas"
status=$?
grep -v '^ptxas info\|^ *[0-9]* bytes stack frame' "$object.ptxas" >&2
exit $status
