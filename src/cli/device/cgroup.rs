//! Memory limits of Linux' control groups, as containers, Slurm and systemd set them.

use std::path::Path;

/// The least that a process may use of the memory by the groups that it is in, where they are mounted
/// at `root`; `groups` is what `/proc/self/cgroup` says. A limit of a group holds for all below it.
pub(super) fn memory_limit(root: &Path, groups: &str) -> Option<u64> {
    let limits = groups.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next().unwrap_or(""), parts.next().unwrap_or("/"));
        // Version 2 has one hierarchy, which names no controllers.
        let (root, file) = if controllers.is_empty() {
            (root.to_owned(), "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            (root.join("memory"), "memory.limit_in_bytes")
        } else {
            return Vec::new();
        };
        // In a container the group may be told as the host sees it, and is mounted as the root.
        let ancestors = Path::new(group.trim_start_matches('/')).ancestors();
        ancestors.filter_map(|group| limit(&root.join(group).join(file))).collect()
    });
    limits.min()
}

/// What a file says; no number, as `max`, is no limit.
fn limit(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_least_limit_of_all_groups_above_counts() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let write = |file: &str, text: &str| {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let of = |groups: &str| memory_limit(root, groups);
        assert_eq!(of("0::/slurm/job_7/step_0\n"), None, "nothing is mounted");
        write("slurm/job_7/step_0/memory.max", "max\n");
        assert_eq!(of("0::/slurm/job_7/step_0\n"), None);
        write("slurm/job_7/memory.max", "3000\n");
        write("slurm/memory.max", "5000\n");
        assert_eq!(of("0::/slurm/job_7/step_0\n"), Some(3000));
        assert_eq!(of("0::/slurm\n"), Some(5000));
        // A container: its group is the root, whatever it is called outside.
        write("memory.max", "700\n");
        assert_eq!(of("0::/docker/abc\n"), Some(700));
        write("memory/job/memory.limit_in_bytes", "150\n");
        assert_eq!(of("5:cpu,cpuacct:/job\n4:memory:/job/step\n"), Some(150), "version 1");
    }
}
