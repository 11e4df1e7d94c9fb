#!/bin/sh
# Installs what a few tests use beside the Python packages, where this user may: a browser that opens the report,
# Fashion-MNIST as Debian packages it, a C++ compiler for torch.compile, PostgreSQL and SLURM, of which the tests
# start servers of their own. Tests that lack theirs are skipped, and `make test` says so at its end.
set -eu
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    echo "test-extras: needs Debian or Ubuntu, as root: sudo sh scripts/test-extras.sh" >&2
    exit 1
fi
apt-get update -qq
apt-get install -y -qq --no-install-recommends g++ dataset-fashion-mnist postgresql slurmctld slurmd > /dev/null
# Ubuntu's chromium is a snap, which a container cannot run; its runners come with Chrome.
command -v google-chrome > /dev/null || apt-get install -y -qq --no-install-recommends chromium > /dev/null
