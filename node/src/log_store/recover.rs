//! Opening a log: replay of all segments, and the judgement of what does not read.
//!
//! **What a crash leaves.** Only the last segment can hold anything unsynced, and there only the last group: any of its
//! sectors may be missing, in any order. So a bad record may be the beginning of a torn group, whose later records may
//! well be whole; or it may be damage to something acknowledged. Every record tells which: its `synced` says up to
//! where the segment was durable when it was written. If any frame after the bad record has a `synced` beyond it, the
//! record was durable once and is *damaged*; otherwise the group was torn and is *cut*: everything from the bad record
//! on is written over with zeros, lest a whole record of the torn group turn up again behind a new one that happens to
//! end before it. A seal is written as soon as the log is idle, so that the last group has a witness too; without one
//! (the power failed within about a millisecond after the sync) damage to the last group cannot be told from a torn
//! write.
//!
//! Frames are looked for at every multiple of 8 bytes, not only where records ought to begin: a record with a bad frame
//! does not tell its length. What a recycled file held before has other segment numbers in its frames.
//!
//! **Never cut**: anything in a segment that has a successor (its header says where this one ended, and is only written
//! after that was synced); a segment without a valid header in front of one that has; a frame whose checksum is right
//! and whose content makes no sense (a newer version wrote it); a file shorter than its header says; a gap in the
//! numbers, unless what is missing was purged.
//!
//! **Files beyond the last segment** have no valid header. One without any frame of its own number is a prepared
//! segment and is used; one with such frames was being begun when the machine stopped, and is removed. If a frame in it
//! says that something was synced, the header is damaged.
//!
//! All damage is looked for before anything is changed, and every change leads to a state that opens the same way, so a
//! crash during opening does no harm. What a process that was killed had written and not synced reads perfectly; it is
//! synced before Raft is told of it.

use std::sync::Arc;

use super::Options;
use super::error::{Damage, Error};
use super::files::Files;
use super::index::Index;
use super::record::{ALIGN, FORMAT, FRAME_BYTES, Frame, Header, Key, Record};
use super::segment::{META, META_UNFINISHED, Name, Segment, segment_name, spare_name};
use super::spares::{prepare, remove, rename};
use super::state::{State, next};
use super::writer::Tail;

/// A log as it was found.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) salt: u32,
    pub(super) state: State,
    pub(super) index: Index,
    pub(super) tail: Tail,
    /// The file of the next segment, if there is one already.
    pub(super) prepared: Option<Segment>,
    pub(super) spares: Vec<String>,
}

/// Opens the log in `files`, or begins one.
pub(super) fn open(files: &dyn Files, options: &Options) -> Result<Recovered, Error> {
    let mut found = Found::list(files)?;
    // First, so that what is made under that name now is not mixed up with what was there.
    found.unfinished.drain(..).try_for_each(|name| remove(files, &name))?;
    let meta = match found.meta {
        true => Meta::read(files)?,
        false if found.segments.is_empty() => Meta { salt: rand::random(), begun: false },
        false => return Err(Meta::damaged(files, Damage::Meta)),
    };
    let salt = meta.salt;
    let chain = Chain::link(files, &found.segments, salt)?;
    let Replay { state, index, tail, .. } = chain.replay(salt)?;
    if meta.begun && tail.is_none() {
        return Err(Meta::damaged(files, Damage::MissingSegment(1)));
    }
    if !found.meta {
        meta.write(files)?;
    }
    let mut prepared = chain.tidy(files, options)?;
    found.tidy(files, options)?;
    let (tail, index) = match tail {
        Some(tail) => (tail.cut()?, index),
        None => {
            let first =
                prepared.take().map_or_else(|| prepare(files, &mut found.spares, 1, options.segment_bytes), Ok)?;
            begin(first, salt)?
        }
    };
    if !meta.begun {
        Meta { begun: true, ..meta }.write(files)?;
    }
    Ok(Recovered { salt, state, index, tail, prepared, spares: found.spares })
}

/// Begins the first segment of a log.
fn begin(segment: Segment, salt: u32) -> Result<(Tail, Index), Error> {
    let mut header = Vec::new();
    State::default().header(segment.file_bytes, 0).push(&mut header);
    super::record::stamp(&mut header, Key { salt, segment: segment.number }, 0);
    segment.write(&header, 0)?;
    segment.sync()?;
    let (segment, end) = (Arc::new(segment), header.len() as u64);
    let mut index = Index::default();
    index.add_segment(segment.clone(), end);
    Ok((Tail { segment, end, synced: end }, index))
}

/// The log's identity: one line of text.
#[derive(Debug, Clone, Copy)]
struct Meta {
    /// A number that no client knows, without which no bytes pass for a record.
    salt: u32,
    /// Whether the first segment was begun: from then on there is a segment, or something was lost.
    begun: bool,
}

impl Meta {
    fn text(self) -> String {
        let begun = if self.begun { "begun" } else { "new" };
        let text = format!("balsa log {FORMAT} {:08x} {begun}", self.salt);
        format!("{text} {:08x}\n", crc32c::crc32c(text.as_bytes()))
    }

    fn write(self, files: &dyn Files) -> Result<(), Error> {
        let file = files.create(META_UNFINISHED).map_err(files.failed("create", META))?;
        file.write_at(self.text().as_bytes(), 0).map_err(files.failed("write", META))?;
        file.sync().map_err(files.failed("sync", META))?;
        rename(files, META_UNFINISHED, META)
    }

    fn read(files: &dyn Files) -> Result<Self, Error> {
        let file = files.open(META).map_err(files.failed("open", META))?;
        let mut bytes = vec![0; file.len().map_err(files.failed("read", META))?.min(100) as usize];
        file.read_at(&mut bytes, 0).map_err(files.failed("read", META))?;
        let text = String::from_utf8_lossy(&bytes);
        let salt = text.split(' ').nth(3).and_then(|salt| u32::from_str_radix(salt, 16).ok());
        let metas = salt.into_iter().flat_map(|salt| [true, false].map(|begun| Self { salt, begun }));
        metas.into_iter().find(|meta| meta.text() == text).ok_or_else(|| Self::damaged(files, Damage::Meta))
    }

    fn damaged(files: &dyn Files, damage: Damage) -> Error {
        Error::Damaged { file: files.dir().join(META), offset: 0, damage }
    }
}

/// The directory's files by their names.
#[derive(Debug, Default)]
struct Found {
    meta: bool,
    /// Ascending.
    segments: Vec<u64>,
    spares: Vec<String>,
    unfinished: Vec<String>,
}

impl Found {
    fn list(files: &dyn Files) -> Result<Self, Error> {
        let mut found = Self::default();
        for name in files.list().map_err(files.failed("list", ""))? {
            match Name::of(&name) {
                Name::Segment(number) => found.segments.push(number),
                Name::Spare(number) => found.spares.push(spare_name(number)),
                Name::Unfinished => found.unfinished.push(name),
                Name::Other => found.meta |= name == META,
            }
        }
        found.segments.sort_unstable();
        found.spares.sort_unstable();
        Ok(found)
    }

    /// Removes what cannot be used.
    fn tidy(&mut self, files: &dyn Files, options: &Options) -> Result<(), Error> {
        for name in std::mem::take(&mut self.spares) {
            let bytes = files.open(&name).and_then(|file| file.len());
            let bytes = bytes.map_err(files.failed("read the size of", &name))?;
            if bytes == options.segment_bytes && self.spares.len() < options.spares_max {
                self.spares.push(name);
            } else {
                remove(files, &name)?;
            }
        }
        Ok(())
    }
}

/// What stands at the beginning of a file.
#[derive(Debug)]
enum Head {
    /// A valid header, and where it ends.
    Begun(Box<Header>, u64),
    /// Nothing of this segment.
    Blank,
    /// Pieces of it, none of which was ever synced.
    Torn,
}

impl Head {
    fn read(segment: &Segment, salt: u32) -> Result<Self, Error> {
        /// Headers are far smaller.
        const HEAD_BYTES: u64 = 4096;
        let key = Key { salt, segment: segment.number };
        let mut bytes = vec![0; HEAD_BYTES.min(segment.file_bytes) as usize];
        segment.read(&mut bytes, 0)?;
        match read_record(&bytes, key) {
            Ok((Record::Header(header), span)) => Self::check(segment, header, span as u64),
            Ok(_) => Err(segment.damaged(0, Damage::Misplaced)),
            Err(bad) if bad.may_be_torn() => Self::judge(segment, key, bad),
            Err(bad) => Err(segment.damaged(0, bad)),
        }
    }

    fn check(segment: &Segment, header: Box<Header>, end: u64) -> Result<Self, Error> {
        let (expected, found) = (header.file_bytes, segment.file_bytes);
        if header.format != FORMAT {
            return Err(segment.damaged(0, Damage::Format(header.format)));
        }
        if found < expected {
            return Err(segment.damaged(found, Damage::Short { expected, found }));
        }
        Ok(Self::Begun(header, end))
    }

    /// There is no valid header: was there ever one?
    fn judge(segment: &Segment, key: Key, bad: Damage) -> Result<Self, Error> {
        let remains = Remains::search(&read_all(segment)?, key, 0);
        match remains {
            Remains { synced, .. } if synced > 0 => {
                Err(segment.damaged(0, Damage::Synced { bad: Box::new(bad), synced }))
            }
            Remains { end: 0, .. } => Ok(Self::Blank),
            _ => Ok(Self::Torn),
        }
    }
}

impl Damage {
    /// Whether a write that was interrupted can look like this.
    fn may_be_torn(&self) -> bool {
        matches!(self, Self::Frame | Self::Payload)
    }
}

fn read_all(segment: &Segment) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; segment.file_bytes as usize];
    segment.read(&mut bytes, 0)?;
    Ok(bytes)
}

/// The record at the beginning of `bytes` and its span.
fn read_record(bytes: &[u8], key: Key) -> Result<(Record, usize), Damage> {
    let frame = Frame::parse(bytes, key)?;
    Ok((Record::decode(frame.kind, frame.payload(bytes)?)?, frame.span()))
}

/// What stands after the last record that reads.
#[derive(Debug, Default)]
struct Remains {
    /// The greatest `synced` of any frame.
    synced: u64,
    /// Where the last of them ends; 0 if there are none.
    end: u64,
}

impl Remains {
    fn search(bytes: &[u8], key: Key, from: u64) -> Self {
        let mut remains = Self::default();
        let mut at = from as usize;
        while at + FRAME_BYTES <= bytes.len() {
            if bytes[at..].starts_with(&ZEROS) {
                // Most of a segment that was not used before: no frame begins in the first 4096.
                at += ZEROS.len() - FRAME_BYTES;
                continue;
            }
            if let Ok(frame) = Frame::parse(&bytes[at..], key) {
                remains.synced = remains.synced.max(frame.synced);
                remains.end = remains.end.max((at + frame.span()).min(bytes.len()) as u64);
            }
            at += ALIGN;
        }
        remains
    }
}

/// What a search passes over at once.
static ZEROS: [u8; 4096 + FRAME_BYTES] = [0; 4096 + FRAME_BYTES];

/// A segment with a valid header.
#[derive(Debug)]
struct Link {
    segment: Arc<Segment>,
    header: Box<Header>,
    /// Where the header ends.
    begin: u64,
}

/// All segment files in their order.
#[derive(Debug, Default)]
struct Chain {
    /// Before a gap in the numbers: purged, and come back since the removal was not durable.
    stale: Vec<u64>,
    links: Vec<Link>,
    /// Beyond the last begun segment; true: blank.
    ahead: Vec<(Segment, bool)>,
}

impl Chain {
    fn link(files: &dyn Files, numbers: &[u64], salt: u32) -> Result<Self, Error> {
        let mut chain = Self::default();
        for number in numbers.iter().rev() {
            let segment = Segment::open(files, *number)?;
            let Some(next) = chain.links.last().map(|link| link.segment.number) else {
                chain.link_last(segment, salt)?;
                continue;
            };
            if number + 1 < next || !chain.stale.is_empty() {
                chain.stale.push(*number);
                continue;
            }
            match Head::read(&segment, salt)? {
                Head::Begun(header, begin) => chain.links.push(Link { segment: Arc::new(segment), header, begin }),
                _ => return Err(segment.damaged(0, Damage::Frame)),
            }
        }
        chain.links.reverse();
        chain.ahead.reverse();
        chain.check_ahead()?;
        Ok(chain)
    }

    /// Takes a segment after which none was begun.
    fn link_last(&mut self, segment: Segment, salt: u32) -> Result<(), Error> {
        match Head::read(&segment, salt)? {
            Head::Begun(header, begin) => self.links.push(Link { segment: Arc::new(segment), header, begin }),
            Head::Blank => self.ahead.push((segment, true)),
            Head::Torn => self.ahead.push((segment, false)),
        }
        Ok(())
    }

    /// A file is prepared only after the one before it was begun, so these leave no gap.
    fn check_ahead(&self) -> Result<(), Error> {
        let first = self.links.last().map_or(1, |link| link.segment.number + 1);
        for (expected, (segment, _)) in (first..).zip(&self.ahead) {
            if segment.number != expected {
                return Err(segment.damaged(0, Damage::MissingSegment(expected)));
            }
        }
        Ok(())
    }

    fn replay(&self, salt: u32) -> Result<Replay, Error> {
        let mut replay = Replay::default();
        for (n, link) in self.links.iter().enumerate() {
            replay.segment(link, self.links.get(n + 1), salt)?;
        }
        if let Some(first) = self.links.first()
            && next(replay.inherited) > next(replay.state.purged)
        {
            let missing = Damage::MissingSegment(first.segment.number - 1);
            return Err(first.segment.damaged(0, missing));
        }
        Ok(replay)
    }

    /// Removes what is not part of the log; returns the next segment's file if it is there. The last goes first, so
    /// that a crash leaves no gap in the numbers.
    fn tidy(self, files: &dyn Files, options: &Options) -> Result<Option<Segment>, Error> {
        let next = self.links.last().map_or(1, |link| link.segment.number + 1);
        let mut prepared = None;
        for (segment, blank) in self.ahead.into_iter().rev() {
            if blank && segment.number == next && segment.file_bytes == options.segment_bytes {
                prepared = Some(segment);
            } else {
                remove(files, &segment_name(segment.number))?;
            }
        }
        for number in self.stale {
            remove(files, &segment_name(number))?;
        }
        Ok(prepared)
    }
}

/// The log so far.
#[derive(Debug, Default)]
struct Replay {
    state: State,
    index: Index,
    /// The last entry of the log that stands before the first segment.
    inherited: Option<crate::raft::types::LogId>,
    tail: Option<FoundTail>,
}

/// Where the last segment ends, and what is to be wiped beyond.
#[derive(Debug)]
struct FoundTail {
    segment: Arc<Segment>,
    end: u64,
    wipe_to: u64,
}

impl FoundTail {
    /// Wipes what was torn, and makes durable what was found, since Raft will take it for flushed.
    fn cut(self) -> Result<Tail, Error> {
        let Self { segment, end, wipe_to } = self;
        if wipe_to > end {
            tracing::warn!(
                segment = segment.number,
                end,
                wipe_to,
                "cut a torn write off the log; it was not acknowledged"
            );
            segment.zero(end, wipe_to)?;
        }
        segment.sync()?;
        Ok(Tail { segment, end, synced: end })
    }
}

impl Replay {
    fn segment(&mut self, link: &Link, next: Option<&Link>, salt: u32) -> Result<(), Error> {
        let begins = State::begin(&link.header);
        if self.tail.is_some() && begins != self.state {
            let previous = link.segment.number - 1;
            return Err(link.segment.damaged(0, Damage::Discontinued { previous }));
        }
        if self.tail.is_none() {
            self.inherited = begins.last;
            self.state = begins;
        }
        self.index.add_segment(link.segment.clone(), link.begin);
        self.tail = Some(self.records(link, next, salt)?);
        Ok(())
    }

    /// Replays the records of a segment.
    fn records(&mut self, link: &Link, next: Option<&Link>, salt: u32) -> Result<FoundTail, Error> {
        let segment = link.segment.clone();
        let key = Key { salt, segment: segment.number };
        let all = read_all(&segment)?;
        let limit = next.map_or(all.len(), |next| all.len().min(next.header.previous_end as usize));
        let mut at = link.begin as usize;
        loop {
            let damaged = |damage| segment.damaged(at as u64, damage);
            if next.is_some() && at >= limit {
                return Ok(FoundTail { segment, end: at as u64, wipe_to: 0 });
            }
            match (read_record(&all[at.min(limit)..limit], key), next) {
                (Ok((record, span)), _) => {
                    self.record(&record, at as u64..(at + span) as u64).map_err(damaged)?;
                    at += span;
                }
                (Err(bad), None) if bad.may_be_torn() => {
                    let remains = Remains::search(&all, key, at as u64);
                    if remains.synced > at as u64 {
                        return Err(damaged(Damage::Synced { bad: Box::new(bad), synced: remains.synced }));
                    }
                    return Ok(FoundTail { segment, end: at as u64, wipe_to: remains.end });
                }
                (Err(bad), None) => return Err(damaged(bad)),
                (Err(bad), Some(next)) => {
                    let (next, end) = (next.segment.number, next.header.previous_end);
                    return Err(damaged(Damage::Continued { bad: Box::new(bad), next, end }));
                }
            }
        }
    }

    fn record(&mut self, record: &Record, range: std::ops::Range<u64>) -> Result<(), Damage> {
        self.state.apply(record)?;
        if let Record::Truncate(after) = record {
            self.inherited = self.inherited.min(*after);
        }
        self.index.apply(record, range);
        Ok(())
    }
}
