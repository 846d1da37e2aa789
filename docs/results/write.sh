#!/usr/bin/env bash
# Writes the tables of this folder into its files, from what is in the cache.
#
#   pipe run pipelines/*.toml --profile quick --keep-going     computes those of quick.md
#   docs/results/write.sh                                      writes them; PIPE names another `pipe`
set -euo pipefail
cd "$(dirname "$0")/../.."
pipe=${PIPE:-target/release/pipe}
said=$(mktemp)
trap 'rm -f "$said"' EXIT

{
  echo '# All pipelines at their smallest scale'
  echo
  echo '`pipe run pipelines/*.toml --profile quick --keep-going`, then `docs/results/write.sh`. Sizes are chosen for'
  echo 'minutes on a CPU, not for answers: what counts here is that every experiment runs from its data to its table.'
  echo 'What these numbers do not say is in the [README](README.md).'
  for file in pipelines/*.toml; do
    # A file without tables, or without results, has no section.
    status=0
    table=$("$pipe" table "$file" --profile quick --format markdown 2> "$said") || status=$?
    # 1: nothing is computed yet; 2: the file has no tables.
    if [ "$status" -gt 2 ]; then
      cat "$said" >&2
      exit "$status"
    fi
    if [ "$status" = 0 ]; then
      printf '\n## %s\n\n%s\n' "$(basename "$file" .toml)" "$table"
    fi
  done
} > docs/results/quick.md

# In the other files, what stands between the marks is the output of the command above them.
for file in docs/results/*.md; do
  command=$(sed -n 's/^\$ pipe run \(.*\)$/\1/p' "$file" | head -n 1)
  if ! grep -q '^<!-- table -->$' "$file" || [ -z "$command" ]; then
    continue
  fi
  table=$(mktemp)
  eval "\"$pipe\" table $command --format markdown" > "$table"
  sed -i -e "/^<!-- table -->\$/r $table" -e '/^<!-- table -->$/,/^<!-- end -->$/{/^<!--/!d}' "$file"
  rm "$table"
done
