//! Files for the segments to come, zero-filled or recycled ahead of need, and the end of those that are done with.
//!
//! A sync on a file that was written to its full length before need not touch the file system's metadata, which makes
//! it several times faster than on one that grows. Both jobs take long and belong on a thread of their own: the log
//! thread asks for the next file when it has half filled the present one, and hands over what was purged.
//!
//! Every step here is one directory operation followed by a sync of the directory, so that a crash leaves at most one
//! undone; opening copes with every state between: an unfinished file, a spare, a prepared segment without a header,
//! and a purged segment that has come back.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};

use super::error::Error;
use super::files::{Files, zero};
use super::metrics::add;
use super::segment::{Segment, UNFINISHED, segment_name, spare_name};
use super::shared::Shared;

/// Makes, recycles and removes files.
#[derive(Debug)]
pub(super) struct Workshop {
    files: Arc<dyn Files>,
    shared: Arc<Shared>,
    /// Names of files that may become segments.
    spares: Vec<String>,
}

impl Workshop {
    pub(super) fn new(files: Arc<dyn Files>, shared: Arc<Shared>, spares: Vec<String>) -> Self {
        Self { files, shared, spares }
    }

    /// A file under the name of segment `number`, as large as a segment and durable, but for its content.
    pub(super) fn prepare(&mut self, number: u64) -> Result<Segment, Error> {
        let Shared { metrics, options, .. } = self.shared.as_ref();
        let counter = if self.spares.is_empty() { &metrics.segments_made } else { &metrics.segments_recycled };
        let segment = prepare(self.files.as_ref(), &mut self.spares, number, options.segment_bytes)?;
        add(counter, 1);
        Ok(segment)
    }

    /// Keeps the file for a later segment if it is of use and nobody reads it any more, and removes it otherwise: who
    /// has it open can still read it then.
    fn retire(&mut self, segment: Arc<Segment>) -> Result<(), Error> {
        let options = &self.shared.options;
        let number = segment.number;
        let unread = Arc::try_unwrap(segment);
        let of_use = unread.is_ok_and(|segment| segment.file_bytes == options.segment_bytes);
        if of_use && self.spares.len() < options.spares_max {
            rename(self.files.as_ref(), &segment_name(number), &spare_name(number))?;
            self.spares.push(spare_name(number));
            Ok(())
        } else {
            remove(self.files.as_ref(), &segment_name(number))
        }
    }

    fn retire_or_poison(&mut self, segment: Arc<Segment>) {
        if let Err(error) = self.retire(segment) {
            self.shared.poison(Arc::new(error));
        }
    }

    fn run(mut self, jobs: &Receiver<Job>, ready: &Sender<Result<Segment, Error>>) {
        for job in jobs {
            match job {
                // If nobody takes it, the log is closing.
                Job::Prepare(number) => drop(ready.send(self.prepare(number))),
                Job::Retire(segment) => self.retire_or_poison(segment),
            }
        }
    }
}

/// A file of `bytes` under the name of segment `number`: a spare, or a new one.
pub(super) fn prepare(files: &dyn Files, spares: &mut Vec<String>, number: u64, bytes: u64) -> Result<Segment, Error> {
    let source = match spares.pop() {
        Some(spare) => spare,
        None => {
            zero_filled(files, bytes)?;
            UNFINISHED.to_owned()
        }
    };
    rename(files, &source, &segment_name(number))?;
    Segment::open(files, number)
}

/// Makes the file `new.tmp` with `bytes` durable zeros.
fn zero_filled(files: &dyn Files, bytes: u64) -> Result<(), Error> {
    let file = files.create(UNFINISHED).map_err(files.failed("create", UNFINISHED))?;
    zero(file.as_ref(), 0, bytes).map_err(files.failed("write zeros to", UNFINISHED))
}

/// Renames durably.
pub(super) fn rename(files: &dyn Files, from: &str, to: &str) -> Result<(), Error> {
    files.rename(from, to).and_then(|()| files.sync()).map_err(files.failed("rename", from))
}

/// Removes durably.
pub(super) fn remove(files: &dyn Files, name: &str) -> Result<(), Error> {
    files.remove(name).and_then(|()| files.sync()).map_err(files.failed("remove", name))
}

#[derive(Debug)]
enum Job {
    Prepare(u64),
    Retire(Arc<Segment>),
}

/// The log thread's end of the workshop.
#[derive(Debug)]
pub(super) struct Spares {
    place: Place,
    /// The segment that was asked for last.
    requested: u64,
    /// Made before the log thread began; opening found it.
    ready: Option<Segment>,
}

#[derive(Debug)]
enum Place {
    /// On a thread of its own.
    Thread(Thread),
    /// In the calling thread: for tests that count file operations, where their order must not depend on luck.
    #[cfg_attr(not(test), allow(dead_code))]
    Here(Box<Workshop>),
}

#[derive(Debug)]
struct Thread {
    /// None only while this is dropped.
    jobs: Option<Sender<Job>>,
    ready: Receiver<Result<Segment, Error>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Thread {
    /// Whoever needs the answer notices if the thread is gone; what was to be retired is found at the next opening.
    fn send(&self, job: Job) {
        let _ = self.jobs.as_ref().map(|jobs| jobs.send(job));
    }
}

impl Drop for Thread {
    /// Waits for the jobs that are queued: after this, nobody touches the directory.
    fn drop(&mut self) {
        self.jobs = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Spares {
    /// A workshop that runs where it is called.
    #[cfg(test)]
    pub(super) fn here(workshop: Workshop, ready: Option<Segment>) -> Self {
        Self {
            requested: ready.as_ref().map_or(0, |segment| segment.number),
            place: Place::Here(Box::new(workshop)),
            ready,
        }
    }

    /// A workshop on a thread, which ends when this is dropped.
    pub(super) fn spawn(workshop: Workshop, ready: Option<Segment>) -> std::io::Result<Self> {
        let shared = workshop.shared.clone();
        let (jobs, jobs_taken) = crossbeam_channel::unbounded();
        let (ready_given, ready_taken) = crossbeam_channel::unbounded();
        let run = move || workshop.run(&jobs_taken, &ready_given);
        let thread = Some(std::thread::Builder::new().name("log-files".to_owned()).spawn(run)?);
        let requested = ready.as_ref().map_or(0, |segment| segment.number);
        let place = Place::Thread(Thread { jobs: Some(jobs), ready: ready_taken, shared, thread });
        Ok(Self { place, requested, ready })
    }

    /// Has segment `number` prepared, if that was not asked before.
    pub(super) fn request(&mut self, number: u64) {
        if self.requested >= number {
            return;
        }
        self.requested = number;
        match &mut self.place {
            Place::Thread(thread) => thread.send(Job::Prepare(number)),
            // An error will come up again when the segment is needed.
            Place::Here(workshop) => self.ready = workshop.prepare(number).ok(),
        }
    }

    /// Segment `number`; waits for it if need be. One failure is forgiven: it may be an hour old, and there may be room
    /// now.
    pub(super) fn take(&mut self, number: u64) -> Result<Segment, Error> {
        if let Some(segment) = self.ready.take_if(|segment| segment.number == number) {
            return Ok(segment);
        }
        if self.requested == number
            && let Ok(segment) = self.wait(number)
        {
            return Ok(segment);
        }
        self.requested = 0;
        self.request(number);
        self.wait(number)
    }

    fn wait(&mut self, number: u64) -> Result<Segment, Error> {
        match &mut self.place {
            Place::Thread(Thread { ready, shared, .. }) => {
                if ready.is_empty() {
                    add(&shared.metrics.roll_waits, 1);
                }
                ready.recv().map_err(|_| Error::Closed)?
            }
            Place::Here(workshop) => self.ready.take().map_or_else(|| workshop.prepare(number), Ok),
        }
    }

    /// Disposes of a segment that was purged durably.
    pub(super) fn retire(&mut self, segment: Arc<Segment>) {
        match &mut self.place {
            Place::Thread(thread) => thread.send(Job::Retire(segment)),
            Place::Here(workshop) => workshop.retire_or_poison(segment),
        }
    }
}
