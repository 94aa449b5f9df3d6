#!/bin/bash
# Checks a restore report with bash, openssl 3, sha256sum, base64, od, sed, cut, tr and cmp alone.
# usage: verify.sh REPORT.json --key-fingerprint F [--sig FILE] [--pub FILE] [--proof FILE]
# exit:  0 verified; 1 wrong; 2 signature valid, signer unknown; 64 wrong usage
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -uo pipefail; export LC_ALL=C
wrong() { echo "WRONG: $1"; exit 1; }
usage() { sed -n '3,4s/^# //p' "$0" >&2; exit 64; }
bytes() { printf "$(sed 's/../\\x&/g')"; }
hex() { od -An -tx1 -v | tr -d ' \n'; }
sha() { sha256sum | cut -c1-64; }
report='' want='' sig='' pub='' proof=''
while [ $# -gt 0 ]; do
  case $1 in --key-fingerprint|--sig|--pub|--proof) [ $# -ge 2 ] || usage;; -*) usage;; esac
  case $1 in --key-fingerprint) want=$2;; --sig) sig=$2;; --pub) pub=$2;; --proof) proof=$2;; *) [ -z "$report" ] || usage; report=$1; set -- x "$@";; esac
  shift 2
done
[ -n "$report" ] || usage
base=${report%.json}; sig=${sig:-$base.sig} pub=${pub:-$base.pub} proof=${proof:-$base.proof}
for f in "$report" "$sig" "$pub" "$proof"; do [ -r "$f" ] || wrong "cannot read $f"; done
tmp=$(mktemp -d) || exit 1; trap 'rm -rf "$tmp"' EXIT
signed() { openssl pkeyutl -verify -rawin -pubin -inkey "$pub" -in "$1" -sigfile "$2" >/dev/null 2>&1; }

# The key: Ed25519, its fingerprint, and the id that it has in the log's signature lines.
der=$(openssl pkey -pubin -in "$pub" -outform DER 2>/dev/null | hex) || wrong "the public key cannot be read"
[[ $der =~ ^302a300506032b6570032100[0-9a-f]{64}$ ]] || wrong "the public key is not an Ed25519 key"
have=$(printf %s "$der" | bytes | sha)
signed "$report" "$sig" || wrong "the signature does not belong to this report and this key"

# The proof, a C2SP tlog-proof: index, path, empty line, signed checkpoint (origin, size, root, empty line, signature).
mapfile -t line < <(tr -d '\0' < "$proof"); i=2 path=()
while [ -n "${line[i]-}" ] && [ $i -lt 66 ]; do path+=("$(printf %s "${line[i]}" | base64 -d 2>/dev/null | hex)"); i=$((i + 1)); done
index=${line[1]-} index=${index#index } origin=${line[i+1]-} size=${line[i+2]-} note=${line[i+5]-}
for n in "$index" "$size"; do [[ $n =~ ^(0|[1-9][0-9]{0,17})$ ]] || wrong "the proof is malformed"; done
hash=$({ printf '\0'; cat "$report"; } | sha); fn=$index sn=$((size - 1))                        # RFC 9162, 2.1.3.2
[ "$fn" -le "$sn" ] || wrong "the proof names an entry that the log does not have"
for p in ${path[@]+"${path[@]}"}; do
  [[ $p =~ ^[0-9a-f]{64}$ ]] && [ $sn -gt 0 ] || wrong "the proof is malformed"
  if (( fn & 1 || fn == sn )); then
    hash=$(printf %s "01$p$hash" | bytes | sha); while (( !(fn & 1) && fn )); do fn=$((fn >> 1)) sn=$((sn >> 1)); done
  else hash=$(printf %s "01$hash$p" | bytes | sha); fi
  fn=$((fn >> 1)) sn=$((sn >> 1))
done
[ $sn = 0 ] || wrong "the proof is too short"

# Write the proof anew from what was computed: any other byte in the file is wrong. Then check the log's signature.
id=$({ printf '%s\n\1' "$origin"; printf %s "${der:24}" | bytes; } | sha | cut -c1-8)
printf '%s\n%s\n%s\n' "$origin" "$size" "$(printf %s "$hash" | bytes | base64 -w0)" > "$tmp/body"
printf %s "${note##* }" | base64 -d 2>/dev/null | tail -c +5 > "$tmp/sig"
{ printf 'c2sp.org/tlog-proof@v1\nindex %s\n' "$index"
  for p in ${path[@]+"${path[@]}"}; do printf %s "$p" | bytes | base64 -w0; echo; done
  echo; cat "$tmp/body"; printf '\n— %s ' "$origin"; { printf %s "$id" | bytes; cat "$tmp/sig"; } | base64 -w0; echo
} | cmp -s - "$proof" || wrong "the proof does not lead from this report to the checkpoint"
signed "$tmp/body" "$tmp/sig" || wrong "the log's checkpoint is not signed by this key"

# A report under another report's name would be taken for that one.
said=$(sed -n 's/^  "report_id": "\([0-9a-f-]*\)",$/\1/p' "$report") name=${base##*/}
if [[ $name =~ ^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$ && $name != "$said" ]]; then wrong "the file is named $name and holds report $said"; fi

echo "report $said, signed by key $(printf %s "$have" | sed 's/..../&-/g; s/-$//')"
echo "entry $index of $size in the log $origin"
echo "stated verdict: $(sed -n 's/^  "verdict": "\([a-z]*\)",$/\1/p' "$report")"
[ "$(printf %s "$want" | tr -d ':\- ' | tr A-F a-f)" = "$have" ] && { echo VERIFIED; exit 0; }
[ -n "$want" ] || { echo "SIGNER UNKNOWN: the signature is valid, but no key was named: --key-fingerprint F from the practice's own copy"; exit 2; }
echo "SIGNER UNKNOWN: the signature is valid, but this key is not the one you named (--key-fingerprint)"; exit 2
