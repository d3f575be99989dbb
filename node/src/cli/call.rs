//! `balsa call Service/Method JSON`: any method of any module.
//!
//! Nothing about the module is known here: its descriptors come from the cluster by server reflection, the JSON (proto3's
//! mapping, in which bytes are base64 and 64-bit integers are strings) becomes a message by them, and the reply becomes
//! JSON again. The descriptor also says what is a query (`idempotency_level = NO_SIDE_EFFECTS`), and what is a command and
//! needs an idempotency key. A stream is printed as it comes, a line for each message. What a module says in the details of a
//! status becomes JSON as well, where the descriptors have its type.

use std::ffi::{OsStr, OsString};

use bytes::Bytes;
use futures::FutureExt;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions};
use prost_types::method_options::IdempotencyLevel;

use super::kv::Freshness;
use super::{Console, Exit, Format, Session, value};
use crate::client::{self, Detail, Kind, Read, Rejection};
use crate::limits::IDEMPOTENCY_KEY_BYTES_MAX;

/// Said of an answer that was not made for this attempt.
pub(super) const REPLAYED: &str =
    "replayed: this is the stored answer to an earlier attempt with the same idempotency key";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The message is proto3 JSON: bytes are base64, 64-bit integers may be strings. Example:
  balsa call kvstore.v1.KvStore/Put '{\"key\":\"YQ==\",\"value\":\"Yg==\"}'")]
pub(super) struct Call {
    /// package.Service/Method; Service/Method will do where it is the only one
    #[arg(required_unless_present = "list")]
    method: Option<String>,
    /// The message, as JSON; @FILE, or - for standard input
    #[arg(default_value = "{}")]
    message: OsString,
    /// List the services, and of each method whether it is a command or a query
    #[arg(long)]
    list: bool,
    /// The idempotency key of a command: the same call, sent again with it, gets the first reply [default: a new one]
    #[arg(long, value_name = "KEY", value_parser = idempotency_key)]
    idempotency_key: Option<String>,
    #[command(flatten)]
    freshness: Freshness,
}

fn idempotency_key(text: &str) -> Result<String, String> {
    match text.len() {
        1..=IDEMPOTENCY_KEY_BYTES_MAX if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(text.to_owned()),
        _ => Err(format!("write 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters, such as a UUIDv7")),
    }
}

/// Why a call cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such service or method.
    #[error("the cluster serves no method '{wanted}'; {}", suggestion(.nearest))]
    UnknownMethod {
        /// What was asked for.
        wanted: String,
        /// What resembles it, nearest first.
        nearest: Vec<String>,
    },
    /// The short form fits several.
    #[error("'{wanted}' is the name of several methods; write one of: {}", .candidates.join(", "))]
    Ambiguous {
        /// What was asked for.
        wanted: String,
        /// What it may mean.
        candidates: Vec<String>,
    },
    /// One request makes a call.
    #[error("'{0}' takes a stream of requests; `balsa call` sends a single one")]
    ClientStreaming(String),
    /// `--stale` is for queries.
    #[error("'{0}' is a command, and only a query can be --stale")]
    StaleCommand(String),
    /// `--idempotency-key` is for commands.
    #[error("'{0}' is a query, and only a command has an --idempotency-key")]
    QueryWithKey(String),
    /// The JSON is not one, or not this message's.
    #[error("the message is not a {message} in JSON: {error}{}", fields(.descriptor))]
    Json {
        /// Full name of the message.
        message: String,
        /// Why.
        error: serde_json::Error,
        /// Of the message.
        descriptor: MessageDescriptor,
    },
    /// The reply is not what the descriptor says.
    #[error("the reply is not a {message}: {error}")]
    Reply {
        /// Full name of the message.
        message: String,
        /// Why.
        error: prost::DecodeError,
    },
    /// The reply holds something that has no JSON form, such as an `Any` of a type that nobody describes.
    #[error("the call went well, but its reply cannot be shown as JSON: {0}")]
    Unprintable(serde_json::Error),
    /// The module said no.
    #[error("{rejection}")]
    Rejected {
        /// What it said.
        rejection: Box<Rejection>,
        /// Its details as JSON, in their order; `None` where nobody describes the type.
        details: Vec<Option<String>>,
    },
}

fn suggestion(nearest: &[String]) -> String {
    match nearest {
        [] => "list what it serves with `balsa call --list`".into(),
        some => format!("did you mean {}? List all with `balsa call --list`", some.join(" or ")),
    }
}

fn fields(descriptor: &MessageDescriptor) -> String {
    let names: Vec<_> = descriptor.fields().map(|field| field.json_name().to_owned()).collect();
    if names.is_empty() { "; it has no fields".into() } else { format!("; its fields are {}", names.join(", ")) }
}

pub(super) async fn run(args: &Call, session: &mut Session<'_>) -> Result<Exit, super::Error> {
    let services = session.client.services().await?;
    match &args.method {
        Some(wanted) if !args.list => call(wanted, args, &services, session).await,
        _ => {
            let pool = describe(session, &own(&services)).await?;
            list(&pool, &own(&services), session)
        }
    }
}

/// The modules' services: what the node itself serves is not for this command.
fn own(services: &[String]) -> Vec<String> {
    services.iter().filter(|name| !name.starts_with("grpc.") && !name.starts_with("balsa.")).cloned().collect()
}

async fn describe(session: &Session<'_>, services: &[String]) -> Result<DescriptorPool, client::Error> {
    session.client.describe(services).await
}

fn list(pool: &DescriptorPool, services: &[String], session: &mut Session<'_>) -> Result<Exit, super::Error> {
    let methods = methods(pool, services);
    for method in &methods {
        let kind = if is_query(method) { "query" } else { "command" };
        let (input, output) = (method.input().full_name().to_owned(), method.output().full_name().to_owned());
        let streaming = method.is_server_streaming();
        match session.format {
            Format::Json => session.console.json(&serde_json::json!({
                "method": name(method), "kind": kind, "request": input, "response": output, "streaming": streaming,
            }))?,
            Format::Text => {
                let stream = if streaming { "stream " } else { "" };
                session.console.line(format!("{kind:<8}{}  ({input}) -> {stream}{output}", name(method)))?;
            }
        }
    }
    Ok(Exit::Ok)
}

async fn call(wanted: &str, args: &Call, services: &[String], session: &mut Session<'_>) -> Result<Exit, super::Error> {
    let pool = describe(session, &likely(wanted, services)).await?;
    let method = find(wanted, &methods(&pool, services))?;
    let request = encode(&method, &args.message, session.console)?;
    let call = prepare(&method, request, args)?;
    let answered = match call.kind {
        Kind::Query(read) if method.is_server_streaming() => stream(&method, &call, read, session).await,
        _ => unary(&method, &call, session).await,
    };
    answered.map_err(|error| with_details_described(error, &pool))
}

fn prepare(method: &MethodDescriptor, request: Bytes, args: &Call) -> Result<client::Call, Error> {
    let path = format!("/{}", name(method));
    match (is_query(method), &args.idempotency_key, args.freshness.read()) {
        (true, None, read) => Ok(client::Call::query(&path, request, read)),
        (true, Some(_), _) => Err(Error::QueryWithKey(name(method))),
        (false, _, Read::Stale { .. }) => Err(Error::StaleCommand(name(method))),
        (false, None, Read::Linearizable) => Ok(client::Call::command(&path, request)),
        (false, Some(key), Read::Linearizable) => {
            Ok(client::Call { path, request, kind: Kind::Command { key: key.clone() } })
        }
    }
}

async fn unary(
    method: &MethodDescriptor,
    call: &client::Call,
    session: &mut Session<'_>,
) -> Result<Exit, super::Error> {
    let reply = session.client.call(call).await?;
    let json = decode(method, reply.message, session.format)?;
    session.console.line(json)?;
    if reply.replayed {
        session.console.note(REPLAYED);
    }
    Ok(Exit::Ok)
}

/// A line of JSON for each message, as it comes.
async fn stream(
    method: &MethodDescriptor,
    call: &client::Call,
    read: Read,
    session: &mut Session<'_>,
) -> Result<Exit, super::Error> {
    let mut messages = session.client.query_stream(&call.path, call.request.clone(), read).await?;
    loop {
        let next = match messages.next().now_or_never() {
            Some(next) => next,
            None => {
                // Nothing more at present: time to show what there is.
                session.console.flush()?;
                messages.next().await
            }
        };
        match next? {
            Some(message) => session.console.line(decode(method, message, Format::Json)?)?,
            None => return Ok(Exit::Ok),
        }
    }
}

/// The service that is meant, where its full name is given; else all of the modules', to look in.
fn likely(wanted: &str, services: &[String]) -> Vec<String> {
    let service = split(wanted).map(|(service, _)| service);
    match services.iter().find(|name| Some(name.as_str()) == service) {
        Some(service) => vec![service.clone()],
        None => own(services),
    }
}

/// `package.Service/Method`, with a slash before it as in a path, or with a dot before the method as in a symbol.
fn split(wanted: &str) -> Option<(&str, &str)> {
    let bare = wanted.strip_prefix('/').unwrap_or(wanted);
    bare.rsplit_once('/').or_else(|| bare.rsplit_once('.'))
}

fn find(wanted: &str, methods: &[MethodDescriptor]) -> Result<MethodDescriptor, Error> {
    let (service, method) = split(wanted).unwrap_or(("", wanted));
    let full = |candidate: &&MethodDescriptor| candidate.parent_service().full_name() == service;
    let short = |candidate: &&MethodDescriptor| service.is_empty() || candidate.parent_service().name() == service;
    let named = || methods.iter().filter(|candidate| candidate.name() == method);
    let exact: Vec<_> = named().filter(full).collect();
    let candidates = if exact.is_empty() { named().filter(short).collect() } else { exact };
    match candidates[..] {
        [] => Err(Error::UnknownMethod { wanted: wanted.into(), nearest: nearest(wanted, methods) }),
        [one] if one.is_client_streaming() => Err(Error::ClientStreaming(name(one))),
        [one] => Ok(one.clone()),
        ref several => {
            Err(Error::Ambiguous { wanted: wanted.into(), candidates: several.iter().map(|one| name(one)).collect() })
        }
    }
}

/// How alike two names of methods must be for one to be suggested for the other (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.8;
/// How many are suggested.
const SUGGESTIONS: usize = 3;

fn nearest(wanted: &str, methods: &[MethodDescriptor]) -> Vec<String> {
    let (service, wanted_method) = split(wanted).unwrap_or(("", wanted));
    let likeness = |method: &MethodDescriptor| {
        let of_method = strsim::jaro_winkler(&wanted_method.to_lowercase(), &method.name().to_lowercase());
        let parent = method.parent_service();
        let of_service =
            strsim::jaro_winkler(service, parent.full_name()).max(strsim::jaro_winkler(service, parent.name()));
        (of_method >= ALIKE).then_some(of_method + of_service)
    };
    let mut scored: Vec<_> = methods.iter().filter_map(|method| Some((likeness(method)?, name(method)))).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(SUGGESTIONS).map(|(_, name)| name).collect()
}

fn methods(pool: &DescriptorPool, services: &[String]) -> Vec<MethodDescriptor> {
    let services = services.iter().filter_map(|name| pool.get_service_by_name(name));
    services.flat_map(|service| service.methods().collect::<Vec<_>>()).collect()
}

fn name(method: &MethodDescriptor) -> String {
    format!("{}/{}", method.parent_service().full_name(), method.name())
}

fn is_query(method: &MethodDescriptor) -> bool {
    let proto = method.method_descriptor_proto();
    let level = proto.options.as_ref().map(prost_types::MethodOptions::idempotency_level);
    level == Some(IdempotencyLevel::NoSideEffects)
}

fn encode(method: &MethodDescriptor, text: &OsStr, console: &mut Console) -> Result<Bytes, super::Error> {
    let json = value::message(text, console)?;
    let descriptor = method.input();
    let wrong = |error| Error::Json { message: descriptor.full_name().into(), error, descriptor: descriptor.clone() };
    let mut from = serde_json::Deserializer::from_slice(&json);
    let message = DynamicMessage::deserialize(descriptor.clone(), &mut from).map_err(wrong)?;
    from.end().map_err(wrong)?;
    Ok(message.encode_to_vec().into())
}

/// In the reply a field that is absent is shown with its default: what is not there is hard to read.
fn decode(method: &MethodDescriptor, reply: Bytes, format: Format) -> Result<String, super::Error> {
    let descriptor = method.output();
    let message = descriptor.full_name().to_owned();
    let dynamic = DynamicMessage::decode(descriptor, reply).map_err(|error| Error::Reply { message, error })?;
    Ok(json(&dynamic, format).map_err(Error::Unprintable)?)
}

fn json(message: &DynamicMessage, format: Format) -> Result<String, serde_json::Error> {
    let options = SerializeOptions::new().skip_default_fields(false);
    let mut text = Vec::new();
    match format {
        Format::Json => message.serialize_with_options(&mut serde_json::Serializer::new(&mut text), &options)?,
        Format::Text => message.serialize_with_options(&mut serde_json::Serializer::pretty(&mut text), &options)?,
    }
    Ok(String::from_utf8(text).expect("JSON is UTF-8"))
}

fn with_details_described(error: super::Error, pool: &DescriptorPool) -> super::Error {
    match error {
        super::Error::Client(client::Error::Rejected(rejection)) => {
            let details = rejection.details.iter().map(|detail| describe_detail(detail, pool)).collect();
            Error::Rejected { rejection, details }.into()
        }
        other => other,
    }
}

fn describe_detail(detail: &Detail, pool: &DescriptorPool) -> Option<String> {
    let descriptor = pool.get_message_by_name(detail.type_name())?;
    let message = DynamicMessage::decode(descriptor, &*detail.value).ok()?;
    json(&message, Format::Json).ok()
}
