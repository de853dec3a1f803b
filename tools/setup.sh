# Functions that ./onnx2nn and ./test share; sourced, not run. `root` is the checkout.

export PIP_DISABLE_PIP_VERSION_CHECK=1
venv=$root/.venv

say() { printf '%s\n' "onnx2nn: $*" >&2; }

# debian_packages NAME...: installs what is missing, or says the line that would. Elsewhere than on Debian
# CMake fetches the headers itself, by pinned hash.
debian_packages() {
  command -v dpkg-query >/dev/null && command -v apt-get >/dev/null || return 0
  local name missing=()
  for name in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  local sudo=()
  if [ "$(id -u)" != 0 ]; then
    if sudo -n true 2>/dev/null; then
      sudo=(sudo -n)
    else
      say "these Debian packages are missing; please run: sudo apt-get install -y ${missing[*]}"
      return 0
    fi
  fi
  say "installing ${missing[*]}"
  local log
  log=$(mktemp)
  if ! { "${sudo[@]}" apt-get update && "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    say "apt-get failed; going on without ${missing[*]}"
  fi
  rm -f "$log"
}

# make_venv: a virtual environment in the checkout, of the first Python that is new enough.
make_venv() {
  [ -x "$venv/bin/pip" ] && return 0
  local python
  for python in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11 python3.10; do
    if command -v "$python" >/dev/null && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
      if [ "$(command -v "$python")" = /usr/bin/python3 ]; then
        debian_packages python3-venv python3-dev
      fi
      say "making a virtual environment in .venv ($("$python" --version))"
      "$python" -m venv "$venv" && return 0
      rm -rf "$venv"
      say "\"$python -m venv\" failed; on Debian: sudo apt-get install -y python3-venv python3-dev"
      return 1
    fi
  done
  say "no Python 3.10 or newer was found; name one with PYTHON=/path/to/python $0"
  return 1
}

# pip_pinned ARGUMENT...: pip install at the pinned versions, those of isolated builds too.
pip_pinned() {
  PIP_CONSTRAINT="$root/constraints.txt${PIP_CONSTRAINT:+ $PIP_CONSTRAINT}" \
    "$venv/bin/python" -m pip install -c "$root/constraints.txt" "$@" \
    2> >(grep -v '^WARNING: Location' >&2)
}

# pip_install ARGUMENT...: quietly.
pip_install() { pip_pinned --quiet "$@"; }

# pip_tell ARGUMENT...: what takes minutes, with what it downloads: pip's own bars on a terminal, else a line for each file.
pip_tell() {
  if [ -t 2 ]; then
    pip_pinned "$@" >&2
    return
  fi
  pip_pinned "$@" | sed -un 's/^ *Downloading \(.*\)/onnx2nn:    downloading \1/p
    s/^Installing collected packages.*/onnx2nn:    installing them/p' >&2
  return "${PIPESTATUS[0]}"
}

# is_current STAMP PATH...: true when nothing below the paths is newer than the stamp.
is_current() {
  local stamp=$1
  shift
  [ -e "$stamp" ] || return 1
  [ -z "$(cd "$root" && find "$@" -newer "$stamp" -type f ! -name '*.so' ! -name '*.pyc' -print -quit)" ]
}
