//! The memory that Linux control groups allow this process: containers, systemd's units and the jobs of Slurm are such groups.

use std::path::Path;

/// The smallest limit in bytes of the groups that hold the process, from its own up to the root; `None` where none is set. `read`
/// returns the text of a file, if it is there.
///
/// A group's path in `/proc/self/cgroup` is that of the host; in a container, where the hierarchy may begin at the container's own
/// group, what lies on no path is passed over and the root is that group.
pub fn memory_limit(read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let of = |controller: &str| {
        let mut lines = groups.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
        lines
            .find(|(names, _)| names.split(',').any(|name| name == controller))
            .map_or("/", |(_, path)| path)
            .to_string()
    };
    // Version 2 names no controllers; beside version 1 it is mounted further down.
    let hierarchies = [
        ("/sys/fs/cgroup", of(""), "memory.max"),
        ("/sys/fs/cgroup/unified", of(""), "memory.max"),
        ("/sys/fs/cgroup/memory", of("memory"), "memory.limit_in_bytes"),
    ];
    let limits = hierarchies.iter().flat_map(|(mount, group, file)| {
        let ancestors = Path::new(group).ancestors();
        let paths = ancestors.map(move |group| format!("{mount}{}/{file}", group.display()).replace("//", "/"));
        paths.filter_map(|path| read(&path)?.trim().parse::<u64>().ok())
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(files: &[(&str, &str)]) -> Option<u64> {
        memory_limit(|path| files.iter().find(|(name, _)| *name == path).map(|(_, text)| text.to_string()))
    }

    #[test]
    fn the_smallest_limit_up_to_the_root() {
        let slurm = ("/proc/self/cgroup", "0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_0\n");
        let job = ("/sys/fs/cgroup/system.slice/slurmstepd.scope/job_7/memory.max", "2147483648\n");
        let task = ("/sys/fs/cgroup/system.slice/slurmstepd.scope/job_7/step_0/user/task_0/memory.max", "max\n");
        assert_eq!(limit(&[slurm, job, task]), Some(2_147_483_648));
        assert_eq!(limit(&[slurm, job, ("/sys/fs/cgroup/memory.max", "1000")]), Some(1000));
        assert_eq!(limit(&[slurm, task]), None);
    }

    #[test]
    fn both_versions_and_containers() {
        let groups = ("/proc/self/cgroup", "4:cpu,memory:/slurm/uid_0/job_7\n2:cpuset:/\n0::/\n");
        let job = ("/sys/fs/cgroup/memory/slurm/uid_0/job_7/memory.limit_in_bytes", "4096\n");
        let unlimited = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(limit(&[groups, job, unlimited]), Some(4096));
        assert_eq!(limit(&[groups, ("/sys/fs/cgroup/unified/memory.max", "77")]), Some(77));
        // The container sees its group as the root, or its groups not at all.
        assert_eq!(limit(&[groups, ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "99")]), Some(99));
        assert_eq!(limit(&[("/sys/fs/cgroup/memory.max", "5")]), Some(5));
        assert_eq!(limit(&[]), None);
    }
}
