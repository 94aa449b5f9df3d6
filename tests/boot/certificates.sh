#!/usr/bin/env bash
# Makes an authority, one certificate for each program that listens and one for the console as a client, for tests only.
# usage: tests/boot/certificates.sh FOLDER
set -euo pipefail
cd "${1:?usage: certificates.sh FOLDER}"
umask 077
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=Test authority" \
    -addext "basicConstraints=critical,CA:TRUE" -keyout ca.key -out ca.pem 2>/dev/null
for name in appliance console serve verifier console-client agent; do
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" \
        -keyout "$name.key" -out "$name.csr" 2>/dev/null
    openssl x509 -req -in "$name.csr" -CA ca.pem -CAkey ca.key -days 30 -out "$name.pem" \
        -extfile <(echo "subjectAltName=DNS:localhost,IP:127.0.0.1") 2>/dev/null
    rm "$name.csr"
done
chmod 644 ./*.pem
