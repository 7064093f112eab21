#!/bin/sh
# A Slurm of one node on this machine, from Debian's packages: `node.sh up FOLDER` and `node.sh down FOLDER`.
# Needs root, and slurm-wlm and munge. No accounting, no cgroups: enough to run a profile, not to share a machine.
set -eu
folder=$2
conf=$folder/slurm.conf
place=/etc/slurm/slurm.conf # where the commands of a job find it

up() {
    if test -e $place || test -L $place; then
        echo "error: $place is there already; this would be a second Slurm on the machine" >&2
        return 1
    fi
    mkdir -p "$folder/state" "$folder/spool" /run/munge
    test -s /etc/munge/munge.key || /usr/sbin/mungekey --create --force
    chown -R munge:munge /run/munge /etc/munge
    pgrep -x munged >/dev/null || runuser -u munge -- /usr/sbin/munged --force
    cat >"$conf" <<CONF
ClusterName=one
SlurmctldHost=$(hostname -s)
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
MailProg=/bin/true
MinJobAge=600
SchedulerParameters=batch_sched_delay=1,sched_interval=5
NodeName=$(hostname -s) CPUs=$(nproc) RealMemory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo) State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
    mkdir -p /etc/slurm
    ln -s "$conf" $place
    /usr/sbin/slurmctld
    /usr/sbin/slurmd
    for _ in $(seq 50); do
        sinfo --noheader --format %t | grep -q '^idle' && return
        sleep 0.2
    done
    echo "error: the node does not come up; see $folder/slurmctld.log and slurmd.log" >&2
    return 1
}

down() {
    scancel --quiet --user=root || true
    for name in slurmd slurmctld; do
        test -s "$folder/$name.pid" && kill "$(cat "$folder/$name.pid")" || true
    done
    if test "$(readlink $place)" = "$conf"; then rm $place; fi
}

case $1 in
up | down) "$1" ;;
*) echo "usage: node.sh up|down FOLDER" >&2 && exit 2 ;;
esac
