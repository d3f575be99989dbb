//! Who this data directory is: `node.meta`.
//!
//! Made once, when the directory is first used, and fsynced before anything else happens with it. The node id in it is what
//! votes and log entries are counted under, so it must live exactly as long as the log beside it: a copy of it on a second
//! volume, or the same id with an empty log, can split a cluster. The cluster id is added once, at bootstrap.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::ids::{ClusterId, NodeId, unhex};

/// The file's name.
pub const FILE: &str = "node.meta";
const STANDING_FILE: &str = "standing";
/// Below a data directory: what `balsa restore` has made so far. Without `node.meta` beside it, it has not finished.
pub const RESTORING: &str = "restore.tmp";
const VERSION: u32 = 1;

/// How this data directory stands with its cluster, as far as it was noted (the file `standing`). A fence is none of these
/// ([`crate::storage::Fence`]): it is about the state, not about the place, and a fenced node goes on telling why.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Standing {
    /// Nothing is noted: it is new, or takes part in a founding.
    #[default]
    New,
    /// It found a cluster that others have begun, and asks to be let in. It never begins one.
    Joining,
    /// A committed membership had it.
    Member,
    /// It is not a member any more and never will be; why, in words that follow "this node".
    Removed(String),
    /// Peers know of more than its log has; in such words too.
    RolledBack(String),
}

impl Standing {
    /// Why a node with this data can never take part again, if so.
    pub fn retired(&self) -> Option<&str> {
        match self {
            Self::Removed(why) | Self::RolledBack(why) => Some(why),
            _ => None,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StandingOnDisk {
    version: u32,
    standing: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    why: String,
}

/// The contents of `node.meta`, and where it lies.
#[derive(Debug)]
pub struct Meta {
    dir: PathBuf,
    /// Random, made once.
    pub node_id: NodeId,
    /// Set at bootstrap.
    pub cluster_id: Option<ClusterId>,
    /// The name under which the directory was last used; a person's hint, not an identity.
    pub name: String,
    /// Changed by [`Self::stand`].
    pub standing: Standing,
    _lock: File,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system said no.
    #[error("cannot {what} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not one that balsa wrote.
    #[error("{} is damaged: {why}. It holds this node's identity and cannot be made anew beside an old log; put it back from a copy of this very volume; else this volume is lost: empty it and start the node, which joins anew (docs/operations.md, A lost node)", .path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The identity is there, and what was promised under it is not.
    #[error(
        "the data directory {} belongs to a cluster, and its log (log/) is missing: with an empty one this node would promise other things \
         under the same id; put the log back as it was; else this volume is lost: empty the directory and start the node, which joins anew \
         (docs/operations.md, A lost node)", .0.display()
    )]
    LostLog(PathBuf),
    /// It was to become a copy of a backup, and is not one yet.
    #[error("a restore into {} was not finished; run `balsa restore` once more, or empty the directory", .0.display())]
    Unfinished(PathBuf),
    /// Another process has it.
    #[error("the data directory {} is in use by another balsa process; give each node a directory of its own", .0.display())]
    InUse(PathBuf),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OnDisk {
    version: u32,
    name: String,
    node_id: String,
    cluster_id: Option<String>,
}

/// Whether the node whose data is in `dir` belongs to a cluster, without opening anything. If that cannot be told, it does: who
/// opens the directory will say what is wrong with it.
pub fn has_cluster(dir: &Path) -> bool {
    match fs::read_to_string(dir.join(FILE)) {
        Ok(text) => toml::from_str::<OnDisk>(&text).map_or(true, |on_disk| on_disk.cluster_id.is_some()),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

impl Meta {
    /// Opens `dir` for this process alone, making it and an identity if there is none yet.
    pub fn open(dir: &Path, name: &str) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        let lock = lock(dir)?;
        let path = dir.join(FILE);
        match fs::read_to_string(&path) {
            Ok(text) => {
                // A restore that was killed at its very end.
                let _ = fs::remove_dir_all(dir.join(RESTORING));
                Self::read(dir, name, &text, lock)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if dir.join(RESTORING).exists() {
                    return Err(Error::Unfinished(dir.into()));
                }
                refuse_orphaned_log(dir)?;
                let meta = Self {
                    dir: dir.into(),
                    node_id: NodeId::random(),
                    cluster_id: None,
                    name: name.into(),
                    standing: Standing::New,
                    _lock: lock,
                };
                meta.store()?;
                Ok(meta)
            }
            Err(source) => Err(Error::Io { what: "read", path, source }),
        }
    }

    fn read(dir: &Path, name: &str, text: &str, lock: File) -> Result<Self, Error> {
        let damaged = |why: String| Error::Damaged { path: dir.join(FILE), why };
        let on_disk: OnDisk = toml::from_str(text).map_err(|error| damaged(error.message().to_owned()))?;
        if on_disk.version != VERSION {
            return Err(damaged(format!("its version is {}, this balsa knows version {VERSION}", on_disk.version)));
        }
        let node_id = on_disk.node_id.parse().map_err(|_| damaged("node_id is not 16 hex digits".into()))?;
        let cluster_id = match on_disk.cluster_id {
            None => None,
            Some(text) => {
                let bytes = unhex(&text).and_then(|bytes| ClusterId::try_from(&bytes[..]).ok());
                Some(bytes.ok_or_else(|| damaged("cluster_id is not 32 hex digits".into()))?)
            }
        };
        refuse_lost_log(dir, cluster_id)?;
        let standing = read_standing(dir)?;
        let meta = Self { dir: dir.into(), node_id, cluster_id, name: name.into(), standing, _lock: lock };
        if on_disk.name != name {
            tracing::warn!(was = on_disk.name, now = name, "this data directory was last used under another name");
            meta.store()?;
        }
        Ok(meta)
    }

    /// Joins the cluster `id`, durably. A directory joins once in its life; as long as it is new, what it was to join may come to nothing.
    pub fn adopt(&mut self, id: ClusterId) -> Result<(), Error> {
        let may = self.standing == Standing::New || self.cluster_id.is_none_or(|own| own == id);
        assert!(may, "a data directory never changes its cluster");
        self.cluster_id = Some(id);
        self.store()
    }

    /// Notes how the directory stands with its cluster, durably.
    pub fn stand(&mut self, standing: Standing) -> Result<(), Error> {
        if self.standing == standing {
            return Ok(());
        }
        let word = match &standing {
            Standing::New => "new",
            Standing::Joining => "joining",
            Standing::Member => "member",
            Standing::Removed(_) => "removed",
            Standing::RolledBack(_) => "rolled back",
        };
        let why = standing.retired().unwrap_or_default().to_owned();
        let on_disk = StandingOnDisk { version: VERSION, standing: word.into(), why };
        let text = toml::to_string(&on_disk).expect("a flat table of strings is TOML");
        write_durably(&self.dir, STANDING_FILE, text.as_bytes())?;
        self.standing = standing;
        Ok(())
    }

    /// Leaves its cluster for a new one in which nobody else is, durably: see `volume/recover.rs`.
    pub fn move_to(&mut self, id: ClusterId) -> Result<(), Error> {
        self.cluster_id = Some(id);
        self.store()?;
        // Whatever the old cluster thought of it.
        self.stand(Standing::Member)
    }

    fn store(&self) -> Result<(), Error> {
        write(&self.dir, &self.name, self.node_id, self.cluster_id)
    }
}

/// Writes the identity of the data directory `dir`, durably.
pub fn write(dir: &Path, name: &str, node_id: NodeId, cluster_id: Option<ClusterId>) -> Result<(), Error> {
    let on_disk = OnDisk {
        version: VERSION,
        name: name.into(),
        node_id: node_id.to_string(),
        cluster_id: cluster_id.map(|id| id.to_string()),
    };
    let text = toml::to_string(&on_disk).expect("a flat table of strings is TOML");
    write_durably(dir, FILE, text.as_bytes())
}

fn read_standing(dir: &Path) -> Result<Standing, Error> {
    let path = dir.join(STANDING_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Standing::New),
        Err(source) => return Err(Error::Io { what: "read", path, source }),
    };
    let damaged = |why: String| Error::Damaged { path: dir.join(STANDING_FILE), why };
    let on_disk: StandingOnDisk = toml::from_str(&text).map_err(|error| damaged(error.message().to_owned()))?;
    match on_disk.standing.as_str() {
        "new" => Ok(Standing::New),
        "joining" => Ok(Standing::Joining),
        "member" => Ok(Standing::Member),
        "removed" => Ok(Standing::Removed(on_disk.why)),
        "rolled back" => Ok(Standing::RolledBack(on_disk.why)),
        other => Err(damaged(format!("{other:?} is not a standing that this balsa knows"))),
    }
}

fn has_log(dir: &Path) -> bool {
    fs::read_dir(dir.join("log")).is_ok_and(|mut entries| entries.next().is_some())
}

/// A log without an identity is a volume that was tampered with: a new id for an old log would vote twice.
fn refuse_orphaned_log(dir: &Path) -> Result<(), Error> {
    if has_log(dir) {
        return Err(Error::Damaged { path: dir.join(FILE), why: "it is missing, but there is a log beside it".into() });
    }
    Ok(())
}

/// So is an identity without its log, from the moment that the node may have promised something to a cluster: with an empty one it would
/// promise other things under the same id.
fn refuse_lost_log(dir: &Path, cluster_id: Option<ClusterId>) -> Result<(), Error> {
    if cluster_id.is_some() && !has_log(dir) { Err(Error::LostLog(dir.into())) } else { Ok(()) }
}

/// Takes `dir` for this process, for as long as the file lives.
pub fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join("lock");
    let file = File::create(&path).map_err(io_error("create", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::InUse(dir.into())),
        Err(fs::TryLockError::Error(source)) => Err(Error::Io { what: "lock", path, source }),
    }
}

/// Replaces `dir/name` so that after a crash it holds either the old bytes or the new ones.
pub fn write_durably(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let (path, fresh) = (dir.join(name), dir.join(format!("{name}.new")));
    let mut file = File::create(&fresh).map_err(io_error("create", &fresh))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io_error("write", &fresh))?;
    fs::rename(&fresh, &path).map_err(io_error("replace", &path))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync", dir))
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = Meta::open(dir.path(), "balsa-0").unwrap();
        let id = first.node_id;
        drop(first);
        assert_eq!(Meta::open(dir.path(), "balsa-0").unwrap().node_id, id);
    }

    fn give_log(dir: &Path) {
        fs::create_dir(dir.join("log")).unwrap();
        fs::write(dir.join("log/1"), "x").unwrap();
    }

    #[test]
    fn an_adopted_cluster_is_remembered_and_another_is_adopted_only_by_a_new_directory() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Meta::open(dir.path(), "balsa-0").unwrap();
        let (first, second) = (ClusterId::random(), ClusterId::random());
        open().adopt(first).unwrap();
        give_log(dir.path());
        assert_eq!(open().cluster_id, Some(first));
        open().adopt(second).unwrap();
        assert_eq!(open().cluster_id, Some(second));
        open().stand(Standing::Member).unwrap();
        open().adopt(second).unwrap();
        let other = std::panic::catch_unwind(|| open().adopt(first));
        assert!(other.is_err() && open().cluster_id == Some(second));
    }

    #[test]
    fn an_identity_whose_log_is_lost_is_refused_once_it_belongs_to_a_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Meta::open(dir.path(), "balsa-0");
        open().unwrap();
        open().unwrap().adopt(ClusterId::random()).unwrap();
        assert!(matches!(open(), Err(Error::LostLog(_))));
        give_log(dir.path());
        open().unwrap();
    }

    #[test]
    fn a_standing_is_remembered_with_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Meta::open(dir.path(), "balsa-0").unwrap();
        assert_eq!(open().standing, Standing::New);
        for standing in [Standing::Joining, Standing::Member, Standing::Removed("was \"removed\"\nat 7".into())] {
            open().stand(standing.clone()).unwrap();
            assert_eq!(open().standing, standing);
        }
        fs::write(dir.path().join(STANDING_FILE), "version = 1\nstanding = \"odd\"\n").unwrap();
        assert!(matches!(Meta::open(dir.path(), "balsa-0"), Err(Error::Damaged { .. })));
    }

    #[test]
    fn what_its_old_cluster_thought_of_it_does_not_follow_a_directory_into_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Meta::open(dir.path(), "balsa-0").unwrap();
        let (old, new) = (ClusterId::random(), ClusterId::random());
        open().adopt(old).unwrap();
        give_log(dir.path());
        let id = open().node_id;
        for standing in [Standing::RolledBack("forgot".into()), Standing::Removed("was removed".into())] {
            open().stand(standing).unwrap();
            assert!(open().standing.retired().is_some());
            open().move_to(new).unwrap();
            let moved = open();
            assert_eq!((moved.node_id, moved.cluster_id, &moved.standing), (id, Some(new), &Standing::Member));
        }
    }

    #[test]
    fn a_directory_belongs_to_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let _held = Meta::open(dir.path(), "balsa-0").unwrap();
        assert!(matches!(Meta::open(dir.path(), "balsa-0"), Err(Error::InUse(_))));
    }

    #[test]
    fn a_damaged_identity_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "version = 1\nname = 3").unwrap();
        assert!(matches!(Meta::open(dir.path(), "balsa-0"), Err(Error::Damaged { .. })));
        assert_eq!(fs::read_to_string(dir.path().join(FILE)).unwrap(), "version = 1\nname = 3");
    }

    #[test]
    fn a_directory_in_which_a_restore_was_not_finished_is_no_node_s() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(RESTORING)).unwrap();
        assert!(matches!(Meta::open(dir.path(), "balsa-0"), Err(Error::Unfinished(_))));
        write(dir.path(), "balsa-0", NodeId(7), None).unwrap();
        assert_eq!(Meta::open(dir.path(), "balsa-0").unwrap().node_id, NodeId(7));
        assert!(!dir.path().join(RESTORING).exists());
    }

    #[test]
    fn a_log_without_an_identity_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        give_log(dir.path());
        assert!(matches!(Meta::open(dir.path(), "balsa-0"), Err(Error::Damaged { .. })));
    }
}
