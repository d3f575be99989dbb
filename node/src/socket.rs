//! The operators' Unix socket: a file of mode 0600 that is there while the node is.
//!
//! A path may be longer than the 107 bytes that a socket's address has room for (a project deep in somebody's home has such ones):
//! then the socket is named by way of its directory, which is opened, so that only the file's own name counts.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixSocket};

/// `sun_path` without the byte that ends it: unix(7).
const PATH_BYTES_MAX: usize = 107;

/// Operators that wait to be accepted.
const BACKLOG: u32 = 16;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system said no.
    #[error("cannot {what} the socket {}: {source}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not even the way by the directory is short enough.
    #[error("the name of the socket {} has {bytes} bytes, and a socket's address has room for {PATH_BYTES_MAX} with what stands before it", .path.display())]
    TooLong {
        /// Which.
        path: PathBuf,
        /// Of the file's name.
        bytes: usize,
    },
    /// Somebody else is there.
    #[error("another process listens on the socket {}", .0.display())]
    InUse(PathBuf),
    /// It would be replaced, and is no socket.
    #[error("{} is there already and is no socket", .0.display())]
    NotASocket(PathBuf),
}

/// A socket that is listened on. Its file goes when this is dropped.
#[derive(Debug)]
pub struct Socket {
    /// Who comes.
    pub listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Listens at `path`. What a node left there that was killed is replaced.
    pub fn bind(path: &Path) -> Result<Self, Error> {
        let io = |what| move |source| Error::Io { what, path: path.to_owned(), source };
        refuse_others(path)?;
        // Nobody can connect before it has its mode, or finds it before it listens.
        let mut draft = path.as_os_str().to_owned();
        draft.push(".new");
        let draft = PathBuf::from(draft);
        remove(&draft).map_err(io("remove what is left of"))?;
        let address = Address::of(&draft)?;
        let socket = UnixSocket::new_stream().map_err(io("make"))?;
        socket.bind(address.path()).map_err(io("make"))?;
        fs::set_permissions(&draft, Permissions::from_mode(0o600)).map_err(io("set the mode of"))?;
        let listener = socket.listen(BACKLOG).map_err(io("listen on"))?;
        fs::rename(&draft, path).map_err(io("name"))?;
        Ok(Self { listener, path: path.to_owned() })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Whoever starts next replaces it, if it stays.
        let _ = fs::remove_file(&self.path);
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A socket that nobody listens on any more may be replaced, and nothing else.
fn refuse_others(path: &Path) -> Result<(), Error> {
    match fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => Err(Error::NotASocket(path.to_owned())),
        Ok(_) if UnixStream::connect(Address::of(path)?.path()).is_ok() => Err(Error::InUse(path.to_owned())),
        _ => Ok(()),
    }
}

/// A path that a socket can be bound to, or connected with, for as long as this lives.
#[derive(Debug)]
pub struct Address {
    path: PathBuf,
    _directory: Option<File>,
}

impl Address {
    /// Of the socket at `path`, whose directory is there.
    pub fn of(path: &Path) -> Result<Self, Error> {
        if path.as_os_str().len() <= PATH_BYTES_MAX {
            return Ok(Self { path: path.to_owned(), _directory: None });
        }
        let io = |source| Error::Io { what: "open the directory of", path: path.to_owned(), source };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let directory = File::open(parent).map_err(io)?;
        let name = path.file_name().unwrap_or_default();
        let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
        if short.as_os_str().len() > PATH_BYTES_MAX {
            return Err(Error::TooLong { path: path.to_owned(), bytes: name.len() });
        }
        Ok(Self { path: short, _directory: Some(directory) })
    }

    /// The same file, by a path that is short enough.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn a_socket_is_for_its_owner_and_goes_with_the_node() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("balsa.sock");
        let socket = Socket::bind(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        UnixStream::connect(&path).unwrap();
        drop(socket);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_a_killed_node_left_is_replaced_and_what_another_listens_on_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("balsa.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let socket = Socket::bind(&path).unwrap();
        assert!(matches!(Socket::bind(&path), Err(Error::InUse(_))));
        UnixStream::connect(&path).unwrap();
        drop(socket);
        fs::write(&path, "precious").unwrap();
        assert!(matches!(Socket::bind(&path), Err(Error::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_long_path_is_taken_by_way_of_its_directory_and_a_long_name_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("deep".repeat(30));
        fs::create_dir(&deep).unwrap();
        let path = deep.join("balsa.sock");
        let socket = Socket::bind(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        UnixStream::connect(Address::of(&path).unwrap().path()).unwrap();
        drop(socket);
        let error = Socket::bind(&dir.path().join("s".repeat(120))).unwrap_err().to_string();
        assert!(error.contains("has 124 bytes, and a socket's address has room for 107"), "{error}");
    }
}
