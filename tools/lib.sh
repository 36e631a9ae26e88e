# Shared by the scripts in tools/. Sourced, not run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
download_seconds=0  # time spent fetching packages; quickstart reports it apart

say() { printf '%s\n' "$*"; }
# One sentence that says what to do, then exit.
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

build_packages="g++ cmake ninja-build pkg-config libdnnl-dev libhdf5-dev libyaml-cpp-dev libcli11-dev libfmt-dev
  nlohmann-json3-dev libpcre2-dev libutf8proc-dev libxxhash-dev libssl-dev python3"
corpus_packages="libreadline8 xz-utils"  # KJV's reader; kernel sources
mpi_packages="libopenmpi-dev openmpi-bin"  # runs of several ranks
test_packages="libgtest-dev python3-numpy python3-h5py $mpi_packages"
full_packages="clang-format-14 clang-tidy-14 python3-torch"

missing_packages() {
  local p
  for p in "$@"; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || printf '%s ' "$p"
  done
}

# require_free_space MB FOLDER WHAT
require_free_space() {
  local free
  free=$(df -Pm "$2" | awk 'NR==2 {print $4}')
  [ "$free" -ge "$1" ] || die "$3 needs $1 MB of free disk space in $2, which has $free MB: free some space or move the checkout to a larger disk."
}

# ensure_packages NAME...: installs what is missing, says first how much will be downloaded.
ensure_packages() {
  local missing as_root="" uris bytes begin
  command -v apt-get >/dev/null || die "this needs Debian's apt-get; on another system install by hand: $*"
  missing=$(missing_packages "$@")
  [ -z "$missing" ] && return 0
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || die "these packages are missing and installing them needs root: run 'apt-get install $missing' as root, then this again."
    as_root="sudo"
  fi
  export DEBIAN_FRONTEND=noninteractive
  begin=$SECONDS
  if ! uris=$($as_root apt-get install -y --no-install-recommends --print-uris $missing 2>/dev/null); then
    say "updating the package lists"
    $as_root apt-get update -qq || die "the package lists can't be fetched: check the network (and proxy settings of apt), then run this again."
    uris=$($as_root apt-get install -y --no-install-recommends --print-uris $missing 2>/dev/null) ||
      die "apt-get can't find one of these packages: $missing- they are in Debian 12 main; check the lines of /etc/apt/sources.list."
  fi
  bytes=$(printf '%s\n' "$uris" | awk "/^'/ {s += \$3} END {printf \"%d\", s / 1e6}")
  say "installing Debian packages ($bytes MB to download): $missing"
  require_free_space $((bytes * 5 + 200)) /usr "installing packages"
  $as_root apt-get install -y -qq --no-install-recommends --download-only $missing >/dev/null ||
    { $as_root apt-get update -qq && $as_root apt-get install -y -qq --no-install-recommends --download-only $missing >/dev/null; } ||
    die "downloading packages failed: check the network, then run this again."
  download_seconds=$((download_seconds + SECONDS - begin))
  $as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null || die "installing packages failed: run 'apt-get install $missing' by hand to see why."
}

cores() { nproc 2>/dev/null || echo 2; }

# configure PRESET [cmake arguments]; build PRESET TARGET...  Quiet unless something fails.
quietly() {
  local log
  log=$(mktemp)
  if ! "$@" >"$log" 2>&1; then
    tail -n 60 "$log" >&2
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
}
configure() { quietly cmake -S "$root" --preset "$@" || die "configuring failed: the lines above say why."; }
build() {
  local preset=$1
  shift
  quietly cmake --build "$root/build/$preset" -j "$(cores)" --target "$@" || die "building failed: the lines above say why."
}
