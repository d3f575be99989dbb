//! `balsa put`, `get`, `delete` and `list`: short forms for the default module, `kvstore.v1.KvStore`.
//!
//! Any other module, and the rest of this one (transactions, ranges), is `balsa call`'s.

use std::ffi::OsString;

use bytes::Bytes;
use prost::Message;
use serde::Serialize;

use super::output::{JsonBytes, escape};
use super::{Console, Error, Exit, Format, Session, value};
use crate::client::{Client, Read, Reply};
use crate::ids::hex;
use crate::proto::kvstore::put_request::Condition;
use crate::proto::kvstore::{
    DeleteRangeRequest, DeleteRangeResponse, DeleteRequest, DeleteResponse, GetRequest, GetResponse, KeyValue,
    ListRequest, ListResponse, PutRequest, PutResponse,
};

pub(super) const PUT: &str = "/kvstore.v1.KvStore/Put";
pub(super) const GET: &str = "/kvstore.v1.KvStore/Get";
const DELETE: &str = "/kvstore.v1.KvStore/Delete";
const DELETE_RANGE: &str = "/kvstore.v1.KvStore/DeleteRange";
const LIST: &str = "/kvstore.v1.KvStore/List";

const VALUE_HELP: &str = "\
A value is text, @FILE for a file's content, or - for standard input; text that begins with @ is written with a second @. \
With --hex, keys and values on the command line are hexadecimal, and so is what is printed.";

/// How keys and values are written.
#[derive(Debug, clap::Args)]
pub(super) struct Notation {
    /// Keys and values are hexadecimal, here and in the output
    #[arg(long)]
    hex: bool,
}

/// How fresh an answer must be.
#[derive(Debug, clap::Args)]
pub(super) struct Freshness {
    /// Read one node's state as it is, perhaps behind: quicker, and works without a leader
    #[arg(long)]
    stale: bool,
}

impl Freshness {
    pub(super) fn read(&self) -> Read {
        if self.stale { Read::Stale { min_index: 0 } } else { Read::Linearizable }
    }
}

/// Arguments of `put`.
#[derive(Debug, clap::Args)]
#[command(after_help = VALUE_HELP)]
pub(super) struct Put {
    /// The key
    key: OsString,
    /// The value; @FILE, or - for standard input
    #[arg(allow_hyphen_values = true)]
    value: OsString,
    /// Print the value that was there before
    #[arg(long)]
    prev: bool,
    #[command(flatten)]
    condition: If,
    #[command(flatten)]
    notation: Notation,
}

#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct If {
    /// Only if the key does not exist; exit code 1 if it does
    #[arg(long)]
    if_absent: bool,
    /// Only if the key exists; exit code 1 if it does not
    #[arg(long)]
    if_present: bool,
    /// Only if the key has this value; exit code 1 if it has not
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    if_value: Option<OsString>,
    /// Only if the key has this version (0: it does not exist); exit code 1 if it has not
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u64>,
    /// Only if the key was last put at this log index; exit code 1 if it was not
    #[arg(long, value_name = "INDEX")]
    if_index: Option<u64>,
}

impl If {
    fn condition(&self, hex: bool, console: &mut Console) -> Result<Option<Condition>, Error> {
        let presence = match (self.if_absent, self.if_present) {
            (true, _) => Some(Condition::IfAbsent(true)),
            (_, true) => Some(Condition::IfAbsent(false)),
            _ => None,
        };
        if let Some(expected) = &self.if_value {
            return Ok(Some(Condition::IfValue(value::value(expected, hex, console)?)));
        }
        let version = self.if_version.map(Condition::IfVersion);
        Ok(presence.or(version).or(self.if_index.map(Condition::IfModIndex)))
    }
}

/// Arguments of `get`.
#[derive(Debug, clap::Args)]
pub(super) struct Get {
    /// The key
    key: OsString,
    #[command(flatten)]
    freshness: Freshness,
    #[command(flatten)]
    notation: Notation,
}

/// Arguments of `delete`.
#[derive(Debug, clap::Args)]
pub(super) struct Delete {
    /// The key
    key: OsString,
    /// Print the value that was deleted
    #[arg(long)]
    prev: bool,
    #[command(flatten)]
    notation: Notation,
}

/// Arguments of `list`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A line is a key, a tab and a value. What is not printable is escaped: \\n, \\t, \\r, \\\\, and \\xNN for other bytes. With \
-o json a line is an object. Long lists are read page by page, each page as the keys are at that moment.")]
pub(super) struct List {
    /// What keys begin with; all keys if there is none
    #[arg(default_value = "")]
    prefix: OsString,
    /// How many keys at most; all if it is not given
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Leave out the values
    #[arg(long)]
    keys_only: bool,
    /// From the last key to the first
    #[arg(long)]
    reverse: bool,
    #[command(flatten)]
    freshness: Freshness,
    #[command(flatten)]
    notation: Notation,
}

/// A key and all about it, in JSON.
#[derive(Serialize)]
struct JsonKeyValue {
    key: JsonBytes,
    value: JsonBytes,
    version: u64,
    create_index: u64,
    mod_index: u64,
}

impl From<&KeyValue> for JsonKeyValue {
    fn from(kv: &KeyValue) -> Self {
        Self {
            key: JsonBytes::from(&*kv.key),
            value: JsonBytes::from(&*kv.value),
            version: kv.version,
            create_index: kv.create_index,
            mod_index: kv.mod_index,
        }
    }
}

pub(super) async fn put(args: &Put, session: &mut Session<'_>) -> Result<Exit, Error> {
    let hex = args.notation.hex;
    let request = PutRequest {
        key: value::key(&args.key, hex)?,
        value: value::value(&args.value, hex, session.console)?,
        prev_kv: args.prev,
        condition: args.condition.condition(hex, session.console)?,
    };
    let reply = session.client.command(PUT, request.encode_to_vec()).await?;
    let response = PutResponse::decode(reply.message.clone())?;
    match session.format {
        Format::Json => put_json(&response, &reply, session.console)?,
        Format::Text => put_text(&response, args, session.console)?,
    }
    Ok(if response.succeeded { Exit::Ok } else { Exit::No })
}

fn put_text(response: &PutResponse, args: &Put, console: &mut Console) -> Result<(), Error> {
    if let Some(previous) = &response.prev_kv {
        console.bytes(&previous.value, args.notation.hex)?;
    }
    if !response.succeeded {
        console.note(&match response.version {
            0 => "not stored: the key is absent".to_owned(),
            version => format!("not stored: the key has version {version}, of index {}", response.mod_index),
        });
    } else if !args.prev {
        console.line(format!("stored version {} at index {}", response.version, response.mod_index))?;
    }
    Ok(())
}

fn put_json(response: &PutResponse, reply: &Reply, console: &mut Console) -> Result<(), Error> {
    console.json(&serde_json::json!({
        "succeeded": response.succeeded,
        "version": response.version,
        "create_index": response.create_index,
        "mod_index": response.mod_index,
        "previous": response.prev_kv.as_ref().map(JsonKeyValue::from),
        "index": reply.index,
        "replayed": reply.replayed,
    }))
}

pub(super) async fn get(args: &Get, session: &mut Session<'_>) -> Result<Exit, Error> {
    let key = value::key(&args.key, args.notation.hex)?;
    let found = read(&session.client, key, args.freshness.read()).await?;
    match (session.format, &found) {
        (Format::Json, found) => session.console.json(&found.as_ref().map(JsonKeyValue::from))?,
        (Format::Text, Some(kv)) => session.console.bytes(&kv.value, args.notation.hex)?,
        (Format::Text, None) => session.console.note("the key is absent"),
    }
    Ok(if found.is_some() { Exit::Ok } else { Exit::No })
}

/// What is at `key`.
pub(super) async fn read(client: &Client, key: Bytes, freshness: Read) -> Result<Option<KeyValue>, Error> {
    let reply = client.query(GET, GetRequest { key }.encode_to_vec(), freshness).await?;
    Ok(GetResponse::decode(reply.message)?.kv)
}

/// Stores `value`, whatever was there; the log index of it.
pub(super) async fn write(client: &Client, key: Bytes, value: Bytes) -> Result<u64, Error> {
    let request = PutRequest { key, value, ..PutRequest::default() };
    let reply = client.command(PUT, request.encode_to_vec()).await?;
    Ok(PutResponse::decode(reply.message)?.mod_index)
}

/// Deletes all keys that begin with `prefix`, as many at a time as the module does.
pub(super) async fn remove_all(client: &Client, prefix: Bytes) -> Result<(), Error> {
    let request = DeleteRangeRequest { prefix, ..DeleteRangeRequest::default() }.encode_to_vec();
    let mut more = true;
    while more {
        let reply = client.command(DELETE_RANGE, request.clone()).await?;
        more = DeleteRangeResponse::decode(reply.message)?.more;
    }
    Ok(())
}

pub(super) async fn delete(args: &Delete, session: &mut Session<'_>) -> Result<Exit, Error> {
    let key = value::key(&args.key, args.notation.hex)?;
    let request = DeleteRequest { key, prev_kv: args.prev };
    let reply = session.client.command(DELETE, request.encode_to_vec()).await?;
    let response = DeleteResponse::decode(reply.message.clone())?;
    let console = &mut *session.console;
    match session.format {
        Format::Json => console.json(&serde_json::json!({
            "deleted": response.deleted,
            "previous": response.prev_kv.as_ref().map(JsonKeyValue::from),
            "index": reply.index,
            "replayed": reply.replayed,
        }))?,
        Format::Text => match &response.prev_kv {
            Some(previous) => console.bytes(&previous.value, args.notation.hex)?,
            None if response.deleted => console.line(deleted_at(reply.index))?,
            None => console.note("the key is absent"),
        },
    }
    Ok(if response.deleted { Exit::Ok } else { Exit::No })
}

fn deleted_at(index: Option<u64>) -> String {
    index.map_or_else(|| "deleted".to_owned(), |index| format!("deleted at index {index}"))
}

pub(super) async fn list(args: &List, session: &mut Session<'_>) -> Result<Exit, Error> {
    let prefix = value::prefix(&args.prefix, args.notation.hex)?;
    let mut request =
        ListRequest { prefix, keys_only: args.keys_only, reverse: args.reverse, ..ListRequest::default() };
    let mut left = args.limit.unwrap_or(u64::MAX);
    while left > 0 {
        // 0 asks for as many as a page holds.
        request.limit = u32::try_from(left).unwrap_or(0);
        let reply = session.client.query(LIST, request.encode_to_vec(), args.freshness.read()).await?;
        let page = ListResponse::decode(reply.message)?;
        for kv in &page.kvs {
            item(kv, args, session)?;
        }
        left = left.saturating_sub(page.kvs.len() as u64);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    Ok(Exit::Ok)
}

fn item(kv: &KeyValue, args: &List, session: &mut Session<'_>) -> Result<(), Error> {
    if session.format == Format::Json {
        return match args.keys_only {
            true => session.console.json(&serde_json::json!({ "key": JsonBytes::from(&*kv.key) })),
            false => session.console.json(&JsonKeyValue::from(kv)),
        };
    }
    let show: fn(&[u8]) -> String = if args.notation.hex { hex } else { escape };
    match args.keys_only {
        true => session.console.line(show(&kv.key)),
        false => session.console.line(format!("{}\t{}", show(&kv.key), show(&kv.value))),
    }
}
