//! What the engine does where the system gives it less: no locked memory, no io_uring. And that it uses what it says.
#![allow(clippy::unwrap_used, unsafe_code)]

mod support;

use holdfast_node_engine::{Disk, IoMode, IoPath, OpenError};
use support::{EPOCH, batch, block_on, directory, make_disk, open, options, volume};

/// Appends and reads back.
fn works(disk: &Disk) {
    block_on(disk.create_extent(volume(1), EPOCH)).unwrap();
    let (bytes, _) = batch(volume(1), EPOCH, 0, 0, &[vec![7; 50_000]]);
    let mut buffer = disk.buffer(bytes.len()).unwrap();
    buffer.extend_from_slice(&bytes).unwrap();
    block_on(disk.append(volume(1), EPOCH, 0, buffer)).unwrap();
    assert_eq!(block_on(disk.read(volume(1), 0, bytes.len() as u32)).unwrap()[..], bytes[..]);
}

#[test]
fn the_descriptors_of_an_open_disk_show_o_direct_and_an_io_uring() {
    let dir = directory();
    let path = make_disk(dir.path(), "disk", 32 << 20, 1 << 20);
    let disk = open(&path, IoMode::Uring);
    works(&disk);
    let (mut direct, mut ring) = (false, false);
    for entry in std::fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        ring |= target.to_string_lossy().contains("io_uring");
        if target == path.canonicalize().unwrap() {
            let fd = entry.file_name();
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.to_string_lossy())).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
            let flags = i32::from_str_radix(flags, 8).unwrap();
            direct |= flags & libc::O_DIRECT != 0;
        }
    }
    assert!(direct && ring);
}

/// Takes CAP_IPC_LOCK from this thread (and those it starts), so that RLIMIT_MEMLOCK counts for root as well.
fn drop_ipc_lock() {
    const VERSION_3: u32 = 0x2008_0522;
    const CAP_IPC_LOCK: u32 = 14;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut sets = [0u32; 6];
    // SAFETY: the kernel reads and writes two structs of three u32 each, which `sets` has room for.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()), 0);
        for set in &mut sets[..2] {
            *set &= !(1 << CAP_IPC_LOCK);
        }
        assert_eq!(libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()), 0);
    }
}

#[test]
fn memory_that_may_not_be_locked_is_used_unregistered_and_the_status_says_so() {
    std::thread::spawn(|| {
        drop_ipc_lock();
        let limit = libc::rlimit { rlim_cur: 64 << 10, rlim_max: 64 << 10 };
        // SAFETY: a plain system call on a struct of ours. Other tests of this process keep the capability.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) }, 0);
        let dir = directory();
        let disk = open(&make_disk(dir.path(), "disk", 32 << 20, 1 << 20), IoMode::Uring);
        assert_eq!(disk.status().io, IoPath::UringPlain);
        works(&disk);
    })
    .join()
    .unwrap();
}

/// Makes io_uring_setup fail with EPERM for this thread and those it starts, as a container's seccomp profile does.
fn refuse_io_uring() {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut program = [
        // The system call's number stands first in seccomp_data.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            jt: 0,
            jf: 1,
            k: libc::SYS_io_uring_setup as u32,
        },
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: `filter` and its program live through the calls; both affect this thread only.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter), 0);
    }
}

#[test]
fn where_io_uring_is_refused_threads_do_the_work_and_the_status_says_so() {
    std::thread::spawn(|| {
        refuse_io_uring();
        let dir = directory();
        let path = make_disk(dir.path(), "disk", 32 << 20, 1 << 20);
        let error = Disk::open(&path, options(IoMode::Uring)).unwrap_err();
        assert!(matches!(error, OpenError::NoUring { .. }), "{error}");
        let disk = open(&path, IoMode::Auto);
        assert_eq!(disk.status().io, IoPath::Threads);
        works(&disk);
    })
    .join()
    .unwrap();
}
