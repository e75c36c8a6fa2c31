# SPDX-License-Identifier: LGPL-2.1-or-later
# Sourced by tests/run and client/demo: the Debian packages that building and testing needs, and the build itself.
# shellcheck shell=bash disable=SC2034

packages_build="gcc libc6-dev meson ninja-build pkg-config libsystemd-dev libglib2.0-dev libjansson-dev libsqlite3-dev
    libxml2-dev libpolkit-gobject-1-dev"
packages_test="clang-format gettext systemd python3 python3-gi gir1.2-glib-2.0 dbus-daemon dbus-bin polkitd
    qemu-system-x86 qemu-utils busybox-static util-linux mount patch procps strace e2fsprogs"
# What the roots of tests/lib/root have besides, and what this machine needs to make and boot them.
packages_root="systemd-sysv dbus dbus-broker libpam-systemd udev build-essential debhelper lintian fakeroot ca-certificates"
packages_container="mmdebstrap systemd-container debian-archive-keyring busybox-static"
packages_fuzz="clang libclang-rt-dev"

# Installs those of the named packages that are missing; without network and with nothing missing it does nothing.
packages_install() {
    local package missing=()
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
            missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ]; then
        echo "These packages are missing, and only root can install them: ${missing[*]}" >&2
        return 1
    fi
    echo "installing ${#missing[@]} packages: ${missing[*]}"
    local log
    log=$(mktemp)
    if apt_install "${missing[@]}" >"$log" 2>&1 ||
        { apt-get -qq update >>"$log" 2>&1 && apt_install "${missing[@]}" >>"$log" 2>&1; }; then
        rm -f "$log"
        return 0
    fi
    cat "$log" >&2
    rm -f "$log"
    echo "apt-get could not install: ${missing[*]}" >&2
    return 1
}

# Daemons that come with the packages are not to be started: the tests start their own.
apt_install() {
    local policy=/usr/sbin/policy-rc.d made="" r=0
    if [ ! -e $policy ] && [ ! -d /run/systemd/system ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
        made=1
    fi
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends \
        -o Dpkg::Use-Pty=0 install "$@" </dev/null || r=$?
    [ -z "$made" ] || rm -f $policy
    return $r
}

# project_build FOLDER MESON-OPTION…: builds into FOLDER; prints the compiler's words only when it fails.
project_build() {
    local folder=$1 log
    shift
    mkdir -p "$folder"
    log=$folder/build.log
    if [ ! -e "$folder/build.ninja" ]; then
        meson setup "$@" "$folder" >"$log" 2>&1 || {
            cat "$log" >&2
            echo "meson setup has failed" >&2
            return 1
        }
    fi
    ninja -C "$folder" >"$log" 2>&1 || {
        tail -n 200 "$log" >&2
        echo "the build has failed" >&2
        return 1
    }
}
