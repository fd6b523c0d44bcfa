#!/usr/bin/env bash
# A Slurm cluster of one node, this machine, to try `launcher=slurm` on; not for anything that matters.
#
#   apt-get install slurm-wlm munge            # as root, once
#   eval "$(scripts/local_slurm.sh start)"     # starts it and sets SLURM_CONF; partitions: low (default), high, which preempts
#   scripts/local_slurm.sh stop
set -euo pipefail

folder=${LOCAL_SLURM_DIR:-/tmp/local-slurm}
export SLURM_CONF=$folder/slurm.conf

say() { echo "local_slurm: $*" >&2; }

configure() {
    mkdir -p "$folder"/{state,spool}
    chmod 755 "$folder"
    head -c 1024 /dev/urandom > "$folder/munge.key"
    chmod 600 "$folder/munge.key"
    # Versions that can do without control groups are told to; older ones take what they find.
    local version
    version=$(PATH=$PATH:/usr/sbin slurmd -V | sed -E 's/[^0-9]*([0-9]+)\..*/\1/')
    [ "$version" -ge 23 ] && echo "CgroupPlugin=disabled" > "$folder/cgroup.conf"
    local name memory
    name=$(hostname -s)
    memory=$(($(awk '/MemTotal/ {print $2}' /proc/meminfo) / 1024 - 512))
    cat > "$SLURM_CONF" <<CONF
ClusterName=here
SlurmctldHost=$name(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
DefMemPerCPU=$((memory / $(nproc)))
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=5
ReturnToService=2
SchedulerParameters=sched_interval=2,bf_interval=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=$name NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$memory State=UNKNOWN
PartitionName=low Nodes=$name Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=20 MaxTime=INFINITE State=UP
PartitionName=high Nodes=$name PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE State=UP
CONF
}

start() {
    for program in munged slurmctld slurmd squeue; do
        command -v "$program" > /dev/null || PATH=$PATH:/usr/sbin command -v "$program" > /dev/null ||
            { say "no $program here: apt-get install slurm-wlm munge"; exit 2; }
    done
    PATH=$PATH:/usr/sbin
    [ -e "$folder" ] && stop
    configure
    munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
        --log-file="$folder/munged.log" --seed-file="$folder/munge.seed" >&2
    slurmctld -c >&2
    slurmd -c >&2
    for _ in $(seq 60); do
        if sinfo --noheader --format=%T 2> /dev/null | grep -q idle; then
            say "ready; logs are in $folder"
            echo "export SLURM_CONF=$SLURM_CONF"
            return
        fi
        sleep 0.5
    done
    say "the node does not become idle; see $folder/slurmctld.log and $folder/slurmd.log"
    exit 1
}

stop() {
    [ -e "$folder" ] || return 0
    # Jobs would outlive the daemons and wait for them.
    timeout 5 scancel --me 2> /dev/null || true
    for _ in $(seq 30); do
        [ -z "$(timeout 5 squeue --noheader 2> /dev/null)" ] && break
        sleep 0.5
    done
    for program in slurmd slurmctld munged; do
        if [ -s "$folder/$program.pid" ]; then
            kill "$(cat "$folder/$program.pid")" 2> /dev/null || true
        fi
    done
    sleep 1
    rm -rf "$folder"
}

case ${1:-} in
    start) start ;;
    stop) stop ;;
    *) say "start or stop?"; exit 2 ;;
esac
