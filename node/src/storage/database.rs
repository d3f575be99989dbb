//! The database file: commits, durable checkpoints, and generations.
//!
//! ```text
//! data_dir/state/CURRENT             the number of the generation in use
//! data_dir/state/<generation>.redb   that generation; any other one is a leftover of a crash, and removed at open
//! data_dir/tmp/*.redb                snapshots that are being received; removed at open
//! ```
//!
//! **Commits.** [`Database::commit`] makes a batch visible and leaves it in memory; [`Database::checkpoint`] makes all commits
//! so far durable. After a crash the file holds exactly the last checkpoint. The caller must have flushed the Raft log up to
//! the last applied entry before it calls `checkpoint`; a state ahead of its log cannot be started from. Dropping the database
//! is like a crash, on purpose: see `Seal`.
//!
//! **Generations.** A received snapshot is a database file of its own. It is complete and durable before
//! [`Database::install`] moves it in and swaps `CURRENT`, in that order, each step synced before the next: a crash leaves the
//! old state or the new one.
//!
//! **Poison.** When a commit fails, whether it took effect is not known. From then on every write is refused; the node stops and
//! starts again from its last checkpoint.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Durability, ReadOnlyTable, ReadableDatabase, ReadableTableMetadata, TableDefinition, TableHandle};

use super::disk::{Seal, Sealable};
use super::{Disk, Error, Overlay};

/// The one table. Its name carries the version of the layout in `keys`: a version that does not know it finds no table.
const STATE: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("balsa.state.1");

/// What a row costs a B-tree page besides its bytes, for `dirty_bytes`.
const ROW_OVERHEAD_BYTES: u64 = 16;

/// Counts the snapshots received by this process, so that two at a time have two names.
static INCOMING: AtomicU64 = AtomicU64::new(1);

/// The number of a database file: one more with each installed snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub u64);

/// The state of this node: one open generation.
pub struct Database {
    layout: Layout,
    generation: Generation,
    file: OpenFile,
    view: ReadView,
    poisoned: bool,
    dirty_bytes: u64,
}

/// A database that is being received; it becomes a generation by [`Database::install`], or is removed when dropped.
pub struct Incoming {
    layout: Layout,
    path: PathBuf,
    file: Option<OpenFile>,
}

/// The state right after one commit, unchanged by later ones. Clones share it. It pins the pages it reads, so the file grows
/// while an old one is held.
#[derive(Clone)]
pub struct ReadView(Arc<View>);

struct View {
    table: ReadOnlyTable<&'static [u8], &'static [u8]>,
    // After `table`: a view keeps its generation open, though another may have been installed since.
    _redb: Arc<redb::Database>,
}

/// One open redb file. Sealed when dropped, so that only `checkpoint` ever makes anything durable.
struct OpenFile {
    redb: Arc<redb::Database>,
    seal: Seal,
}

#[derive(Clone)]
struct Layout {
    disk: Arc<dyn Disk>,
    state: PathBuf,
    tmp: PathBuf,
    cache_bytes: usize,
}

impl Database {
    /// Opens the state in `data_dir`, or makes an empty one. Clears what a crash left behind.
    pub fn open(disk: Arc<dyn Disk>, data_dir: &Path, cache_bytes: usize) -> Result<Self, Error> {
        let layout = Layout { disk, state: data_dir.join("state"), tmp: data_dir.join("tmp"), cache_bytes };
        layout.prepare()?;
        let generation = match layout.current()? {
            Some(generation) => generation,
            None => layout.found()?,
        };
        layout.remove_other_generations(generation)?;
        let path = layout.generation(generation);
        let file = layout.open(&path)?;
        let view = file.view()?.ok_or(Error::UnknownLayout(path))?;
        Ok(Self { layout, generation, file, view, poisoned: false, dirty_bytes: 0 })
    }

    /// The state after the last commit.
    pub fn view(&self) -> ReadView {
        self.view.clone()
    }

    /// Which file is in use.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Bytes committed since the last checkpoint: what a crash would have to apply again.
    pub fn dirty_bytes(&self) -> u64 {
        self.dirty_bytes
    }

    /// Makes `writes` visible, all together, but not durable.
    pub fn commit(&mut self, writes: &Overlay) -> Result<(), Error> {
        self.write(|file| file.commit(writes, Durability::None))?;
        self.dirty_bytes += writes.iter().map(|(key, value)| row_bytes(key, value.as_deref())).sum::<u64>();
        Ok(())
    }

    /// Makes every commit so far durable. Only after the Raft log is flushed as far as the state has come!
    pub fn checkpoint(&mut self) -> Result<(), Error> {
        self.write(|file| file.commit(&Overlay::new(), Durability::Immediate))?;
        self.dirty_bytes = 0;
        Ok(())
    }

    /// An empty database to receive a snapshot into.
    pub fn incoming(&self) -> Result<Incoming, Error> {
        self.layout.incoming()
    }

    /// What makes an [`Incoming`] without the database, for a thread that does not own it.
    pub fn receiver(&self) -> impl Fn() -> Result<Incoming, Error> + Send + Sync + Clone + use<> {
        let layout = self.layout.clone();
        move || layout.incoming()
    }

    /// Replaces the whole state by a received one that was [finished](Incoming::finish). After a crash it is one or the other.
    pub fn install(&mut self, mut incoming: Incoming) -> Result<(), Error> {
        assert!(!self.poisoned, "a poisoned database is only ever closed");
        let old = self.layout.generation(self.generation);
        let generation = Generation(self.generation.0 + 1);
        // Until all of it is done, a failure leaves two states that both claim to be the last one; so it is final.
        self.poisoned = true;
        self.layout.adopt(&incoming.path, generation)?;
        let file = incoming.file.take().expect("it is taken here only");
        self.view = file.view()?.expect("a received database was given its table");
        self.file = file;
        self.generation = generation;
        self.dirty_bytes = 0;
        self.layout.remove(&old)?;
        self.poisoned = false;
        Ok(())
    }

    fn write(&mut self, work: impl FnOnce(&OpenFile) -> Result<(), Error>) -> Result<(), Error> {
        if self.poisoned {
            return Err(Error::Poisoned);
        }
        self.poisoned = true;
        work(&self.file)?;
        self.view = self.file.view()?.expect("the table was there when the database was opened");
        self.poisoned = false;
        Ok(())
    }
}

impl Incoming {
    /// Adds rows.
    pub fn insert(&mut self, rows: &Overlay) -> Result<(), Error> {
        self.file().commit(rows, Durability::None)
    }

    /// Makes all of it durable, and shows it.
    pub fn finish(&mut self) -> Result<ReadView, Error> {
        self.file().commit(&Overlay::new(), Durability::Immediate)?;
        Ok(self.file().view()?.expect("the table was made when the file was"))
    }

    fn file(&self) -> &OpenFile {
        self.file.as_ref().expect("it is taken by install, which consumes self")
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            drop(file);
            // Left behind, it would be removed at the next open; nothing depends on it.
            let _ = self.layout.disk.remove(&self.path);
        }
    }
}

impl ReadView {
    /// The value under `key`.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.0.table.get(key)?.map(|value| value.value().to_vec()))
    }

    /// All rows from `start` up to `end` (not included; `None`: to the last), from both sides.
    pub fn range(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> Result<redb::Range<'static, &'static [u8], &'static [u8]>, Error> {
        Ok(match end {
            Some(end) => self.0.table.range::<&[u8]>(start..end)?,
            None => self.0.table.range::<&[u8]>(start..)?,
        })
    }

    /// Calls `visit` for each row from `start` on, in order, until it says stop.
    pub fn each(
        &self,
        start: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> std::ops::ControlFlow<()>,
    ) -> Result<(), Error> {
        for row in self.range(start, None)? {
            let (key, value) = row?;
            if visit(key.value(), value.value()).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// How many rows there are.
    pub fn rows(&self) -> Result<u64, Error> {
        Ok(self.0.table.len()?)
    }
}

impl OpenFile {
    fn commit(&self, writes: &Overlay, durability: Durability) -> Result<(), Error> {
        let mut txn = self.redb.begin_write()?;
        txn.set_durability(durability)?;
        // Costs a little more at a checkpoint, and makes opening after a crash independent of the size of the file.
        txn.set_quick_repair(matches!(durability, Durability::Immediate));
        let mut table = txn.open_table(STATE)?;
        for (key, value) in writes {
            match value {
                Some(value) => table.insert(key.as_slice(), value.as_slice()).map(drop)?,
                None => table.remove(key.as_slice()).map(drop)?,
            }
        }
        drop(table);
        Ok(txn.commit()?)
    }

    /// `None` if the file has no table of this layout.
    fn view(&self) -> Result<Option<ReadView>, Error> {
        let txn = self.redb.begin_read()?;
        match txn.open_table(STATE) {
            Ok(table) => Ok(Some(ReadView(Arc::new(View { table, _redb: self.redb.clone() })))),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.seal.set();
    }
}

impl Layout {
    fn prepare(&self) -> Result<(), Error> {
        for dir in [&self.state, &self.tmp] {
            self.disk.create_dir(dir).map_err(io_error("create", dir))?;
        }
        self.list(&self.tmp)?.iter().filter(|path| is_database(path)).try_for_each(|path| self.remove(path))
    }

    fn current(&self) -> Result<Option<Generation>, Error> {
        let path = self.state.join("CURRENT");
        let Some(bytes) = self.disk.read(&path).map_err(io_error("read", &path))? else { return Ok(None) };
        let number = std::str::from_utf8(&bytes).ok().and_then(|text| text.strip_suffix('\n')?.parse().ok());
        let generation = Generation(number.ok_or_else(|| Error::BadCurrent(path.clone()))?);
        match self.list(&self.state)?.contains(&self.generation(generation)) {
            true => Ok(Some(generation)),
            false => Err(Error::Mismatched { path, why: "the generation it names is missing" }),
        }
    }

    /// Makes the first generation.
    fn found(&self) -> Result<Generation, Error> {
        self.refuse_orphans()?;
        let first = Generation(1);
        let mut incoming = self.incoming()?;
        incoming.finish()?;
        self.adopt(&incoming.path, first)?;
        // Adopted under its new name: nothing is left for drop to remove, and `open` opens it anew.
        incoming.file = None;
        Ok(first)
    }

    /// A crash between the first rename and the first `CURRENT` leaves an empty first generation. Anything more than
    /// that is somebody's data.
    fn refuse_orphans(&self) -> Result<(), Error> {
        for path in self.list(&self.state)?.into_iter().filter(|path| is_database(path)) {
            let empty = path == self.generation(Generation(1))
                && self.open(&path)?.view()?.map_or(Ok(true), |view| view.rows().map(|rows| rows == 0))?;
            if !empty {
                let path = self.state.join("CURRENT");
                return Err(Error::Mismatched {
                    path,
                    why: "it is missing, but there is a generation with data in it",
                });
            }
        }
        Ok(())
    }

    fn incoming(&self) -> Result<Incoming, Error> {
        let path = self.tmp.join(format!("{}.redb", INCOMING.fetch_add(1, Ordering::Relaxed)));
        let file = self.open(&path)?;
        file.commit(&Overlay::new(), Durability::None)?;
        Ok(Incoming { layout: self.clone(), path, file: Some(file) })
    }

    /// Moves the durable file at `path` in as `generation`, and makes it the current one.
    fn adopt(&self, path: &Path, generation: Generation) -> Result<(), Error> {
        let (current, fresh) = (self.state.join("CURRENT"), self.state.join("CURRENT.new"));
        let target = self.generation(generation);
        self.disk.rename(path, &target).map_err(io_error("move in", &target))?;
        self.sync(&self.state)?;
        self.disk.write(&fresh, format!("{}\n", generation.0).as_bytes()).map_err(io_error("write", &fresh))?;
        self.disk.rename(&fresh, &current).map_err(io_error("replace", &current))?;
        self.sync(&self.state)
    }

    fn remove_other_generations(&self, keep: Generation) -> Result<(), Error> {
        let keep = self.generation(keep);
        let mut leftovers = self.list(&self.state)?.into_iter().filter(|path| is_database(path) && *path != keep);
        leftovers.try_for_each(|path| self.remove(&path))
    }

    fn open(&self, path: &Path) -> Result<OpenFile, Error> {
        let seal = Seal::default();
        let file = self.disk.open(path).map_err(io_error("open", path))?;
        let backend = Sealable { file, seal: seal.clone() };
        let redb = redb::Builder::new().set_cache_size(self.cache_bytes).create_with_backend(backend)?;
        Ok(OpenFile { redb: Arc::new(redb), seal })
    }

    fn generation(&self, generation: Generation) -> PathBuf {
        self.state.join(format!("{}.redb", generation.0))
    }

    fn list(&self, dir: &Path) -> Result<Vec<PathBuf>, Error> {
        self.disk.list(dir).map_err(io_error("list", dir))
    }

    fn remove(&self, path: &Path) -> Result<(), Error> {
        self.disk.remove(path).map_err(io_error("remove", path))
    }

    fn sync(&self, dir: &Path) -> Result<(), Error> {
        self.disk.sync_dir(dir).map_err(io_error("sync", dir))
    }
}

fn is_database(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "redb")
}

fn row_bytes(key: &[u8], value: Option<&[u8]>) -> u64 {
    ROW_OVERHEAD_BYTES + key.len() as u64 + value.map_or(0, <[u8]>::len) as u64
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { what, path, source }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("generation", &self.generation).field("poisoned", &self.poisoned).finish()
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("path", &self.path).finish()
    }
}

impl fmt::Debug for ReadView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.table.name())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Files;
    use super::super::sim_disk::{Dice, SimDisk};
    use super::*;

    const CACHE_BYTES: usize = 16 * 1024;

    fn real(dir: &Path) -> Result<Database, Error> {
        Database::open(Arc::new(Files), dir, CACHE_BYTES)
    }

    fn simulated(disk: &SimDisk) -> Result<Database, Error> {
        Database::open(Arc::new(disk.clone()), Path::new("d"), CACHE_BYTES)
    }

    fn one(key: &str, value: &str) -> Overlay {
        Overlay::from([(key.into(), Some(value.into()))])
    }

    fn contents(view: &ReadView) -> Overlay {
        let mut rows = Overlay::new();
        let each = view.each(b"", |key, value| {
            rows.insert(key.to_vec(), Some(value.to_vec()));
            std::ops::ControlFlow::Continue(())
        });
        each.unwrap();
        rows
    }

    #[test]
    fn a_drop_makes_nothing_durable() {
        let dir = tempfile::tempdir().unwrap();
        let mut database = real(dir.path()).unwrap();
        database.commit(&one("a", "kept")).unwrap();
        database.checkpoint().unwrap();
        database.commit(&one("b", "lost")).unwrap();
        assert!(database.dirty_bytes() > 0);
        drop(database);
        assert_eq!(contents(&real(dir.path()).unwrap().view()), one("a", "kept"));
    }

    #[test]
    fn a_view_does_not_move() {
        let dir = tempfile::tempdir().unwrap();
        let mut database = real(dir.path()).unwrap();
        database.commit(&one("a", "1")).unwrap();
        let view = database.view();
        database.commit(&one("a", "2")).unwrap();
        database.checkpoint().unwrap();
        assert_eq!(contents(&view), one("a", "1"));
        assert_eq!(contents(&database.view()), one("a", "2"));
    }

    #[test]
    fn a_view_outlives_an_installed_generation() {
        let dir = tempfile::tempdir().unwrap();
        let mut database = real(dir.path()).unwrap();
        database.commit(&one("a", "old")).unwrap();
        let view = database.view();
        let mut incoming = database.incoming().unwrap();
        incoming.insert(&one("a", "new")).unwrap();
        incoming.finish().unwrap();
        database.install(incoming).unwrap();
        assert_eq!(contents(&view), one("a", "old"));
        assert_eq!(contents(&database.view()), one("a", "new"));
        drop((view, database));
        let database = real(dir.path()).unwrap();
        assert_eq!(database.generation(), Generation(2));
        assert_eq!(contents(&database.view()), one("a", "new"));
    }

    #[test]
    fn an_abandoned_snapshot_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let database = real(dir.path()).unwrap();
        drop(database.incoming().unwrap());
        assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
        std::mem::forget(database.incoming().unwrap());
        drop(database);
        std::fs::write(dir.path().join("tmp/not ours"), "").unwrap();
        std::fs::write(dir.path().join("tmp/9.redb"), "half a snapshot").unwrap();
        std::fs::write(dir.path().join("state/9.redb"), "half a generation").unwrap();
        real(dir.path()).unwrap();
        assert!(!dir.path().join("tmp/9.redb").exists() && !dir.path().join("state/9.redb").exists());
        assert!(dir.path().join("tmp/not ours").exists());
    }

    #[test]
    fn a_generation_without_current_is_not_thrown_away() {
        let dir = tempfile::tempdir().unwrap();
        let mut database = real(dir.path()).unwrap();
        database.commit(&one("a", "1")).unwrap();
        database.checkpoint().unwrap();
        drop(database);
        std::fs::remove_file(dir.path().join("state/CURRENT")).unwrap();
        assert!(matches!(real(dir.path()), Err(Error::Mismatched { .. })));
        std::fs::write(dir.path().join("state/CURRENT"), "seven").unwrap();
        assert!(matches!(real(dir.path()), Err(Error::BadCurrent(_))));
        std::fs::write(dir.path().join("state/CURRENT"), "7\n").unwrap();
        assert!(matches!(real(dir.path()), Err(Error::Mismatched { .. })));
        std::fs::write(dir.path().join("state/CURRENT"), "1\n").unwrap();
        assert_eq!(contents(&real(dir.path()).unwrap().view()), one("a", "1"));
    }

    #[test]
    fn nothing_is_written_after_a_failed_commit() {
        let disk = SimDisk::default();
        let mut database = simulated(&disk).unwrap();
        database.commit(&one("a", "1")).unwrap();
        disk.crash_at(3);
        assert!(matches!(database.checkpoint(), Err(Error::Redb(_))));
        assert!(matches!(database.commit(&one("a", "2")), Err(Error::Poisoned)));
        assert!(matches!(database.checkpoint(), Err(Error::Poisoned)));
    }

    /// Every commit copies the pages it changes. What one of them frees must be used again although nothing was made durable
    /// since, or a quiet cluster's file would grow by some pages with each command until the next checkpoint.
    #[test]
    fn many_small_commits_do_not_grow_the_file() {
        let disk = SimDisk::default();
        let mut database = simulated(&disk).unwrap();
        database.commit(&(0..1000).flat_map(|at| one(&format!("key {at}"), &"x".repeat(200))).collect()).unwrap();
        database.checkpoint().unwrap();
        let bytes = |disk: &SimDisk| disk.bytes(Path::new("d/state/1.redb")).len();
        let before = bytes(&disk);
        for at in 0..3000 {
            database.commit(&one(&format!("key {}", at * 7 % 1000), &"y".repeat(200))).unwrap();
        }
        let after = bytes(&disk);
        assert!(after <= before + 1024 * 1024, "{before} bytes grew to {after}");
    }

    /// Some batches of writes and deletes, with a checkpoint after every third; what each checkpoint holds goes to `kept`.
    fn scenario(disk: &SimDisk, kept: &mut Vec<Overlay>) -> Result<(), Error> {
        let (mut dice, mut model) = (Dice(5), Overlay::new());
        let mut database = simulated(disk)?;
        for batch in 0..9 {
            let mut writes = Overlay::new();
            for _ in 0..20 {
                let key = format!("key {}", dice.below(60)).into_bytes();
                let value = (dice.below(4) > 0).then(|| vec![batch; dice.below(3000)]);
                writes.insert(key, value);
            }
            database.commit(&writes)?;
            for (key, value) in writes {
                match value {
                    Some(value) => drop(model.insert(key, Some(value))),
                    None => drop(model.remove(&key)),
                }
            }
            if batch % 3 == 2 {
                // Before the checkpoint: it may be durable although it did not return.
                kept.push(model.clone());
                database.checkpoint()?;
            }
        }
        Ok(())
    }

    #[test]
    fn a_crash_at_any_step_leaves_some_checkpoint() {
        let whole = SimDisk::default();
        scenario(&whole, &mut Vec::new()).unwrap();
        for at in 0..whole.changes() {
            let (disk, mut kept) = (SimDisk::default(), vec![Overlay::new()]);
            disk.crash_at(at);
            let _ = scenario(&disk, &mut kept);
            for seed in [at, !at] {
                let database = simulated(&disk.after_crash(seed)).unwrap_or_else(|error| panic!("{at}: {error}"));
                let found = contents(&database.view());
                let last = &kept[kept.len().saturating_sub(2)..];
                assert!(last.contains(&found), "after a crash at change {at} the state is that of no late checkpoint");
            }
        }
    }
}
