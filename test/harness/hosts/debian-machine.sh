# debian-machine.sh LOWER NAME [DISK]: boots Debian's systemd over a read-only root, in namespaces
# that its caller made (mount, pid, ipc, uts, cgroup). Files that the machine writes are in the
# directory DISK and are there at the next boot. Without DISK they are in memory and disappear with
# it.
set -e
lower=$1
name=$2
disk=$3
work=/run/auth-relay-machine
mount --make-rprivate /
mkdir -p $work
mount -t tmpfs tmpfs $work
[ -n "$disk" ] || disk=$work
mkdir -p "$disk/upper" "$disk/work" $work/root
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$disk/upper,workdir=$disk/work" $work/root
cd $work/root
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
# The devices are not the host's own files, because crun gives /dev/null to the account of each
# `podman exec`.
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
mknod -m 666 dev/tty c 5 0
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for stream in 0-stdin 1-stdout 2-stderr; do ln -s "fd/${stream%-*}" "dev/${stream#*-}"; done
hostname "$name"
echo "$name" >etc/hostname
printf '127.0.0.1 localhost %s\n::1 localhost\n' "$name" >etc/hosts
# chroot alone is not enough, because the kernel makes no user namespaces for processes in a chroot
# (PrivateUsers=).
mkdir -p old
pivot_root . old
# Shared, as on a host: credentials of a unit are mounts that must reach its namespace.
exec env -i container=auth-relay-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  chroot . sh -c 'umount -l /old && rmdir /old && mount --make-rshared / && exec /lib/systemd/systemd --system --log-target=journal-or-kmsg'
