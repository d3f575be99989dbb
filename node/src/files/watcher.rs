//! When a change of the files is taken, and what is made of it: all decisions of the watcher, without a thread or a real clock.
//!
//! One [`Watcher::step`] is one look at `balsa.toml` and at the modules' files that it names:
//!
//! ```text
//!        look ── differs from the last ──▶ restless, since now
//!          │ same
//!     still for QUIET? ── no ──▶ (a problem, once it took too long)
//!          │ yes
//!     anything else than was taken? ── no ──▶ nothing
//!          │ yes
//!   read what changed ── not what was seen, or other files are named now ──▶ restless, since now
//!          │
//!        taken: Wanted
//! ```
//!
//! A look is not one moment, and neither is reading. But what two looks a quiet period apart have in common was there all the time
//! between them, all of it together; and a file is read only while it has the signature that was seen. So what is taken is what was
//! there at one moment, whatever happens meanwhile.
//!
//! A file is read again only when its signature changed. What cannot be taken is a problem in words, and everything it would have
//! replaced stays: a module whose file is broken or gone is wished for as before, and while `balsa.toml` itself is broken,
//! nothing is taken at all, since its limits and its modules' files belong together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;

use super::Wanted;
use super::binary;
use super::disk::{Disk, Stat, Unread};
use super::restart::Started;
use super::wish::{self, ModuleFields};
use crate::config::{Loaded, ModuleFile};
use crate::ids::ModuleHash;
use crate::limits::{Fuel, Replicated};
use crate::proto::admin;
use crate::wasm::embedded;

/// How long all files must stand still before any is taken. Longer than any file system's clock takes to tick, so that whoever
/// writes after we read is noticed by the time of the change; and longer than whoever writes a file pauses within it.
pub(super) const QUIET: Duration = Duration::from_secs(1);
/// How long files may be restless before that is called a problem.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// What every path leads to at one moment, `balsa.toml` first.
type Look = Vec<(PathBuf, Stat)>;

/// A module's bytes and their hash.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) hash: ModuleHash,
    pub(super) wasm: Bytes,
}

/// The hash says it all.
impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

/// What a module's file was found to hold.
#[derive(Debug, Clone)]
struct Taken {
    /// `None`: it could not be read, and is tried again.
    stat: Option<Stat>,
    module: Result<Held, String>,
}

/// What is asked for under a module's name.
#[derive(Debug, Clone)]
struct Asked {
    held: Held,
    allow_breaking: bool,
    fuel: Fuel,
}

/// The state between two looks.
#[derive(Debug)]
pub(super) struct Watcher<D> {
    disk: D,
    /// The last good one.
    loaded: Loaded,
    started: Started,
    /// What `balsa.toml` led to when it was read, and what was wrong with it.
    toml: Option<Stat>,
    toml_problem: Option<String>,
    /// By path.
    files: BTreeMap<PathBuf, Taken>,
    /// By name; empty: the embedded module. `None`: some module's file was never complete since the process started, so nobody
    /// knows.
    asked: Option<BTreeMap<String, Asked>>,
    seen: Look,
    /// When it was seen first.
    since: Duration,
    /// When the files began to change, if they have not stood still since.
    restless: Option<Duration>,
    boot: u64,
    wanted: Wanted,
}

/// The files changed while they were read.
struct Moved;

impl<D: Disk> Watcher<D> {
    pub(super) fn new(disk: D, loaded: Loaded, boot: u64) -> Self {
        let now = disk.now();
        let started = Started::with(&loaded);
        let wanted = Wanted::unknown(&loaded.config);
        let mut watcher = Self {
            disk,
            loaded,
            started,
            toml: None,
            toml_problem: None,
            files: BTreeMap::new(),
            asked: None,
            seen: Vec::new(),
            since: now,
            restless: Some(now),
            boot,
            wanted,
        };
        watcher.seen = watcher.look();
        watcher.since = watcher.disk.now();
        watcher
    }

    /// What was wanted after the last step.
    pub(super) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// How long it has been watching.
    pub(super) fn age(&self) -> Duration {
        self.disk.now()
    }

    /// Whether the files have not stood still yet.
    pub(super) fn is_restless(&self) -> bool {
        self.restless.is_some()
    }

    /// Takes the files as they are if they have not changed for long, by their own clock: what a starting process finds has
    /// usually been there for a while.
    pub(super) fn trust_old_files(&mut self) {
        let old = |stat: &Stat| match stat {
            Stat::File(signature) => self.disk.is_older(*signature, QUIET),
            _ => true,
        };
        if self.seen.iter().all(|(_, stat)| old(stat)) {
            self.settle();
        }
    }

    /// Looks once; whether something else is wanted than before.
    pub(super) fn step(&mut self) -> bool {
        let before = self.disk.now();
        let look = self.look();
        if look != self.seen {
            self.stir(look);
        } else if before.saturating_sub(self.since) >= QUIET {
            return self.settle();
        }
        self.complain()
    }

    fn stir(&mut self, look: Look) {
        self.seen = look;
        self.since = self.disk.now();
        self.restless.get_or_insert(self.since);
    }

    /// Nothing changed for long enough: takes what is new.
    fn settle(&mut self) -> bool {
        if self.restless.is_none() && self.is_taken() {
            return false;
        }
        let Ok(()) = self.take() else {
            let look = self.look();
            self.stir(look);
            return self.complain();
        };
        self.restless = None;
        let wanted = self.decide();
        self.publish(wanted)
    }

    fn look(&self) -> Look {
        let toml = self.loaded.recipe.path.iter();
        let modules = self.loaded.config.modules.iter().map(|module| &module.path);
        toml.chain(modules).map(|path| (path.clone(), self.disk.stat(path))).collect()
    }

    /// Whether all that is seen has been read.
    fn is_taken(&self) -> bool {
        let taken = |path: &Path, stat: &Stat| match self.loaded.recipe.path.as_deref() == Some(path) {
            true => self.toml.as_ref() == Some(stat),
            false => self.files.get(path).is_some_and(|taken| taken.stat.as_ref() == Some(stat)),
        };
        self.seen.iter().all(|(path, stat)| taken(path, stat))
    }

    /// Reads what is not read yet.
    fn take(&mut self) -> Result<(), Moved> {
        self.take_toml()?;
        if self.toml_problem.is_none() {
            self.take_modules()?;
        }
        Ok(())
    }

    fn take_toml(&mut self) -> Result<(), Moved> {
        let Some(path) = self.loaded.recipe.path.clone() else { return Ok(()) };
        let stat = self.seen_at(&path);
        if self.toml.as_ref() == Some(&stat) {
            return Ok(());
        }
        let (read, stat) = read(&self.disk, &path, stat)?;
        self.toml = stat;
        self.toml_problem = None;
        match read.map(|bytes| self.loaded.recipe.settings_of(bytes)) {
            Ok(Ok(loaded)) => self.loaded = loaded,
            Ok(Err(errors)) => self.toml_problem = Some(errors.in_a_line()),
            Err(problem) => self.toml_problem = Some(format!("{} {problem}", path.display())),
        }
        Ok(())
    }

    fn take_modules(&mut self) -> Result<(), Moved> {
        for ModuleFile { path, .. } in &self.loaded.config.modules {
            let stat = self.seen.iter().find(|(seen, _)| seen == path).map(|(_, stat)| stat.clone());
            // A path that `balsa.toml` has only just begun to name.
            let stat = stat.ok_or(Moved)?;
            if self.files.get(path).is_some_and(|taken| taken.stat.as_ref() == Some(&stat)) {
                continue;
            }
            let (read, stat) = read(&self.disk, path, stat)?;
            let module = read.map_err(|error| error.to_string()).and_then(held);
            self.files.insert(path.clone(), Taken { stat, module });
        }
        let named = |path: &PathBuf| self.loaded.config.modules.iter().any(|module| module.path == *path);
        self.files.retain(|path, _| named(path));
        Ok(())
    }

    fn seen_at(&self, path: &Path) -> Stat {
        let seen = self.seen.iter().find(|(seen, _)| seen == path);
        seen.expect("a look begins with balsa.toml").1.clone()
    }

    /// What the files that were taken ask for.
    fn decide(&mut self) -> Wanted {
        if let Some(problem) = &self.toml_problem {
            let kept = "nothing new is taken from the files until this is mended";
            let problems = vec![format!("{problem}; {kept}")];
            return Wanted { problems, ..self.wanted.clone() };
        }
        let problems = self.ask();
        let config = &self.loaded.config;
        let wish = self.asked.as_ref().map(|asked| wish_of(asked, config.limits)).unwrap_or_default();
        Wanted {
            wish: admin::Wish { replicas: config.cluster.replicas.unwrap_or(0), ..wish },
            problems,
            restart_for: self.started.changes(&self.loaded),
            limits: config.limits,
            level: config.log.level,
            modules: self.asked.as_ref().map(bytes_of).unwrap_or_default(),
        }
    }

    /// Brings `asked` up to date with the files that were taken; returns what is wrong with them.
    fn ask(&mut self) -> Vec<String> {
        let (mut asked, mut problems, mut missing) = (BTreeMap::new(), Vec::new(), Vec::new());
        for ModuleFile { name, path, allow_breaking, fuel } in &self.loaded.config.modules {
            let now = match &self.files[path].module {
                Ok(held) => Some(Asked { held: held.clone(), allow_breaking: *allow_breaking, fuel: *fuel }),
                Err(problem) => {
                    problems.push(format!("module {name:?}: {} {problem}", path.display()));
                    self.asked.as_ref().and_then(|former| former.get(name)).cloned()
                }
            };
            match now {
                Some(now) => drop(asked.insert(name.clone(), now)),
                None => missing.push(name.as_str()),
            }
        }
        let known = self.asked.is_some() || missing.is_empty();
        // With no module left at all, the former ones are better than none.
        let empty = asked.is_empty() && !missing.is_empty();
        if !known {
            let missing = missing.join(", ");
            problems.push(format!("this node's files ask for nothing until there is a module file for {missing}"));
        } else if !empty {
            self.asked = Some(asked);
        }
        problems
    }

    /// Says so if the files have not stood still for long.
    fn complain(&mut self) -> bool {
        let Some(restless) = self.restless else { return false };
        if self.disk.now().saturating_sub(restless) < PATIENCE {
            return false;
        }
        let problem = format!(
            "the files go on changing and are taken when they stand still for {} s: {}",
            QUIET.as_secs(),
            self.seen.iter().map(|(path, _)| path.display().to_string()).collect::<Vec<_>>().join(", ")
        );
        let mut wanted = self.wanted.clone();
        if !wanted.problems.contains(&problem) {
            wanted.problems.push(problem);
        }
        self.publish(wanted)
    }

    fn publish(&mut self, mut wanted: Wanted) -> bool {
        let sequence = self.wanted.wish.sequence;
        let said = |wish: &admin::Wish| (wish.hash.clone(), wish.replicas);
        let changed = said(&wanted.wish) != said(&self.wanted.wish);
        wanted.wish.boot = self.boot;
        wanted.wish.sequence = if changed { sequence + 1 } else { sequence };
        let news = wanted != self.wanted;
        self.wanted = wanted;
        news
    }
}

/// The bytes of a file, or why there are none, in words that follow its name; and the stat that this holds for.
type Read = (Result<Vec<u8>, binary::Error>, Option<Stat>);

fn read(disk: &impl Disk, path: &Path, stat: Stat) -> Result<Read, Moved> {
    let refuse = |why: &str| binary::Error::Unreadable(std::io::Error::other(why.to_owned()));
    let bytes = match &stat {
        Stat::Absent => Err(binary::Error::Missing),
        Stat::NotAFile => Err(refuse("it is not a file")),
        Stat::Unreadable(why) => Err(refuse(why)),
        Stat::File(signature) => match disk.read(path, *signature) {
            Ok(bytes) => Ok(bytes),
            Err(Unread::Changed) => return Err(Moved),
            Err(Unread::TooLarge) => Err(binary::Error::TooLarge),
            // The next look tries again.
            Err(Unread::Refused(why)) => return Ok((Err(refuse(&why)), None)),
        },
    };
    Ok((bytes, Some(stat)))
}

fn held(bytes: Vec<u8>) -> Result<Held, String> {
    let wasm = binary::module(bytes).map_err(|error| error.to_string())?;
    Ok(Held { hash: ModuleHash::of(&wasm), wasm })
}

fn wish_of(asked: &BTreeMap<String, Asked>, limits: Replicated) -> admin::Wish {
    let fields = |(name, asked): (&String, &Asked)| ModuleFields {
        name: name.clone(),
        hash: asked.held.hash.0.to_vec(),
        size: asked.held.wasm.len() as u64,
        allow_breaking: asked.allow_breaking,
        fuel: asked.fuel,
    };
    let modules: Vec<_> = asked.iter().map(fields).collect();
    wish::wish(if modules.is_empty() { vec![wish::embedded_module()] } else { modules }, limits)
}

fn bytes_of(asked: &BTreeMap<String, Asked>) -> Vec<Held> {
    if asked.is_empty() {
        let wasm = Bytes::from_static(embedded::KVSTORE);
        return vec![Held { hash: ModuleHash::of(&wasm), wasm }];
    }
    asked.values().map(|asked| asked.held.clone()).collect()
}
