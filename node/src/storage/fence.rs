//! The fence: a node whose state differs from the majority's says so in a file and never serves again.
//!
//! It is a file of its own, `fenced` in the data directory, and not a row of the state: it is about one node, the state
//! is the same on all of them, and a snapshot that replaces the state must not lift the fence. A fenced node comes back only with a
//! new id and an empty data directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Disk, Error};

/// The file `fenced` of one data directory.
#[derive(Debug, Clone)]
pub struct Fence {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl Fence {
    /// The fence of `data_dir`.
    pub fn new(disk: Arc<dyn Disk>, data_dir: &Path) -> Self {
        Self { disk, dir: data_dir.to_owned() }
    }

    /// Why this node is fenced; `None` if it is not.
    pub fn reason(&self) -> Result<Option<String>, Error> {
        let path = self.path();
        match self.disk.read(&path) {
            Ok(bytes) => Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned())),
            Err(source) => Err(Error::Io { what: "read", path, source }),
        }
    }

    /// Fences this node, durably. The first reason stays.
    pub fn set(&self, reason: &str) -> Result<(), Error> {
        if self.reason()?.is_some() {
            return Ok(());
        }
        let (path, fresh) = (self.path(), self.dir.join("fenced.new"));
        let io = |source| Error::Io { what: "write", path: path.clone(), source };
        self.disk.write(&fresh, format!("{reason}\n").as_bytes()).map_err(io)?;
        self.disk.rename(&fresh, &path).map_err(io)?;
        self.disk.sync_dir(&self.dir).map_err(io)
    }

    fn path(&self) -> PathBuf {
        self.dir.join("fenced")
    }
}

#[cfg(test)]
mod tests {
    use super::super::Files;
    use super::*;

    #[test]
    fn the_first_reason_stays() {
        let dir = tempfile::tempdir().unwrap();
        let fence = Fence::new(Arc::new(Files), dir.path());
        assert_eq!(fence.reason().unwrap(), None);
        fence.set("differs at index 7").unwrap();
        fence.set("differs at index 9").unwrap();
        let reopened = Fence::new(Arc::new(Files), dir.path());
        assert_eq!(reopened.reason().unwrap().as_deref(), Some("differs at index 7"));
    }
}
