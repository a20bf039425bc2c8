#!/bin/sh
set -eu
cd "$1"
chmod 0755 .
mkdir new
for name in one two; do
    printf '#!/bin/sh\necho content old\n' >$name
    printf '#!/bin/sh\necho content new\n' >new/$name
done
chown daemon:adm one
chmod 4750 one
chmod 0711 two
setcap cap_net_raw+ep two
setfattr -n user.note -v kept one
setfacl -m u:daemon:rx two
