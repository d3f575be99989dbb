//! The records of a segment: a frame of 24 bytes, a payload, zeros up to the next multiple of 8.
//!
//! ```text
//! byte  0  u32  checksum of bytes 4..24, CRC-32C continued from the log's salt
//!       4  u32  checksum of the payload, CRC-32C
//!       8  u32  length of the payload
//!      12  u32  synced: everything in this segment before this offset was durable when this record was written
//!      16  u64  the segment's number * 256 + the kind of record
//! ```
//! All little-endian. The two checksums share the work: the payload's is computed once, by the thread that encodes the
//! entry; the frame's by the log thread, which alone knows where the record goes. Since the frame's covers the length,
//! a length is either right or refused, and since it covers segment number and salt, neither what a recycled file held
//! before nor bytes that a client put into a value are ever taken for a record.

use prost::Message;

use super::error::Damage;
use crate::proto::raft as pb;
use crate::raft::types::{Entry, LogId, Vote};

/// Bytes of a frame.
pub(super) const FRAME_BYTES: usize = 24;
/// Records begin at multiples of this, so that a damaged segment can be searched for whole ones.
pub(super) const ALIGN: usize = 8;
/// Far above what enters the log (a module of 8 MiB), far below what a frame can say.
pub(super) const PAYLOAD_BYTES_MAX: usize = 256 * 1024 * 1024;
/// The format that this version writes and reads.
pub(super) const FORMAT: u32 = 1;

/// What a record is; the low byte of a frame's last word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Opens a segment.
    Header = 1,
    /// A log entry: `raft.Entry`.
    Entry = 2,
    /// The vote from here on: `raft.Vote`.
    Vote = 3,
    /// Entries after this log id are gone: a [`Mark`].
    Truncate = 4,
    /// Entries up to this log id are not needed any more: a [`Mark`].
    Purge = 5,
    /// Committed up to here, as known some time ago: a [`Mark`].
    Committed = 6,
    /// Empty: only there for its `synced`.
    Seal = 7,
}

impl Kind {
    fn from_number(number: u8) -> Option<Self> {
        use Kind::*;
        [Header, Entry, Vote, Truncate, Purge, Committed, Seal].into_iter().find(|kind| *kind as u8 == number)
    }
}

/// Payload of the first record of a segment: all that the segments before it would tell, so that they can go.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Header {
    #[prost(uint32, tag = "1")]
    pub(super) format: u32,
    /// Size of the file; a shorter one was cut.
    #[prost(uint64, tag = "2")]
    pub(super) file_bytes: u64,
    /// Where the records of the segment before end; all of them were synced before this record was written.
    #[prost(uint64, tag = "3")]
    pub(super) previous_end: u64,
    #[prost(message, optional, tag = "4")]
    pub(super) vote: Option<pb::Vote>,
    #[prost(message, optional, tag = "5")]
    pub(super) purged: Option<pb::LogId>,
    #[prost(message, optional, tag = "6")]
    pub(super) committed: Option<pb::LogId>,
    /// The last entry before this segment, or what was purged if there is none.
    #[prost(message, optional, tag = "7")]
    pub(super) last: Option<pb::LogId>,
}

/// Payload of `Truncate`, `Purge` and `Committed`. (An empty `raft.LogId` is a log id, so absence needs a wrapper.)
#[derive(Clone, PartialEq, Message)]
pub(super) struct Mark {
    #[prost(message, optional, tag = "1")]
    pub(super) id: Option<pb::LogId>,
}

/// The first two fields of `raft.Entry`: what replay needs, without copying the command.
#[derive(Clone, PartialEq, Message)]
struct EntryId {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    index: u64,
}

/// What a record says, as the log's state follows it; an entry is told by its id.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Record {
    Header(Box<Header>),
    Entry(LogId),
    Vote(Vote),
    Truncate(Option<LogId>),
    Purge(LogId),
    Committed(LogId),
    Seal,
}

/// What ties a record to its place: the log's salt and the segment's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) salt: u32,
    pub(super) segment: u64,
}

/// A frame whose checksum was right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) length: usize,
    pub(super) synced: u64,
    payload_crc: u32,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn word_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

impl Frame {
    /// The frame at the beginning of `bytes`, if it belongs to `key`.
    pub(super) fn parse(bytes: &[u8], key: Key) -> Result<Self, Damage> {
        if bytes.len() < FRAME_BYTES {
            return Err(Damage::Frame);
        }
        let word = word_at(bytes, 16);
        if word >> 8 != key.segment || u32_at(bytes, 0) != crc32c::crc32c_append(key.salt, &bytes[4..FRAME_BYTES]) {
            return Err(Damage::Frame);
        }
        let number = word.to_le_bytes()[0];
        Ok(Self {
            kind: Kind::from_number(number).ok_or(Damage::UnknownKind(number))?,
            length: u32_at(bytes, 8) as usize,
            synced: u64::from(u32_at(bytes, 12)),
            payload_crc: u32_at(bytes, 4),
        })
    }

    /// Bytes from this record to the next.
    pub(super) fn span(&self) -> usize {
        span(self.length)
    }

    /// The payload of the record that begins with `bytes`, if it is whole.
    pub(super) fn payload<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], Damage> {
        let beyond = Damage::BeyondFile { length: self.length as u64 };
        let payload = bytes.get(FRAME_BYTES..FRAME_BYTES + self.length).ok_or(beyond)?;
        if crc32c::crc32c(payload) == self.payload_crc { Ok(payload) } else { Err(Damage::Payload) }
    }
}

impl Record {
    /// Reads the payload of a record of `kind`.
    pub(super) fn decode(kind: Kind, payload: &[u8]) -> Result<Self, Damage> {
        let mark = || Mark::decode(payload).map(|mark| mark.id.map(LogId::from));
        Ok(match kind {
            Kind::Header => Self::Header(Box::new(Header::decode(payload)?)),
            Kind::Entry => {
                let id = EntryId::decode(payload)?;
                Self::Entry(crate::raft::codec::log_id(id.term, id.index))
            }
            Kind::Vote => Self::Vote(pb::Vote::decode(payload)?.into()),
            Kind::Truncate => Self::Truncate(mark()?),
            Kind::Purge => Self::Purge(mark()?.ok_or(Damage::Misplaced)?),
            Kind::Committed => Self::Committed(mark()?.ok_or(Damage::Misplaced)?),
            Kind::Seal => Self::Seal,
        })
    }

    /// Appends this record to `buffer`, unstamped; returns its span. Not for entries: see [`push_entry`].
    pub(super) fn push(&self, buffer: &mut Vec<u8>) -> usize {
        let mark = |id: Option<LogId>| Mark { id: id.as_ref().map(Into::into) };
        match self {
            Self::Header(header) => push(buffer, Kind::Header, header.as_ref()),
            Self::Entry(_) => unreachable!("an entry is more than its id: push_entry"),
            Self::Vote(vote) => push(buffer, Kind::Vote, &pb::Vote::from(vote)),
            Self::Truncate(after) => push(buffer, Kind::Truncate, &mark(*after)),
            Self::Purge(upto) => push(buffer, Kind::Purge, &mark(Some(*upto))),
            Self::Committed(id) => push(buffer, Kind::Committed, &mark(Some(*id))),
            Self::Seal => push(buffer, Kind::Seal, &Mark { id: None }),
        }
    }
}

/// Appends `entry` to `buffer`, unstamped; returns its span.
pub(super) fn push_entry(buffer: &mut Vec<u8>, entry: &Entry) -> usize {
    push(buffer, Kind::Entry, &pb::Entry::from(entry))
}

fn span(length: usize) -> usize {
    (FRAME_BYTES + length).next_multiple_of(ALIGN)
}

fn push(buffer: &mut Vec<u8>, kind: Kind, payload: &impl Message) -> usize {
    let start = buffer.len();
    buffer.resize(start + FRAME_BYTES, 0);
    payload.encode(buffer).expect("a Vec grows as needed");
    let length = buffer.len() - start - FRAME_BYTES;
    let crc = crc32c::crc32c(&buffer[start + FRAME_BYTES..]);
    buffer.resize(start + span(length), 0);
    buffer[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    // Lengths above u32 never get here: PAYLOAD_BYTES_MAX is checked by `append`.
    buffer[start + 8..start + 12].copy_from_slice(&(length as u32).to_le_bytes());
    buffer[start + 16] = kind as u8;
    span(length)
}

/// The span of the unstamped record at the beginning of `bytes`.
pub(super) fn unstamped_span(bytes: &[u8]) -> usize {
    span(u32_at(bytes, 8) as usize)
}

/// Completes the unstamped record at the beginning of `bytes`: now it belongs to a place.
pub(super) fn stamp(bytes: &mut [u8], key: Key, synced: u64) {
    let synced = u32::try_from(synced).expect("segments are below 4 GiB");
    bytes[12..16].copy_from_slice(&synced.to_le_bytes());
    let kind = u64::from(bytes[16]);
    bytes[16..FRAME_BYTES].copy_from_slice(&(key.segment << 8 | kind).to_le_bytes());
    let crc = crc32c::crc32c_append(key.salt, &bytes[4..FRAME_BYTES]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use openraft::entry::RaftEntry;
    use proptest::prelude::*;

    use super::*;
    use crate::command::Command;
    use crate::ids::NodeId;
    use crate::raft::codec::{decode_entry, log_id};

    const KEY: Key = Key { salt: 7, segment: 3 };

    fn ids() -> impl Strategy<Value = LogId> {
        (any::<u64>(), any::<u64>()).prop_map(|(term, index)| log_id(term, index))
    }

    fn records() -> impl Strategy<Value = Record> {
        prop_oneof![
            (any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(term, node, committed)| {
                Record::Vote(pb::Vote { term, node: NodeId(node).0, committed }.into())
            }),
            prop::option::of(ids()).prop_map(Record::Truncate),
            ids().prop_map(Record::Purge),
            ids().prop_map(Record::Committed),
            Just(Record::Seal),
            (any::<u64>(), prop::option::of(ids())).prop_map(|(file_bytes, last)| {
                let last = last.as_ref().map(Into::into);
                Record::Header(Box::new(Header { format: FORMAT, file_bytes, last, ..Header::default() }))
            }),
        ]
    }

    fn stamped(record: &Record, synced: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let span = record.push(&mut bytes);
        assert_eq!((span, span % ALIGN), (bytes.len(), 0));
        stamp(&mut bytes, KEY, u64::from(synced));
        bytes
    }

    proptest! {
        #[test]
        fn a_record_reads_back(record in records(), synced: u32) {
            let bytes = stamped(&record, synced);
            let frame = Frame::parse(&bytes, KEY)?;
            prop_assert_eq!((frame.span(), frame.synced), (bytes.len(), u64::from(synced)));
            prop_assert_eq!(Record::decode(frame.kind, frame.payload(&bytes)?)?, record);
        }

        #[test]
        fn an_entry_reads_back(term: u64, index: u64, command: Vec<u8>) {
            let entry = Entry::new(log_id(term, index), openraft::EntryPayload::Normal(Command::encoded(command)));
            let mut bytes = Vec::new();
            push_entry(&mut bytes, &entry);
            stamp(&mut bytes, KEY, 0);
            let frame = Frame::parse(&bytes, KEY)?;
            let payload = frame.payload(&bytes)?;
            prop_assert_eq!(Record::decode(frame.kind, payload)?, Record::Entry(log_id(term, index)));
            prop_assert_eq!(decode_entry(pb::Entry::decode(payload)?).unwrap(), entry);
        }

        #[test]
        fn a_flipped_bit_is_noticed(record in records(), at: prop::sample::Index, bit in 0..8u8) {
            let mut bytes = stamped(&record, 0);
            let used = FRAME_BYTES + Frame::parse(&bytes, KEY)?.length; // what follows is padding
            bytes[at.index(used)] ^= 1 << bit;
            let read = Frame::parse(&bytes, KEY).and_then(|frame| frame.payload(&bytes).map(<[u8]>::to_vec));
            prop_assert!(read.is_err());
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes: Vec<u8>, kind in 1..8u8) {
            prop_assert!(Frame::parse(&bytes, KEY).is_err());
            let _ = Record::decode(Kind::from_number(kind).unwrap(), &bytes);
        }
    }

    #[test]
    fn a_record_of_another_segment_or_log_is_no_record() {
        let bytes = stamped(&Record::Seal, 0);
        assert_eq!(Frame::parse(&bytes, Key { segment: 2, ..KEY }), Err(Damage::Frame));
        assert_eq!(Frame::parse(&bytes, Key { salt: 8, ..KEY }), Err(Damage::Frame));
    }
}
