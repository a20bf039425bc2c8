#!/bin/sh
# Owner, mode, attributes, capabilities, access list and content of both files; not when they were changed.
set -eu
cd "$1"
for name in one two; do
    stat --format='%n %U %G %a' $name
    cat $name
    getfattr --absolute-names -d $name
    getcap $name
    getfacl --omit-header $name
done
