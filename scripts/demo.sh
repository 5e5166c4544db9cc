#!/bin/sh
# demo.sh - the whole story: import, fit, measure, evolve, compare on the sealed fold, serve, one slate.
# On MovieLens 100K when it is found under $EVECTION_DATA or ../shared/data, else on a world the runtime generates.
set -eu
cd "$(dirname "$0")/.."
evection=${EVECTION:-build/evection}
EVECTION_HOME=${EVECTION_HOME:-var/demo}
export EVECTION_HOME
pipeline=policies/compositions/hand_written.yaml
server=
log=
trap 'if [ -n "$server" ]; then kill "$server" 2>/dev/null || :; wait "$server" 2>/dev/null || :; fi; rm -f "$log"' EXIT
trap 'exit 130' INT TERM

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() { printf '$ evection %s\n' "$*"; "$evection" "$@"; }
[ -t 1 ] || say() { printf '\n%s\n' "$*"; }

movielens=
for folder in "${EVECTION_DATA:-}" ../shared/data; do
  if [ -z "$movielens" ] && [ -n "$folder" ] && [ -f "$folder/ml-100k/ml-100k.inter" ]; then movielens=$folder/ml-100k; fi
done

say "1. Data"
if [ -n "$movielens" ]; then
  user=196
  show data import "$movielens/ml-100k.inter" "$movielens/ml-100k.item" "$movielens/ml-100k.user" --as movielens --split ratio
else
  echo "MovieLens 100K is not at \$EVECTION_DATA or ../shared/data: a generated world takes its place"
  user=u1
  show data generate --as movielens
fi
show data show movielens

say "2. The hand-written pipeline, on the validation fold"
cat "$pipeline"
show eval "$pipeline" --data movielens

say "3. Evolution: every knob of it, chosen on validation alone, then the sealed test fold"
show evolve policies/plans/movielens.yaml --data movielens --fresh
champion=$EVECTION_HOME/champions/movielens.yaml

say "4. The hand-written pipeline, served; the champion, swapped in while it serves; and back"
log=$(mktemp)
printf '$ evection serve %s --data movielens --port 0\n' "$pipeline"
"$evection" serve "$pipeline" --data movielens --port 0 >"$log" 2>&1 &
server=$!
url=
for _ in $(seq 600); do
  url=$(sed -n 's/.*\(http:\/\/[0-9.:]*\).*/\1/p' "$log" | head -n 1)
  if [ -n "$url" ] && curl -fs "$url/readyz" >/dev/null; then break; fi
  kill -0 "$server" 2>/dev/null || { cat "$log" >&2; exit 1; }
  sleep 0.1
done
slate() {
  printf '$ curl %s/recommend/%s?n=5\n' "$url" "$user"
  curl -fs "$url/recommend/$user?n=5" | "$evection" run scripts/slate.lua
}
slate
show stage "$champion" --then publish
slate
show rollback
show versions
