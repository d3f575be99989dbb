//! The directory from which one node has its files, and the ways in which such directories change.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// As the kubelet makes it: each file is a link through `..data`, which leads to a directory with a name of its own.
#[derive(Debug)]
pub(crate) struct Volume {
    dir: PathBuf,
    turns: AtomicU64,
}

impl Volume {
    pub(crate) fn new(dir: PathBuf) -> Self {
        fs::create_dir_all(&dir).unwrap();
        Self { dir, turns: AtomicU64::new(0) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// All files at once, as the kubelet does it: a new directory, and then `..data` leads to it, and the one before is removed.
    pub(crate) fn turn(&self, files: &[(&str, &[u8])]) {
        let number = self.turns.fetch_add(1, Ordering::Relaxed);
        let turn = format!("..{number}");
        fs::create_dir(self.path(&turn)).unwrap();
        for (name, bytes) in files {
            fs::write(self.path(&turn).join(name), bytes).unwrap();
        }
        link_over(Path::new(&turn), &self.path("..data"));
        for (name, _) in files {
            let link = self.path(name);
            if !link.is_symlink() {
                link_over(&Path::new("..data").join(name), &link);
            }
        }
        if let Some(before) = number.checked_sub(1) {
            fs::remove_dir_all(self.path(&format!("..{before}"))).unwrap();
        }
    }

    /// One file in one step: written beside it, and renamed.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        let new = self.path(&format!(".{name}.new"));
        fs::write(&new, bytes).unwrap();
        fs::rename(new, self.path(name)).unwrap();
    }

    /// Writes over a file in place, the first half of the bytes; the other half comes when what this returns is called.
    pub(crate) fn put_half(&self, name: &str, bytes: &[u8]) -> impl FnOnce() {
        let (half, rest) = bytes.split_at(bytes.len() / 2);
        let mut file = fs::File::create(self.path(name)).unwrap();
        file.write_all(half).unwrap();
        let rest = rest.to_vec();
        move || file.write_all(&rest).unwrap()
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }
}

/// A symbolic link to `target` at `place`, whatever is there.
fn link_over(target: &Path, place: &Path) {
    let new = place.with_file_name(".link.new");
    symlink(target, &new).unwrap();
    fs::rename(new, place).unwrap();
}
