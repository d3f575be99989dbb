//! Every key of `balsa.toml`, declared once.
//!
//! Parsing, ranges, defaults, `balsa config show`, the nearest-key suggestions and the tables of `docs/configuration.md` all
//! derive from [`KEYS`]; a key that is not in this table does not exist. Each key says who obeys it:
//!
//! - [`Obeyed::AtOnce`]: each node, a second or two after an edit, without a restart;
//! - [`Obeyed::AtStart`]: each node when it starts, and it may differ from its peers (addresses, paths, timings);
//! - [`Obeyed::ByLog`]: it can change what a command does, so the file only *proposes* it, also later, and the replicated log
//!   decides: what the files of a majority of voters ask for is proposed;
//! - [`Obeyed::AtFounding`]: it says who founds the cluster. Once there is one, nobody asks the file again.

use std::fmt;

/// One key.
#[derive(Debug)]
pub struct Key {
    /// `section.name`: its identity.
    pub path: &'static str,
    /// What may stand there.
    pub kind: Kind,
    /// What holds when nobody sets it.
    pub default: Default,
    /// Who obeys it.
    pub obeyed: Obeyed,
    /// One or two sentences for the reference.
    pub doc: &'static str,
}

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A name: letters, digits, `-`, `_` and `.`.
    Name,
    /// A template that gives a name.
    NameTemplate,
    /// A template that gives a directory.
    Path,
    /// A file.
    File,
    /// A template that gives an IP address and port to listen on.
    Listen,
    /// A template that gives a `host:port` for others to connect to.
    Reach,
    /// `http://host:port` of another server.
    Url,
    /// A number from 0 to 1.
    Fraction,
    /// A whole number.
    Integer(u64, u64),
    /// Milliseconds.
    Millis(u64, u64),
    /// Bytes: a whole number, or text with a unit.
    Bytes(u64, u64),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// True or false.
    Switch,
}

/// What holds when nobody sets a key.
#[derive(Debug, Clone, Copy)]
pub enum Default {
    /// This number.
    Number(u64),
    /// This text.
    Text(&'static str),
    /// True or false.
    Switch(bool),
    /// It follows from other things, said in words.
    Follows(&'static str),
    /// It must be set.
    Required,
}

/// Who obeys a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obeyed {
    /// Each node, a second or two after an edit.
    AtOnce,
    /// Each node, when it starts.
    AtStart,
    /// The replicated log: the files propose.
    ByLog,
    /// The nodes that found a cluster, and nobody later.
    AtFounding,
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
/// Nine voters need five to agree; above that each write waits for more disks and nothing is gained.
pub const REPLICAS_MAX: u64 = 9;

/// One section: its name, what it is about, and whether it is written `[[name]]`.
#[derive(Debug)]
pub struct Section {
    /// The name between the brackets.
    pub name: &'static str,
    /// What it is about.
    pub doc: &'static str,
    /// Whether it is an array of tables.
    pub repeated: bool,
}

/// The sections, in the order of the reference.
pub const SECTIONS: &[Section] = &[
    Section { name: "node", doc: "This node: its name, its directory, its addresses.", repeated: false },
    Section { name: "cluster", doc: "Who takes part.", repeated: false },
    Section {
        name: "module",
        doc: "A module to run, in a section of its own for each. Without any it is the built-in key/value store.",
        repeated: true,
    },
    Section {
        name: "limits",
        doc: "What a command, a query and a module's migration may use, and how long retries are recognised.",
        repeated: false,
    },
    Section { name: "raft", doc: "Elections and the length of the log.", repeated: false },
    Section { name: "storage", doc: "The state's database.", repeated: false },
    Section { name: "log", doc: "What the node writes to standard error.", repeated: false },
    Section {
        name: "otlp",
        doc: "Traces of calls, for a collector that speaks OpenTelemetry's OTLP; see [operations.md](operations.md#traces).",
        repeated: false,
    },
];

/// The keys, in the order of the reference.
pub const KEYS: &[Key] = &[
    Key {
        path: "node.name",
        kind: Kind::Name,
        default: Default::Follows("the host's name"),
        obeyed: Obeyed::AtStart,
        doc: "Which of the cluster's nodes this is. Leave it out of the file, which all nodes share: `serve --name` or the host's \
              name (in Kubernetes the pod's) says it. In a cluster of one, any host is the first node.",
    },
    Key {
        path: "node.data_dir",
        kind: Kind::Path,
        default: Default::Text("balsa-data/{name}"),
        obeyed: Obeyed::AtStart,
        doc: "Where the node keeps its log and state. A relative path in the file starts from the file's directory; anywhere else, \
              from the current one.",
    },
    // Nodes of one host are 100 apart and not 10, since sshd's X11 forwarding takes 6010 and the ports after it.
    Key {
        path: "node.client_addr",
        kind: Kind::Listen,
        default: Default::Text("127.0.0.1:{6000 + 100 * ordinal}"),
        obeyed: Obeyed::AtStart,
        doc: "Where clients are served (gRPC): the address to listen on.",
    },
    Key {
        path: "node.peer_addr",
        kind: Kind::Listen,
        default: Default::Text("127.0.0.1:{6001 + 100 * ordinal}"),
        obeyed: Obeyed::AtStart,
        doc: "Where the other nodes are served: the address to listen on.",
    },
    Key {
        path: "node.http_addr",
        kind: Kind::Listen,
        default: Default::Text("127.0.0.1:{6080 + 100 * ordinal}"),
        obeyed: Obeyed::AtStart,
        doc: "Where `/livez`, `/readyz` and `/metrics` are served: the address to listen on.",
    },
    Key {
        path: "node.socket",
        kind: Kind::Path,
        default: Default::Follows("`balsa.sock` in data_dir"),
        obeyed: Obeyed::AtStart,
        doc: "A Unix socket, for operators on the node's machine or in its pod: what changes the cluster is served there and on \
              peer_addr only. Its mode is 0600. A relative path in the file starts from the file's directory.",
    },
    Key {
        path: "node.advertise_client_addr",
        kind: Kind::Reach,
        default: Default::Follows("client_addr"),
        obeyed: Obeyed::AtStart,
        doc: "How clients reach a node: `host:port`. Needed when client_addr is `0.0.0.0` or `[::]`.",
    },
    Key {
        path: "node.advertise_peer_addr",
        kind: Kind::Reach,
        default: Default::Follows("peer_addr"),
        obeyed: Obeyed::AtStart,
        doc: "How the other nodes reach a node: `host:port`. Needed when peer_addr is `0.0.0.0` or `[::]`.",
    },
    Key {
        path: "node.query_threads",
        kind: Kind::Integer(1, 64),
        default: Default::Number(2),
        obeyed: Obeyed::AtStart,
        doc: "Threads that run queries. Commands have one of their own.",
    },
    Key {
        path: "node.max_connection_age_ms",
        kind: Kind::Millis(0, 86_400_000),
        default: Default::Number(300_000),
        obeyed: Obeyed::AtStart,
        doc: "About how old a client's connection gets (a tenth more or less): then the client is told to make a new one, which may \
              lead to another node, so that clients spread over nodes that came back. Calls under way end on the old one. 0: any age.",
    },
    // Kubernetes' probes of k8s/: two that fail, 3 s apart, and a second until everybody has heard of it.
    Key {
        path: "node.drain_wait_ms",
        kind: Kind::Millis(0, 45_000),
        default: Default::Number(7_000),
        obeyed: Obeyed::AtStart,
        doc: "After SIGTERM the node says at `/readyz` that it is not ready, and goes on serving for as long, until load balancers \
              have noticed. SIGINT (Ctrl-C, `balsa up`) does not wait, nor does a node that has never been ready.",
    },
    Key {
        path: "cluster.name",
        kind: Kind::Name,
        default: Default::Text("balsa"),
        obeyed: Obeyed::AtFounding,
        doc: "The cluster's name. Nodes of clusters with different names do not found one together.",
    },
    Key {
        path: "cluster.replicas",
        kind: Kind::Integer(1, REPLICAS_MAX),
        default: Default::Number(1),
        obeyed: Obeyed::ByLog,
        doc: "How many nodes there are: at first those that found the cluster, then those that a majority of the voters' files want. \
              Raised, nodes with the new ordinals are let in; lowered, those beyond it are removed; left out of the file, \
              nobody is. Three go on when one is lost, five when two are. Even numbers are allowed with a warning: four nodes stand \
              no more losses than three.",
    },
    Key {
        path: "cluster.node_name",
        kind: Kind::NameTemplate,
        default: Default::Text("{cluster}-{ordinal}"),
        obeyed: Obeyed::AtFounding,
        doc: "The nodes' names. In Kubernetes, the StatefulSet's name and the ordinal: `\"balsa-{ordinal}\"`.",
    },
    Key {
        path: "module.name",
        kind: Kind::Name,
        default: Default::Required,
        obeyed: Obeyed::ByLog,
        doc: "The module's name, the one it was built with.",
    },
    Key {
        path: "module.path",
        kind: Kind::File,
        default: Default::Required,
        obeyed: Obeyed::ByLog,
        doc: "Its `.wasm` file, plain or compressed with zstd (`.wasm.zst`). A relative path starts from the directory of \
              `balsa.toml`.",
    },
    Key {
        path: "module.allow_breaking",
        kind: Kind::Switch,
        default: Default::Switch(false),
        obeyed: Obeyed::ByLog,
        doc: "Whether the module may replace one that clients could tell it from: a method gone, a field's type changed. Take it \
              out again once that is done.",
    },
    Key {
        path: "module.command_fuel",
        kind: Kind::Integer(100_000, 1_000_000_000),
        default: Default::Follows("limits.command_fuel"),
        obeyed: Obeyed::ByLog,
        doc: "Fuel of one command of this module.",
    },
    Key {
        path: "module.query_fuel",
        kind: Kind::Integer(100_000, 60_000_000_000),
        default: Default::Follows("limits.query_fuel"),
        obeyed: Obeyed::ByLog,
        doc: "Fuel of one query of this module.",
    },
    Key {
        path: "limits.command_fuel",
        kind: Kind::Integer(100_000, 1_000_000_000),
        default: Default::Number(50_000_000),
        obeyed: Obeyed::ByLog,
        doc: "Fuel of one command, about one unit per wasm instruction; 50 million are some 50 ms. All commands wait for the one \
              that runs, so keep it far below the election timeout.",
    },
    Key {
        path: "limits.query_fuel",
        kind: Kind::Integer(100_000, 60_000_000_000),
        default: Default::Number(200_000_000),
        obeyed: Obeyed::ByLog,
        doc: "Fuel of one query.",
    },
    Key {
        path: "limits.memory_bytes",
        kind: Kind::Bytes(MIB, 256 * MIB),
        default: Default::Number(16 * MIB),
        obeyed: Obeyed::ByLog,
        doc: "Linear memory of one call.",
    },
    Key {
        path: "limits.idempotency_window_ms",
        kind: Kind::Millis(1_000, 24 * 3_600_000),
        default: Default::Number(120_000),
        obeyed: Obeyed::ByLog,
        doc: "How long a retry with the same idempotency key gets the first reply. Later it is refused, never run again.",
    },
    Key {
        path: "limits.idempotency_keys",
        kind: Kind::Integer(1_000, 100_000_000),
        default: Default::Number(1_000_000),
        obeyed: Obeyed::ByLog,
        doc: "Idempotency keys kept at most; above it new keys are refused until old ones leave the window.",
    },
    Key {
        path: "limits.idempotency_bytes",
        kind: Kind::Bytes(MIB, 64 * GIB),
        default: Default::Number(512 * MIB),
        obeyed: Obeyed::ByLog,
        doc: "Bytes of kept replies at most; above it large replies' new keys are refused.",
    },
    Key {
        path: "limits.migrate_fuel",
        kind: Kind::Integer(1_000_000, 60_000_000_000),
        default: Default::Number(2_000_000_000),
        obeyed: Obeyed::ByLog,
        doc: "Fuel of a module's first run under its name (`init`) and of the run that takes over another version's state \
              (`migrate`). All commands wait meanwhile.",
    },
    Key {
        path: "limits.migrate_writes",
        kind: Kind::Integer(1, 10_000_000),
        default: Default::Number(100_000),
        obeyed: Obeyed::ByLog,
        doc: "Rows that such a run may write. They are held in memory until it ends, on the smallest node too.",
    },
    Key {
        path: "limits.migrate_bytes",
        kind: Kind::Bytes(MIB, GIB),
        default: Default::Number(64 * MIB),
        obeyed: Obeyed::ByLog,
        doc: "Bytes of keys and values that such a run may write.",
    },
    Key {
        path: "raft.heartbeat_interval_ms",
        kind: Kind::Millis(10, 60_000),
        default: Default::Number(125),
        obeyed: Obeyed::AtStart,
        doc: "How often a leader shows that it is there.",
    },
    Key {
        path: "raft.election_timeout_min_ms",
        kind: Kind::Millis(50, 600_000),
        default: Default::Number(500),
        obeyed: Obeyed::AtStart,
        doc: "A follower that has heard nothing for election_timeout_max_ms waits for a random time of at least this, and then \
              stands for election: by default after 1.5 to 2 seconds in all. Must be above the heartbeat interval; four times is a \
              good start.",
    },
    Key {
        path: "raft.election_timeout_max_ms",
        kind: Kind::Millis(50, 600_000),
        default: Default::Number(1_000),
        obeyed: Obeyed::AtStart,
        doc: "The upper end of that random time; and for how long nobody votes for another leader than the one last heard of. Must \
              be above election_timeout_min_ms.",
    },
    Key {
        path: "raft.snapshot_log_bytes",
        kind: Kind::Bytes(MIB, 64 * GIB),
        default: Default::Number(256 * MIB),
        obeyed: Obeyed::AtStart,
        doc: "A snapshot is due whenever the log has grown by this much.",
    },
    Key {
        path: "raft.keep_log_bytes",
        kind: Kind::Bytes(0, 1024 * GIB),
        default: Default::Number(GIB),
        obeyed: Obeyed::AtStart,
        doc: "Log kept behind a snapshot, so that a node that was away for a while catches up without one.",
    },
    Key {
        path: "storage.cache_bytes",
        kind: Kind::Bytes(MIB, 1024 * GIB),
        default: Default::Number(256 * MIB),
        obeyed: Obeyed::AtStart,
        doc: "The database's cache.",
    },
    Key {
        path: "storage.checkpoint_bytes",
        kind: Kind::Bytes(64 * KIB, 4 * GIB),
        default: Default::Number(16 * MIB),
        obeyed: Obeyed::AtStart,
        doc: "The state is made durable after this many changed bytes; what is lost in a crash is applied again from the log.",
    },
    Key {
        path: "storage.checkpoint_interval_ms",
        kind: Kind::Millis(10, 3_600_000),
        default: Default::Number(5_000),
        obeyed: Obeyed::AtStart,
        doc: "... or after this long, if anything changed.",
    },
    Key {
        path: "log.format",
        kind: Kind::Choice(&["text", "json"]),
        default: Default::Text("text"),
        obeyed: Obeyed::AtStart,
        doc: "`text` for people, `json` (one object a line) for machines.",
    },
    Key {
        path: "log.level",
        kind: Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        default: Default::Text("info"),
        obeyed: Obeyed::AtOnce,
        doc: "The least important lines that are still written.",
    },
    Key {
        path: "otlp.endpoint",
        kind: Kind::Url,
        default: Default::Follows("no traces"),
        obeyed: Obeyed::AtStart,
        doc: "The collector: OTLP over gRPC, without TLS.",
    },
    Key {
        path: "otlp.sample_ratio",
        kind: Kind::Fraction,
        default: Default::Text("0.01"),
        obeyed: Obeyed::AtStart,
        doc: "Which part of the calls is traced, of those that come without a `traceparent`; one that comes with it says itself \
              whether it is.",
    },
];

/// The key `section.name`.
pub fn find(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.section() == section && key.name() == name)
}

/// The section of that name.
pub fn section(name: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|section| section.name == name)
}

/// The keys of a section.
pub fn keys_of(section: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.section() == section)
}

/// The key of that name, in whichever section; one that there is once before one of each `[[module]]`.
pub fn named(name: &str) -> Option<&'static Key> {
    KEYS.iter().filter(|key| key.name() == name).min_by_key(|key| key.is_repeated())
}

/// The closest of `candidates`, if it is close enough to be what was meant.
pub fn nearest<'a>(wrong: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_lowercase().replace('-', "_");
    candidates
        .map(|candidate| (strsim::jaro_winkler(&wrong, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

impl Section {
    /// The line that it begins with: `[name]`, or `[[name]]`.
    pub fn title(&self) -> String {
        if self.repeated { format!("[[{}]]", self.name) } else { format!("[{}]", self.name) }
    }
}

impl Key {
    /// The part before the dot.
    pub fn section(&self) -> &'static str {
        self.path.split_once('.').expect("every path has a dot").0
    }

    /// The part after the dot.
    pub fn name(&self) -> &'static str {
        self.path.split_once('.').expect("every path has a dot").1
    }

    /// Whether there is one value for each section of that name, and not just one.
    pub fn is_repeated(&self) -> bool {
        section(self.section()).expect("every key's section is declared").repeated
    }

    /// The environment variable that sets it; a repeated section's keys have none.
    pub fn variable(&self) -> Option<String> {
        (!self.is_repeated()).then(|| format!("BALSA_{}__{}", self.section(), self.name()).to_uppercase())
    }
}

impl Kind {
    /// The smallest and largest number, where there are such.
    pub fn range(self) -> Option<(u64, u64)> {
        match self {
            Self::Integer(min, max) | Self::Millis(min, max) | Self::Bytes(min, max) => Some((min, max)),
            _ => None,
        }
    }

    /// A number of this kind, as people write it.
    pub fn number(self, value: u64) -> String {
        match self {
            Self::Bytes(..) => bytes(value),
            Self::Millis(..) => format!("{value} ms"),
            _ => value.to_string(),
        }
    }

    /// What is expected, in the words of an error message.
    pub fn expected(self) -> &'static str {
        match self {
            Self::Name
            | Self::NameTemplate
            | Self::Path
            | Self::File
            | Self::Listen
            | Self::Reach
            | Self::Url
            | Self::Choice(_) => "text in quotes",
            Self::Integer(..) => "a whole number",
            Self::Millis(..) => "a whole number of milliseconds",
            Self::Bytes(..) => "a whole number of bytes, or text such as \"64 MiB\"",
            Self::Fraction => "a number from 0 to 1",
            Self::Switch => "true or false, without quotes",
        }
    }
}

/// `value` bytes in the largest unit that divides it.
pub fn bytes(value: u64) -> String {
    let units = [("TiB", 1024 * GIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)];
    let unit = units.into_iter().find(|(_, size)| value >= *size && value.is_multiple_of(*size));
    unit.map_or_else(|| format!("{value} B"), |(name, size)| format!("{} {name}", value / size))
}

/// What [`bytes()`] wrote, read back; also with no unit.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.trim().find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.trim().len());
    let (number, unit) = text.trim().split_at(digits);
    let size = match unit.trim() {
        "" | "B" => 1,
        "KiB" => KIB,
        "MiB" => MIB,
        "GiB" => GIB,
        "TiB" => 1024 * GIB,
        _ => return None,
    };
    number.replace('_', "").parse::<u64>().ok()?.checked_mul(size)
}

impl fmt::Display for Obeyed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtOnce => "at once",
            Self::AtStart => "at start",
            Self::ByLog => "by the log",
            Self::AtFounding => "at founding",
        })
    }
}

/// The reference: one table per section, in Markdown, as it stands in `docs/configuration.md`.
pub fn reference() -> String {
    SECTIONS.iter().map(section_reference).collect()
}

fn section_reference(section: &Section) -> String {
    let rows: String = keys_of(section.name).map(row).collect();
    format!(
        "### `{}`\n\n{}\n\n| Key | Holds | Default | Obeyed | Meaning |\n|---|---|---|---|---|\n{rows}\n",
        section.title(),
        section.doc
    )
}

fn row(key: &Key) -> String {
    let default = match key.default {
        Default::Number(number) => key.kind.number(number),
        Default::Text(text) if key.kind == Kind::Fraction => text.to_owned(),
        Default::Text(text) => format!("`\"{text}\"`"),
        Default::Switch(on) => on.to_string(),
        Default::Follows(words) => words.to_owned(),
        Default::Required => "none: must be set".to_owned(),
    };
    format!("| `{}` | {} | {default} | {} | {} |\n", key.name(), holds(key.kind), key.obeyed, key.doc)
}

fn holds(kind: Kind) -> String {
    match kind {
        Kind::Name => "name".to_owned(),
        Kind::NameTemplate => "name, template".to_owned(),
        Kind::Path => "path, template".to_owned(),
        Kind::File => "path".to_owned(),
        Kind::Listen => "`IP:port`, template".to_owned(),
        Kind::Reach => "`host:port`, template".to_owned(),
        Kind::Url => "`http://host:port`".to_owned(),
        Kind::Fraction => "number, 0 to 1".to_owned(),
        Kind::Choice(words) => words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", "),
        Kind::Integer(min, max) => format!("number, {min} to {max}"),
        Kind::Millis(min, max) => format!("milliseconds, {min} to {max}"),
        Kind::Bytes(min, max) => format!("bytes, {} to {}", bytes(min), bytes(max)),
        Kind::Switch => "`true`, `false`".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Replicated;

    fn default_of(path: &str) -> u64 {
        match KEYS.iter().find(|key| key.path == path).expect("declared").default {
            Default::Number(number) => number,
            other => panic!("{path} has no default number but {other:?}"),
        }
    }

    #[test]
    fn every_key_has_a_declared_section_and_its_default_is_in_range() {
        for key in KEYS {
            assert!(section(key.section()).is_some(), "{}", key.path);
            if let (Some((min, max)), Default::Number(number)) = (key.kind.range(), key.default) {
                assert!((min..=max).contains(&number), "{}", key.path);
            }
        }
    }

    #[test]
    fn the_replicated_limits_of_the_file_and_of_the_code_have_the_same_defaults() {
        let file = Replicated {
            command_fuel: default_of("limits.command_fuel"),
            query_fuel: default_of("limits.query_fuel"),
            memory_bytes: default_of("limits.memory_bytes"),
            idempotency_window_ms: default_of("limits.idempotency_window_ms"),
            idempotency_keys: default_of("limits.idempotency_keys"),
            idempotency_bytes: default_of("limits.idempotency_bytes"),
            migrate_fuel: default_of("limits.migrate_fuel"),
            migrate_writes: default_of("limits.migrate_writes"),
            migrate_bytes: default_of("limits.migrate_bytes"),
        };
        assert_eq!(file, Replicated::default());
    }

    #[test]
    fn bytes_are_read_as_they_are_written() {
        for value in [0, 1, 1000, 1024, 1536, 256 * MIB, GIB, 3 * 1024 * GIB] {
            assert_eq!(parse_bytes(&bytes(value)), Some(value));
        }
        assert_eq!(parse_bytes("64MiB"), Some(64 * MIB));
        assert_eq!(parse_bytes("1_000"), Some(1000));
        assert_eq!(parse_bytes("64 MB"), None, "a thousand or 1024? say which");
        assert_eq!(parse_bytes("99999999999 TiB"), None);
    }

    #[test]
    fn only_what_is_close_is_suggested() {
        let names = || KEYS.iter().map(Key::name);
        assert_eq!(nearest("heartbeat_ms", names()), Some("heartbeat_interval_ms"));
        assert_eq!(nearest("data-dir", names()), Some("data_dir"));
        assert_eq!(nearest("zzz", names()), None);
    }
}
