#!/usr/bin/env bash
# Builds the page, to be put on any static host: into build/web/dist, and says so. Debian: emscripten node-prismjs.
#
#   tools/web.sh            the page
#   tools/web.sh --quick    the same, less optimised, in a third of the time: build/web-quick/dist
#   tools/web.sh --serve    the page, served at http://127.0.0.1:8000
set -eu
root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
cd "$root"
preset=web serve=0
for word in "$@"; do
  case $word in
    --quick) preset=web-quick ;;
    --serve) serve=1 ;;
    *)
      sed -n '2,6s/^# \{0,1\}//p' "$0"
      exit 2
      ;;
  esac
done
for needed in emcmake cmake ninja; do
  command -v "$needed" >/dev/null || {
    echo "tools/web.sh: $needed is not there (Debian: emscripten node-prismjs cmake ninja-build)" >&2
    exit 1
  }
done
# Behind Emscripten's driver, where the compiler is one that ccache knows.
if command -v ccache >/dev/null; then export EM_COMPILER_WRAPPER=ccache; fi
# Where Debian keeps modules of Node.js; a Node.js from elsewhere does not look there.
export NODE_PATH=/usr/share/nodejs${NODE_PATH:+:$NODE_PATH}
export CCACHE_SLOPPINESS=pch_defines,time_macros
log=build-$preset.log
build() {
  emcmake cmake --preset "$preset" -DONNX2NN_UNITY="$1" >"$log" 2>&1 &&
    cmake --build --preset "$preset" -j "${JOBS:-$(nproc)}" >>"$log" 2>&1
}
failure() { grep -m 20 -E '^CMake Error|^[^+]*error: ' "$log" || tail -n 60 "$log"; }
build ON || {
  failure >&2
  echo "tools/web.sh: files do not compile several at once; now each by itself" >&2
  build OFF
} || {
  failure >&2
  exit 1
}
rm -f "$log"
printf '%s\n' "$root/build/$preset/dist"
if [ $serve = 1 ]; then exec python3 -m http.server -b 127.0.0.1 -d "build/$preset/dist" 8000; fi
