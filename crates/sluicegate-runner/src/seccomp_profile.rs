//! The system calls that a step may make.
//!
//! The facts are those of moby's default profile (github.com/moby/profiles, `seccomp/default.json` at commit 02e898b), resolved
//! for x86_64, a kernel of 4.8 or later and the empty capability set: whatever the profile allows only together with a
//! capability is not here. So `mount`, `umount2`, `setns`, `unshare`, `bpf`, `perf_event_open`, `keyctl`, `open_by_handle_at`,
//! `userfaultfd`, module loading and clocks are refused. Programs of another architecture (i386, x32) are killed or refused.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

/// Allowed whatever their arguments; names and numbers of the x86_64 table.
#[rustfmt::skip]
const ALLOWED: &[(&str, i64)] = &[
    ("read", 0), ("write", 1), ("open", 2), ("close", 3), ("stat", 4), ("fstat", 5), ("lstat", 6), ("poll", 7),
    ("lseek", 8), ("mmap", 9), ("mprotect", 10), ("munmap", 11), ("brk", 12), ("rt_sigaction", 13),
    ("rt_sigprocmask", 14), ("rt_sigreturn", 15), ("ioctl", 16), ("pread64", 17), ("pwrite64", 18), ("readv", 19),
    ("writev", 20), ("access", 21), ("pipe", 22), ("select", 23), ("sched_yield", 24), ("mremap", 25),
    ("msync", 26), ("mincore", 27), ("madvise", 28), ("shmget", 29), ("shmat", 30), ("shmctl", 31), ("dup", 32),
    ("dup2", 33), ("pause", 34), ("nanosleep", 35), ("getitimer", 36), ("alarm", 37), ("setitimer", 38),
    ("getpid", 39), ("sendfile", 40), ("connect", 42), ("accept", 43), ("sendto", 44), ("recvfrom", 45),
    ("sendmsg", 46), ("recvmsg", 47), ("shutdown", 48), ("bind", 49), ("listen", 50), ("getsockname", 51),
    ("getpeername", 52), ("socketpair", 53), ("setsockopt", 54), ("getsockopt", 55), ("fork", 57), ("vfork", 58),
    ("execve", 59), ("exit", 60), ("wait4", 61), ("kill", 62), ("uname", 63), ("semget", 64), ("semop", 65),
    ("semctl", 66), ("shmdt", 67), ("msgget", 68), ("msgsnd", 69), ("msgrcv", 70), ("msgctl", 71), ("fcntl", 72),
    ("flock", 73), ("fsync", 74), ("fdatasync", 75), ("truncate", 76), ("ftruncate", 77), ("getdents", 78),
    ("getcwd", 79), ("chdir", 80), ("fchdir", 81), ("rename", 82), ("mkdir", 83), ("rmdir", 84), ("creat", 85),
    ("link", 86), ("unlink", 87), ("symlink", 88), ("readlink", 89), ("chmod", 90), ("fchmod", 91), ("chown", 92),
    ("fchown", 93), ("lchown", 94), ("umask", 95), ("gettimeofday", 96), ("getrlimit", 97), ("getrusage", 98),
    ("sysinfo", 99), ("times", 100), ("ptrace", 101), ("getuid", 102), ("getgid", 104), ("setuid", 105),
    ("setgid", 106), ("geteuid", 107), ("getegid", 108), ("setpgid", 109), ("getppid", 110), ("getpgrp", 111),
    ("setsid", 112), ("setreuid", 113), ("setregid", 114), ("getgroups", 115), ("setgroups", 116),
    ("setresuid", 117), ("getresuid", 118), ("setresgid", 119), ("getresgid", 120), ("getpgid", 121),
    ("setfsuid", 122), ("setfsgid", 123), ("getsid", 124), ("capget", 125), ("capset", 126),
    ("rt_sigpending", 127), ("rt_sigtimedwait", 128), ("rt_sigqueueinfo", 129), ("rt_sigsuspend", 130),
    ("sigaltstack", 131), ("utime", 132), ("mknod", 133), ("statfs", 137), ("fstatfs", 138), ("getpriority", 140),
    ("setpriority", 141), ("sched_setparam", 142), ("sched_getparam", 143), ("sched_setscheduler", 144),
    ("sched_getscheduler", 145), ("sched_get_priority_max", 146), ("sched_get_priority_min", 147),
    ("sched_rr_get_interval", 148), ("mlock", 149), ("munlock", 150), ("mlockall", 151), ("munlockall", 152),
    ("modify_ldt", 154), ("prctl", 157), ("arch_prctl", 158), ("adjtimex", 159), ("setrlimit", 160), ("sync", 162),
    ("gettid", 186), ("readahead", 187), ("setxattr", 188), ("lsetxattr", 189), ("fsetxattr", 190),
    ("getxattr", 191), ("lgetxattr", 192), ("fgetxattr", 193), ("listxattr", 194), ("llistxattr", 195),
    ("flistxattr", 196), ("removexattr", 197), ("lremovexattr", 198), ("fremovexattr", 199), ("tkill", 200),
    ("time", 201), ("futex", 202), ("sched_setaffinity", 203), ("sched_getaffinity", 204),
    ("set_thread_area", 205), ("io_setup", 206), ("io_destroy", 207), ("io_getevents", 208), ("io_submit", 209),
    ("io_cancel", 210), ("get_thread_area", 211), ("epoll_create", 213), ("epoll_ctl_old", 214),
    ("epoll_wait_old", 215), ("remap_file_pages", 216), ("getdents64", 217), ("set_tid_address", 218),
    ("restart_syscall", 219), ("semtimedop", 220), ("fadvise64", 221), ("timer_create", 222),
    ("timer_settime", 223), ("timer_gettime", 224), ("timer_getoverrun", 225), ("timer_delete", 226),
    ("clock_gettime", 228), ("clock_getres", 229), ("clock_nanosleep", 230), ("exit_group", 231),
    ("epoll_wait", 232), ("epoll_ctl", 233), ("tgkill", 234), ("utimes", 235), ("mq_open", 240),
    ("mq_unlink", 241), ("mq_timedsend", 242), ("mq_timedreceive", 243), ("mq_notify", 244),
    ("mq_getsetattr", 245), ("waitid", 247), ("ioprio_set", 251), ("ioprio_get", 252), ("inotify_init", 253),
    ("inotify_add_watch", 254), ("inotify_rm_watch", 255), ("openat", 257), ("mkdirat", 258), ("mknodat", 259),
    ("fchownat", 260), ("futimesat", 261), ("newfstatat", 262), ("unlinkat", 263), ("renameat", 264),
    ("linkat", 265), ("symlinkat", 266), ("readlinkat", 267), ("fchmodat", 268), ("faccessat", 269),
    ("pselect6", 270), ("ppoll", 271), ("set_robust_list", 273), ("get_robust_list", 274), ("splice", 275),
    ("tee", 276), ("sync_file_range", 277), ("vmsplice", 278), ("utimensat", 280), ("epoll_pwait", 281),
    ("signalfd", 282), ("timerfd_create", 283), ("eventfd", 284), ("fallocate", 285), ("timerfd_settime", 286),
    ("timerfd_gettime", 287), ("accept4", 288), ("signalfd4", 289), ("eventfd2", 290), ("epoll_create1", 291),
    ("dup3", 292), ("pipe2", 293), ("inotify_init1", 294), ("preadv", 295), ("pwritev", 296),
    ("rt_tgsigqueueinfo", 297), ("recvmmsg", 299), ("fanotify_mark", 301), ("prlimit64", 302),
    ("name_to_handle_at", 303), ("clock_adjtime", 305), ("syncfs", 306), ("sendmmsg", 307), ("getcpu", 309),
    ("process_vm_readv", 310), ("process_vm_writev", 311), ("sched_setattr", 314), ("sched_getattr", 315),
    ("renameat2", 316), ("seccomp", 317), ("getrandom", 318), ("memfd_create", 319), ("execveat", 322),
    ("membarrier", 324), ("mlock2", 325), ("copy_file_range", 326), ("preadv2", 327), ("pwritev2", 328),
    ("pkey_mprotect", 329), ("pkey_alloc", 330), ("pkey_free", 331), ("statx", 332), ("io_pgetevents", 333),
    ("rseq", 334), ("uretprobe", 335), ("pidfd_send_signal", 424), ("pidfd_open", 434), ("close_range", 436),
    ("openat2", 437), ("faccessat2", 439), ("epoll_pwait2", 441), ("landlock_create_ruleset", 444),
    ("landlock_add_rule", 445), ("landlock_restrict_self", 446), ("memfd_secret", 447), ("process_mrelease", 448),
    ("futex_waitv", 449), ("cachestat", 451), ("fchmodat2", 452), ("map_shadow_stack", 453), ("futex_wake", 454),
    ("futex_wait", 455), ("futex_requeue", 456), ("statmount", 457), ("listmount", 458), ("mseal", 462),
    ("setxattrat", 463), ("getxattrat", 464), ("listxattrat", 465), ("removexattrat", 466),];

/// The highest number of the table that the profile was written against. A later call is answered with ENOSYS, so that a newer
/// C library falls back instead of believing that it lacks a permission.
const LAST_KNOWN: u32 = 466;

/// `socket` with these families beside 0 to 11; without AF_ALG, AF_VSOCK and others with a history of holes.
const SOCKET_FAMILIES: &[u64] =
    &[13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39, 41, 42, 43, 44, 45];

/// `personality` with these values: Linux, UNAME26, and asking for the present one.
const PERSONALITIES: &[u64] = &[0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// All CLONE_NEW* flags that `clone` takes.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

const CLONE: i64 = 56;
const SOCKET: i64 = 41;
const PERSONALITY: i64 = 135;
const CLONE3: u32 = 435;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Compiles the profile. The filters are applied in the order of the list: of two refusals the one applied last speaks.
pub(crate) fn compile() -> Result<Vec<BpfProgram>, String> {
    if !cfg!(target_arch = "x86_64") {
        return Err("there is a system call profile for x86_64 only in this version".to_owned());
    }
    Ok(vec![allow_list().map_err(|error| error.to_string())?, unknown_calls()])
}

fn allow_list() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|(_, number)| (*number, Vec::new())).collect();
    let rule = |length, operator, value| {
        SeccompCondition::new(0, length, operator, value).and_then(|condition| SeccompRule::new(vec![condition]))
    };
    let equal = |value: &u64| rule(SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, *value);
    let mut sockets = SOCKET_FAMILIES.iter().map(equal).collect::<Result<Vec<_>, _>>()?;
    sockets.push(rule(SeccompCmpArgLen::Dword, SeccompCmpOp::Lt, 12)?);
    rules.insert(SOCKET, sockets);
    rules.insert(PERSONALITY, PERSONALITIES.iter().map(equal).collect::<Result<Vec<_>, _>>()?);
    rules.insert(CLONE, vec![rule(SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(NEW_NAMESPACES), 0)?]);
    SeccompFilter::new(rules, SeccompAction::Errno(EPERM), SeccompAction::Allow, TargetArch::x86_64)?.try_into()
}

/// `clone3` keeps its flags in memory that a filter cannot read; with ENOSYS the C library uses `clone`.
fn unknown_calls() -> BpfProgram {
    // BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ / BPF_JGT / BPF_JGE | BPF_K, BPF_RET | BPF_K (linux/bpf_common.h).
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const GREATER: u16 = 0x25;
    const AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    const RET_ALLOW: u32 = 0x7fff_0000;
    const RET_ERRNO: u32 = 0x0005_0000;
    const X32_BIT: u32 = 0x4000_0000;
    let instruction = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        // struct seccomp_data begins with the number of the call; its architecture is the other filter's matter.
        instruction(LOAD, 0, 0, 0),
        instruction(EQUAL, 2, 0, CLONE3),
        instruction(AT_LEAST, 2, 0, X32_BIT),
        instruction(GREATER, 0, 1, LAST_KNOWN),
        instruction(RETURN, 0, 0, RET_ERRNO | ENOSYS),
        instruction(RETURN, 0, 0, RET_ALLOW),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_has_no_call_that_needs_a_capability() {
        assert!(ALLOWED.windows(2).all(|pair| pair[0].1 < pair[1].1));
        assert!(ALLOWED.last().unwrap().1 <= i64::from(LAST_KNOWN));
        for name in [
            "mount",
            "umount2",
            "setns",
            "unshare",
            "bpf",
            "perf_event_open",
            "keyctl",
            "add_key",
            "request_key",
            "chroot",
            "pivot_root",
            "open_by_handle_at",
            "init_module",
            "kexec_load",
            "reboot",
            "swapon",
            "settimeofday",
            "iopl",
            "userfaultfd",
            "io_uring_setup",
            "fsopen",
            "move_mount",
            "open_tree",
            "mount_setattr",
            "clone3",
            "clone",
            "socket",
            "personality",
            "syslog",
            "quotactl",
            "pidfd_getfd",
            "kcmp",
            "process_madvise",
        ] {
            assert!(ALLOWED.iter().all(|(allowed, _)| *allowed != name), "{name}");
        }
    }

    #[test]
    fn the_profile_compiles() {
        let filters = compile().unwrap();
        assert_eq!(filters.len(), 2);
        assert!(filters.iter().all(|filter| filter.len() < 4096));
    }
}
