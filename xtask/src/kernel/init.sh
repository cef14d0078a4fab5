#!/bin/sh
# The guest's first process. ttyS0 is the kernel's console, ttyS1 takes what the
# tests say, and ttyS2 the suite's exit status.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=755 tmpfs /run
# udev's work elsewhere; nft reads its input by that name.
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
stty raw -echo </dev/ttyS1
stty raw -echo </dev/ttyS2
ip link set lo up
ulimit -n 20000
# As contrib/modules-load.d has it: the kernel loads the other half of each itself.
modprobe -a nf_nat_ftp nf_nat_sip nf_nat_tftp
export CONNTRACK_AGENT_BIN=/tests/conntrack-agent CONNTRACK_EBPF_OBJECT=/tests/classifier
export CONNTRACK_TEST_PATIENCE=5 RUST_TEST_THREADS=4 RUST_BACKTRACE=0
(
    cd /tmp || exit 1
    echo "guest: $(uname -rv)"
    sh /suite
) >/dev/ttyS1 2>&1 </dev/null
echo "$?" >/dev/ttyS2
# QEMU is told to end where a machine would start again.
echo b >/proc/sysrq-trigger
