//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use holdfast_libs_types::CellId;

use crate::admin::{self, AdminCommand, BeforeCommand};
use crate::show::ByteSize;

/// Self-hosted storage and file synchronisation.
#[derive(Parser)]
#[command(
    name = "holdfast",
    version,
    about,
    after_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 unreachable.",
    max_term_width = 100
)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Run a whole cell on this machine: every daemon, file-backed disks, two sync clients
    Dev(DevOptions),
    /// Run a node: the daemon of a storage server; or look at this machine's disks
    #[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
    Node(NodeOptions),
    /// Run the volume manager of a cell
    VolumeManager(ConfigFile),
    /// Run a frontend: it moves blocks
    Frontend(ConfigFile),
    /// Run the metadata tier and the HTTP API
    Metadata(ConfigFile),
    /// Keep a folder the same as an account's files
    Sync(ConfigFile),
    /// Look after a cell: its health, nodes, disks and volumes
    #[command(after_help = admin::HOW_TO_NAME_A_CELL)]
    Admin {
        #[command(flatten)]
        before: BeforeCommand,
        #[command(subcommand)]
        command: AdminCommand,
    },
    /// Link this machine to a server, for ls, put and get
    Login(LoginOptions),
    /// What the sync clients are doing
    Status(StatusOptions),
    /// List a folder
    Ls(LsOptions),
    /// Upload a file; replaces what is there and makes the folders above
    Put(PutOptions),
    /// Download a file; replaces FILE
    Get(GetOptions),
    /// Measure a running cell
    Bench {
        #[command(subcommand)]
        command: BenchCommand,
    },
}

#[derive(Args)]
pub struct ConfigFile {
    /// TOML file; every key can also be set as HOLDFAST__SECTION__KEY
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

#[derive(Args)]
pub struct NodeOptions {
    /// TOML file; every key can also be set as HOLDFAST__SECTION__KEY
    #[arg(long, value_name = "FILE", required = true)]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Option<NodeCommand>,
}

#[derive(Subcommand)]
pub enum NodeCommand {
    /// Match this machine with the hardware profiles: each disk with accept, or why it is rejected
    ///
    /// Only reads. Run it as root: it looks for file systems on the disks and asks smartctl for their health.
    #[command(
        after_help = "Exit codes: 0 a profile fits and at least one disk is accepted, 1 otherwise (the report is \
                            printed all the same), 2 usage."
    )]
    Probe(ProbeOptions),
    /// Switch the locate light of a bay
    #[command(after_help = "Exit codes: 0 the light was switched, 1 it was not, 2 usage.")]
    Locate(LocateOptions),
}

#[derive(Args, Clone)]
pub struct ProfileChoice {
    /// Name of a profile, or a file (with a / or ending in .toml) [default: the one that fits best]
    #[arg(long, value_name = "NAME|FILE")]
    pub profile: Option<String>,
    /// Folder with profiles of your own, *.toml, beside the shipped ones
    #[arg(long, value_name = "DIR")]
    pub profiles: Option<PathBuf>,
}

#[derive(Args)]
pub struct ProbeOptions {
    #[command(flatten)]
    pub choice: ProfileChoice,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub json: bool,
    /// Make a profile from the disks that are here, in a new file
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// Loop, RAM and device-mapper disks, too
    #[arg(long = "virtual")]
    pub virtual_disks: bool,
    /// Read sys, proc and dev under DIR, a recorded tree; disks are not asked for their health then
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    On,
    Off,
}

#[derive(Args)]
pub struct LocateOptions {
    /// Bay, as the profile calls it
    pub bay: String,
    #[arg(value_enum)]
    pub switch: Switch,
    #[command(flatten)]
    pub choice: ProfileChoice,
}

#[derive(Args, Clone)]
pub struct DevOptions {
    /// Folder for everything: disks, configuration, logs, the two synced folders
    #[arg(long, value_name = "DIR", default_value = "holdfast-dev")]
    pub data: PathBuf,
    /// Nodes in all, at least 3, dealt over three zones; those that DIR lacks are added [default: 3, or as DIR was made]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(3..=99))]
    pub nodes: Option<u32>,
    /// Disks a node; those that DIR lacks are added [default: 2, or as DIR was made]
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(1..=99))]
    pub disks: Option<u32>,
    /// Size of a disk, at least 256MiB; its space is taken slot by slot as it is used [default: 8GiB, or as DIR was made]
    #[arg(long, value_name = "SIZE")]
    pub disk_size: Option<ByteSize>,
    /// Address of the API [default: a free port on 127.0.0.1, kept for DIR]
    #[arg(long, value_name = "ADDR")]
    pub api: Option<SocketAddr>,
    /// Start no sync clients
    #[arg(long)]
    pub no_clients: bool,
    /// Start a daemon again when it dies
    #[arg(long)]
    pub restart: bool,
    /// Set a key of a daemon's configuration, for example frontend.cache.bytes=0
    #[arg(long = "set", value_name = "ROLE.KEY=VALUE")]
    pub set: Vec<String>,
}

/// Which cell or server a command speaks to.
#[derive(Args, Clone)]
pub struct Target {
    /// Speak to the cell that `holdfast dev --data DIR` runs
    #[arg(long, value_name = "DIR", env = "HOLDFAST_DEV")]
    pub dev: Option<PathBuf>,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct FormatDisk {
    /// Whole block device (by any of its names), or a file
    pub device: PathBuf,
    /// Configuration of this node: it names the cell and the slot size
    #[arg(long, value_name = "FILE", conflicts_with_all = ["cell", "slot_size"])]
    pub config: Option<PathBuf>,
    /// The cell, 32 hex digits, where there is no configuration yet
    #[arg(long, value_name = "ID")]
    pub cell: Option<CellId>,
    /// Bytes of a slot, one size in the whole cell [default: 1GiB]
    #[arg(long, value_name = "SIZE")]
    pub slot_size: Option<ByteSize>,
    /// Make a file of this size
    #[arg(long, value_name = "SIZE")]
    pub size: Option<ByteSize>,
    /// Erase what stands there; SERIAL is the disk's, typed out (the full path of a file or of a device without one)
    #[arg(long, value_name = "SERIAL")]
    pub force: Option<String>,
    /// Erase a Holdfast disk that holds N extents
    #[arg(long, value_name = "N")]
    pub erase_extents: Option<u32>,
    /// Print one JSON document on stdout, also when refused
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct LoginOptions {
    /// Address of the server, https://HOST:PORT
    #[arg(long, value_name = "URL")]
    pub server: String,
    /// CA certificate of the server, PEM
    #[arg(long, value_name = "FILE")]
    pub ca: PathBuf,
    /// User name
    #[arg(long)]
    pub user: String,
    /// File with the password; read from stdin when absent
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

#[derive(Args)]
pub struct StatusOptions {
    /// Configuration file of a sync client; may be given several times
    #[arg(long, value_name = "FILE")]
    pub config: Vec<PathBuf>,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Args)]
pub struct LsOptions {
    /// Folder
    #[arg(default_value = "/")]
    pub path: String,
    /// All that is below it, too
    #[arg(short, long)]
    pub recursive: bool,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Args)]
pub struct PutOptions {
    /// Local file
    pub file: PathBuf,
    /// Where to, beginning with /
    pub path: String,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Args)]
pub struct GetOptions {
    /// File on the server, beginning with /
    pub path: String,
    /// Local file
    pub file: PathBuf,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Subcommand)]
pub enum BenchCommand {
    /// Durable three-replica puts and gets of 4 MiB and 16 KiB blocks, with fio interleaved
    ///
    /// The blocks stay on the disks: nothing deletes blocks yet.
    Blocks(BenchBlocks),
    /// How fast a dev cell protects lost disks again, beside fio, and what clients feel of it
    ///
    /// Fills the cell, then pulls one disk after the other, each in another zone, and removes its file in the end, also when it fails
    /// or is interrupted: until then the space of pulled disks is needed beside that of the copies. Run it on a cell made for it,
    /// for example `holdfast dev --nodes 9 --disks 1 --no-clients`. MB are 10^6 bytes a second of data that has all replicas
    /// again; fio's are what it writes durably while it reads as much, and `2_reads` while it reads twice as much, as a repair
    /// does whose disks share a device. In a round with foreground, clients put and get blocks of 64 KiB for 30 s, then a disk is
    /// lost: `p99_ratio` is their 99th percentile during its repair over that before the loss, `put_p99_ratio` and
    /// `get_p99_ratio` are the same of puts and gets alone, `foreground_repair_mb_s` is the rate that the repair reached.
    Repair(BenchRepair),
    /// The storage engine on a disk, with fio doing the same I/O interleaved
    ///
    /// Durable appends of 4 MiB (depth 4) and 64 KiB (depth 8), reads of 4 MiB (depth 4) and 4 KiB records (depth 32), through a
    /// scratch disk file in DIR. MB are 10^6 bytes, GB 10^9. `..._to_fio` is the ratio to fio's figure of the same round;
    /// `cpu_..._to_limit` is CPU time over 1.5 times fio's plus what the checksum costs.
    Disk(BenchDisk),
}

#[derive(Args)]
pub struct BenchDisk {
    /// A folder on the disk to measure; about 1.5 GiB are written there for each round, then removed
    #[arg(value_name = "DIR")]
    pub path: PathBuf,
    /// Rounds; every figure is the median over them
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// 4 MiB appends, and reads, a round
    #[arg(long, default_value_t = 128, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=480))]
    pub large: usize,
    /// 64 KiB appends a round
    #[arg(long, default_value_t = 8192, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=60_000))]
    pub small: usize,
    /// 4 KiB reads a round
    #[arg(long, default_value_t = 50_000, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=10_000_000))]
    pub reads: usize,
    /// Leave fio out
    #[arg(long)]
    pub no_fio: bool,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct BenchRepair {
    /// Losses without foreground, each in a zone of its own; every figure is the median over them
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub rounds: u32,
    /// Losses with foreground after those, each in a zone of its own too
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub foreground_rounds: u32,
    /// Data that each disk holds before
    #[arg(long, value_name = "SIZE", default_value = "4GiB")]
    pub disk_bytes: ByteSize,
    /// Puts and gets a second in rounds with foreground; 0 leaves those out
    #[arg(long, default_value_t = 100)]
    pub ops: u32,
    /// Disks may be taken away and their files removed
    #[arg(long)]
    pub destroy_disks: bool,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Args)]
pub struct BenchBlocks {
    /// Rounds; every figure is the median over them
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Concurrent clients
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub clients: u16,
    /// 4 MiB blocks a round
    #[arg(long, default_value_t = 64)]
    pub large: usize,
    /// 16 KiB blocks a round
    #[arg(long, default_value_t = 4000)]
    pub small: usize,
    /// Leave fio out
    #[arg(long)]
    pub no_fio: bool,
    #[command(flatten)]
    pub target: Target,
}
