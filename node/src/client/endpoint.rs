//! Where the cluster is: addresses from the command line, the environment, a local cluster's file, or the default.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The client port of a node.
pub const DEFAULT_PORT: u16 = 6000;

/// The directory of a local cluster, unless another one is given.
pub const LOCAL_DIRECTORY: &str = ".balsa";
/// That of `balsa dev`, in the project's.
pub const DEV_DIRECTORY: &str = ".balsa-dev";
/// Written by `balsa up` and `balsa dev` into their directory: one `host:port` a line.
pub const FILE_NAME: &str = "endpoints";
/// Beside it: the nodes' sockets for operators, one `unix:/path` a line.
pub const SOCKETS_FILE_NAME: &str = "sockets";

/// The address of one node. Shown as `host:port`, or as `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// A port.
    Port {
        /// A name, an IPv4 address, or an IPv6 address in brackets.
        host: String,
        /// Its number.
        port: u16,
    },
    /// The Unix socket of a node on this machine, for operators.
    Socket(PathBuf),
}

impl Endpoint {
    /// `host` is a name, an IPv4 address, or an IPv6 address in brackets.
    pub fn new(host: &str, port: u16) -> Self {
        Self::Port { host: host.into(), port }
    }

    /// As an HTTP/2 client wants it.
    pub fn uri(&self) -> String {
        match self {
            Self::Port { .. } => format!("http://{self}"),
            Self::Socket(_) => self.to_string(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { host, port } => write!(f, "{host}:{port}"),
            Self::Socket(path) => write!(f, "{SOCKET_SCHEME}{}", path.display()),
        }
    }
}

/// What stands before the path of a socket.
const SOCKET_SCHEME: &str = "unix:";

/// Why a text is not an address of a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Nothing there.
    #[error("an endpoint is empty; write host:port, such as 127.0.0.1:{DEFAULT_PORT}")]
    Empty,
    /// Encrypted endpoints do not exist yet.
    #[error("'{0}' asks for TLS, which nodes do not speak yet; write host:port")]
    Tls(String),
    /// After the last colon.
    #[error("'{0}' does not end in a port from 1 to 65535; write host:port, such as 127.0.0.1:{DEFAULT_PORT}")]
    Port(String),
    /// Before the last colon.
    #[error("'{0}' is not a host and a port; write host:port, and an IPv6 address in brackets: [::1]:{DEFAULT_PORT}")]
    Host(String),
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    /// `host:port`, `host` (with the default port), `[::1]:port`, each with `http://` before it or a `/` after it; or `unix:/path`.
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let text = text.trim();
        if let Some(path) = text.strip_prefix(SOCKET_SCHEME) {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(EndpointError::Empty) } else { Ok(Self::Socket(path.into())) };
        }
        if text.starts_with("https://") {
            return Err(EndpointError::Tls(text.into()));
        }
        let bare = text.strip_prefix("http://").unwrap_or(text);
        let bare = bare.strip_suffix('/').unwrap_or(bare);
        let (host, port) = match bare.rsplit_once(':') {
            Some((host, port)) if !bare.ends_with(']') => (host, Some(port)),
            _ => (bare, None),
        };
        let port = match port.map(str::parse::<u16>) {
            None => DEFAULT_PORT,
            Some(Ok(port)) if port > 0 => port,
            Some(_) => return Err(EndpointError::Port(text.into())),
        };
        match host {
            "" if bare.is_empty() => Err(EndpointError::Empty),
            _ if is_host(host) => Ok(Self::new(host, port)),
            _ => Err(EndpointError::Host(text.into())),
        }
    }
}

fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().is_ok();
    }
    !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

/// Addresses, and where they came from: an error that says nothing answers says that too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// Never empty.
    pub list: Vec<Endpoint>,
    /// Who said so.
    pub source: Source,
}

/// Where addresses came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `--endpoints` or `BALSA_ENDPOINTS`.
    Given,
    /// `--peers` or `--socket`, or their variables.
    GivenToOperators,
    /// What the nodes at `--endpoints` said that their ports for peers are.
    Peers,
    /// A node's configuration, which is that of the node that runs here, if one does.
    Configuration,
    /// The file of a local cluster.
    File(PathBuf),
    /// Nobody said anything.
    Default,
}

/// Why a local cluster's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It exists, but.
    #[error("cannot read {}: {error}", .path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A line of it.
    #[error("{}, line {line}: {error}", .path.display())]
    Line {
        /// Which.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Why.
        error: EndpointError,
    },
    /// There is none where one was said to be.
    #[error("no local cluster runs in {dir}: there is no {dir}/endpoints; start it with `balsa up --dir {dir}`", dir = .0.display())]
    NotThere(PathBuf),
    /// No address in it.
    #[error("{} names no endpoint; start the cluster again with `{}`, or use --endpoints", .0.display(), started_by(.0))]
    Empty(PathBuf),
}

impl Endpoints {
    /// `given`; else the local cluster in `local`; else that of `directory` or above it; else the default.
    pub fn find(given: &[Endpoint], local: Option<&Path>, directory: &Path) -> Result<Self, FileError> {
        if !given.is_empty() {
            return Ok(Self { list: given.to_vec(), source: Source::Given });
        }
        match Self::of_local(FILE_NAME, local, directory)? {
            Some(found) => Ok(found),
            None => Ok(Self { list: vec![Endpoint::new("127.0.0.1", DEFAULT_PORT)], source: Source::Default }),
        }
    }

    /// Where operators reach the local cluster in `local`; else that of `directory` or above it, if there is one.
    pub fn sockets(local: Option<&Path>, directory: &Path) -> Result<Option<Self>, FileError> {
        Self::of_local(SOCKETS_FILE_NAME, local, directory)
    }

    /// Those in the file of that name of a local cluster.
    fn of_local(name: &str, local: Option<&Path>, directory: &Path) -> Result<Option<Self>, FileError> {
        if let Some(local) = local {
            let path = directory.join(local).join(name);
            return match std::fs::read_to_string(&path) {
                Ok(text) => Self::from_file(path, &text).map(Some),
                Err(error) if absent(&error) => Err(FileError::NotThere(local.to_owned())),
                Err(error) => Err(FileError::Unreadable { path, error }),
            };
        }
        let places = directory.ancestors().flat_map(|up| [LOCAL_DIRECTORY, DEV_DIRECTORY].map(|local| up.join(local)));
        for path in places.map(|local| local.join(name)) {
            match std::fs::read_to_string(&path) {
                Ok(text) => return Self::from_file(path, &text).map(Some),
                Err(error) if absent(&error) => {}
                Err(error) => return Err(FileError::Unreadable { path, error }),
            }
        }
        Ok(None)
    }

    fn from_file(path: PathBuf, text: &str) -> Result<Self, FileError> {
        let mut list = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match line.parse() {
                Ok(endpoint) => list.push(endpoint),
                Err(error) => return Err(FileError::Line { path, line: at + 1, error }),
            }
        }
        if list.is_empty() {
            return Err(FileError::Empty(path));
        }
        Ok(Self { list, source: Source::File(path) })
    }
}

/// What writes the file at `path`.
pub fn started_by(path: &Path) -> &'static str {
    let is_dev = path.parent().is_some_and(|local| local.ends_with(DEV_DIRECTORY));
    if is_dev { "balsa dev" } else { "balsa up" }
}

fn absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, String> {
        text.parse::<Endpoint>().map(|endpoint| endpoint.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_endpoint_is_host_and_port_in_any_usual_spelling() {
        for text in ["127.0.0.1:6000", "http://127.0.0.1:6000", "http://127.0.0.1:6000/", " 127.0.0.1 "] {
            assert_eq!(parse(text).as_deref(), Ok("127.0.0.1:6000"), "{text}");
        }
        assert_eq!(parse("balsa-0.balsa:7000").as_deref(), Ok("balsa-0.balsa:7000"));
        assert_eq!(parse("[::1]:7000").as_deref(), Ok("[::1]:7000"));
        assert_eq!(parse("[::1]").as_deref(), Ok("[::1]:6000"));
    }

    #[test]
    fn a_wrong_endpoint_says_what_would_be_right() {
        let errors = ["", "https://a:1", "a:port", "a:0", "a:70000", "::1", "a b:1", "a/b:1"]
            .map(|text| parse(text).unwrap_err());
        insta::assert_snapshot!(errors.join("\n"), @"
        an endpoint is empty; write host:port, such as 127.0.0.1:6000
        'https://a:1' asks for TLS, which nodes do not speak yet; write host:port
        'a:port' does not end in a port from 1 to 65535; write host:port, such as 127.0.0.1:6000
        'a:0' does not end in a port from 1 to 65535; write host:port, such as 127.0.0.1:6000
        'a:70000' does not end in a port from 1 to 65535; write host:port, such as 127.0.0.1:6000
        '::1' is not a host and a port; write host:port, and an IPv6 address in brackets: [::1]:6000
        'a b:1' is not a host and a port; write host:port, and an IPv6 address in brackets: [::1]:6000
        'a/b:1' is not a host and a port; write host:port, and an IPv6 address in brackets: [::1]:6000
        ");
    }

    #[test]
    fn given_endpoints_win_over_the_file_of_a_local_cluster_which_wins_over_the_default() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        let found = Endpoints::find(&[], None, &deep).unwrap();
        assert_eq!(found.source, Source::Default);

        let file = directory.path().join(".balsa/endpoints");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "# balsa up\n127.0.0.1:6000\n\n127.0.0.1:6010\n").unwrap();
        let found = Endpoints::find(&[], None, &deep).unwrap();
        assert_eq!(found.source, Source::File(file));
        assert_eq!(found.list, [Endpoint::new("127.0.0.1", 6000), Endpoint::new("127.0.0.1", 6010)]);

        let given = [Endpoint::new("elsewhere", 1)];
        assert_eq!(
            Endpoints::find(&given, None, &deep).unwrap(),
            Endpoints { list: given.to_vec(), source: Source::Given }
        );
    }

    #[test]
    fn what_balsa_dev_runs_is_found_too_and_the_nearest_directory_counts() {
        let directory = tempfile::tempdir().unwrap();
        let project = directory.path().join("project");
        let write = |place: PathBuf, port: u16| {
            std::fs::create_dir_all(&place).unwrap();
            std::fs::write(place.join("endpoints"), format!("127.0.0.1:{port}\n")).unwrap();
        };
        let found = || Endpoints::find(&[], None, &project).unwrap().list;
        write(directory.path().join(".balsa"), 6000);
        write(project.join(".balsa-dev"), 7000);
        assert_eq!(found(), [Endpoint::new("127.0.0.1", 7000)]);
        write(project.join(".balsa"), 8000);
        assert_eq!(found(), [Endpoint::new("127.0.0.1", 8000)]);
    }

    #[test]
    fn a_directory_that_is_named_is_the_only_one_that_counts() {
        let directory = tempfile::tempdir().unwrap();
        for (place, port) in [(".balsa", 6000), ("other", 7000)] {
            std::fs::create_dir(directory.path().join(place)).unwrap();
            std::fs::write(directory.path().join(place).join("endpoints"), format!("127.0.0.1:{port}\n")).unwrap();
        }
        let found = Endpoints::find(&[], Some(Path::new("other")), directory.path()).unwrap();
        assert_eq!(found.list, [Endpoint::new("127.0.0.1", 7000)]);
        let absent = Endpoints::find(&[], Some(Path::new("none")), directory.path()).unwrap_err();
        assert_eq!(
            absent.to_string(),
            "no local cluster runs in none: there is no none/endpoints; start it with `balsa up --dir none`"
        );
        let given = [Endpoint::new("elsewhere", 1)];
        let found = Endpoints::find(&given, Some(Path::new("none")), directory.path()).unwrap();
        assert_eq!(found.source, Source::Given);
    }

    #[test]
    fn a_damaged_file_of_a_local_cluster_is_named_with_its_line() {
        let path = PathBuf::from("here/.balsa/endpoints");
        let error = Endpoints::from_file(path.clone(), "127.0.0.1:6000\nnonsense:x\n").unwrap_err();
        assert!(
            error.to_string().starts_with("here/.balsa/endpoints, line 2: 'nonsense:x' does not end in a port"),
            "{error}"
        );
        let error = Endpoints::from_file(path, "\n").unwrap_err();
        assert!(error.to_string().contains("names no endpoint"), "{error}");
    }
}
