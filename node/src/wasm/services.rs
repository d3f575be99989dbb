//! What a module serves: its metadata, its descriptors and its method table, and that the three fit together.
//!
//! Descriptors come from whoever built the module, so that they may be anything. `prost-reflect` resolves them and finds most
//! of what can be wrong, but a few malformed sets make it panic; those are found first, in [`intact`].

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use prost_reflect::{DescriptorPool, MethodDescriptor};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    ServiceDescriptorProto,
};

use super::check::Rejection;
use super::metadata::{ABI, Kind, Metadata};
use super::module::{Method, MethodKind};
use crate::limits::METHOD_BYTES_MAX;

/// Methods of one module. The method table is walked at load only; this bounds what a catalog page holds.
pub(super) const METHODS_MAX: usize = 1_000;
/// The encoded descriptor set: google's largest public APIs stay below half of it.
const DESCRIPTORS_BYTES_MAX: usize = 1024 * 1024;
/// A module's name and its version, each.
const NAME_BYTES_MAX: usize = 64;
/// Packages that the node serves itself.
const RESERVED_PACKAGES: [&str; 2] = ["grpc", "balsa"];

/// What a module serves.
pub(super) struct Services {
    pub(super) metadata: Metadata,
    pub(super) methods: Vec<Method>,
    pub(super) descriptors: DescriptorPool,
}

/// Checks the contents of the metadata sections, of which there must be one.
pub(super) fn check(sections: &[&[u8]]) -> Result<Services, Rejection> {
    let metadata = metadata(sections)?;
    let descriptors = descriptors(&metadata.file_descriptor_set)?;
    let methods = methods(&metadata, &descriptors)?;
    Ok(Services { metadata, methods, descriptors })
}

fn metadata(sections: &[&[u8]]) -> Result<Metadata, Rejection> {
    let section = match sections {
        [] => return Err(Rejection::NoMetadata),
        [section] => *section,
        several => return Err(Rejection::SeveralMetadata(several.len())),
    };
    let metadata = Metadata::decode(section).map_err(|error| Rejection::Metadata(error.to_string()))?;
    if metadata.abi != ABI {
        return Err(Rejection::Abi { found: metadata.abi });
    }
    check_name("name", &metadata.name)?;
    check_name("version", &metadata.version)?;
    Ok(metadata)
}

fn check_name(what: &'static str, value: &str) -> Result<(), Rejection> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
    if (1..=NAME_BYTES_MAX).contains(&value.len()) && value.bytes().all(good) {
        return Ok(());
    }
    let value = value.chars().take(NAME_BYTES_MAX).collect();
    Err(Rejection::Name { what, value })
}

fn descriptors(set: &[u8]) -> Result<DescriptorPool, Rejection> {
    if set.len() > DESCRIPTORS_BYTES_MAX {
        let why = format!("{} bytes of at most {DESCRIPTORS_BYTES_MAX}; leave out source info", set.len());
        return Err(Rejection::Descriptors(why));
    }
    let files = FileDescriptorSet::decode(set).map_err(|error| Rejection::Descriptors(error.to_string()))?;
    files.file.iter().try_for_each(intact).map_err(Rejection::Descriptors)?;
    let pool = DescriptorPool::decode(set).map_err(|error| Rejection::Descriptors(error.to_string()))?;
    for file in pool.files() {
        let package = file.package_name();
        if RESERVED_PACKAGES.contains(&package.split('.').next().unwrap_or_default()) {
            return Err(Rejection::ReservedPackage { file: file.name().into(), package: package.into() });
        }
    }
    Ok(pool)
}

/// Refuses what `prost-reflect` takes for granted of a compiler's output.
fn intact(file: &FileDescriptorProto) -> Result<(), String> {
    let name = file.name();
    if !matches!(file.syntax(), "" | "proto2" | "proto3") {
        return Err(format!("`{name}` has syntax {:?}; proto2 and proto3 are read", file.syntax()));
    }
    let sound = file.options.iter().all(|options| options.uninterpreted_option.is_empty())
        && file.message_type.iter().all(sound_message)
        && file.enum_type.iter().all(sound_enum)
        && file.extension.iter().all(|field| sound_field(field, 0))
        && file.service.iter().all(sound_service);
    if sound { Ok(()) } else { Err(format!("`{name}` is not what a protobuf compiler writes")) }
}

/// No options left for a compiler to interpret, and fields in oneofs that exist.
fn sound_message(message: &DescriptorProto) -> bool {
    let oneofs = message.oneof_decl.len();
    message.options.iter().all(|options| options.uninterpreted_option.is_empty())
        && message.field.iter().chain(&message.extension).all(|field| sound_field(field, oneofs))
        && message.oneof_decl.iter().flat_map(|oneof| &oneof.options).all(|o| o.uninterpreted_option.is_empty())
        && message.extension_range.iter().flat_map(|range| &range.options).all(|o| o.uninterpreted_option.is_empty())
        && message.enum_type.iter().all(sound_enum)
        && message.nested_type.iter().all(sound_message)
}

fn sound_field(field: &FieldDescriptorProto, oneofs: usize) -> bool {
    field.options.iter().all(|options| options.uninterpreted_option.is_empty())
        && field.oneof_index.is_none_or(|at| usize::try_from(at).is_ok_and(|at| at < oneofs))
}

fn sound_enum(enumeration: &EnumDescriptorProto) -> bool {
    !enumeration.value.is_empty()
        && enumeration.options.iter().all(|options| options.uninterpreted_option.is_empty())
        && enumeration.value.iter().flat_map(|value| &value.options).all(|o| o.uninterpreted_option.is_empty())
}

fn sound_service(service: &ServiceDescriptorProto) -> bool {
    service.options.iter().all(|options| options.uninterpreted_option.is_empty())
        && service.method.iter().flat_map(|method| &method.options).all(|o| o.uninterpreted_option.is_empty())
}

/// The method table, checked against the descriptors in both directions.
///
/// A service without any method in the table is one that a dependency brought along; it is not served.
fn methods(metadata: &Metadata, descriptors: &DescriptorPool) -> Result<Vec<Method>, Rejection> {
    let count = metadata.methods.len();
    let described: BTreeMap<String, MethodDescriptor> =
        descriptors.services().flat_map(|service| service.methods().map(path).collect::<Vec<_>>()).collect();
    if !(1..=METHODS_MAX).contains(&count) {
        return Err(Rejection::Methods(count));
    }
    let mut methods = Vec::with_capacity(count);
    for (index, entry) in (0..).zip(&metadata.methods) {
        let described = described.get(&entry.path);
        let kind =
            kind(entry.kind, described).map_err(|why| Rejection::MethodTable { path: shown(&entry.path), why })?;
        let streaming = streaming(kind, described).map_err(|refuse| refuse(shown(&entry.path)))?;
        methods.push(Method { path: entry.path.clone(), kind, streaming, index });
    }
    check_complete(&methods, &described)?;
    Ok(methods)
}

fn path(method: MethodDescriptor) -> (String, MethodDescriptor) {
    (format!("/{}/{}", method.parent_service().full_name(), method.name()), method)
}

/// A path from the method table, which may be anything, cut to what fits a line.
fn shown(path: &str) -> String {
    path.chars().take(METHOD_BYTES_MAX).collect()
}

fn kind(kind: i32, described: Option<&MethodDescriptor>) -> Result<MethodKind, &'static str> {
    use prost_types::method_options::IdempotencyLevel::NoSideEffects;
    let described = described.ok_or("the method table has it, but the descriptors do not")?;
    let options = described.method_descriptor_proto().options.as_ref();
    let reads_only = options.is_some_and(|options| options.idempotency_level() == NoSideEffects);
    match (Kind::try_from(kind), reads_only) {
        (Ok(Kind::Command), false) => Ok(MethodKind::Command),
        (Ok(Kind::Query), true) => Ok(MethodKind::Query),
        (Ok(Kind::Command), true) => {
            Err("the method table has a command, but its idempotency_level is NO_SIDE_EFFECTS")
        }
        (Ok(Kind::Query), false) => {
            Err("the method table has a query, but its idempotency_level is not NO_SIDE_EFFECTS")
        }
        (Ok(Kind::Unspecified) | Err(_), _) => Err("the method table does not say whether it is a command or a query"),
    }
}

/// Whether the answer is a stream. A query's may be; nothing else streams.
fn streaming(kind: MethodKind, described: Option<&MethodDescriptor>) -> Result<bool, fn(String) -> Rejection> {
    let (client, server) = described.map_or((false, false), |m| (m.is_client_streaming(), m.is_server_streaming()));
    match (client, server, kind) {
        (true, ..) => Err(Rejection::ClientStreaming),
        (false, true, MethodKind::Command) => Err(Rejection::StreamingCommand),
        (false, server, _) => Ok(server),
    }
}

fn check_complete(methods: &[Method], described: &BTreeMap<String, MethodDescriptor>) -> Result<(), Rejection> {
    let refuse = |path: &str, why| Err(Rejection::MethodTable { path: shown(path), why });
    let mut listed = BTreeSet::new();
    for method in methods {
        if method.path.len() > METHOD_BYTES_MAX {
            return refuse(&method.path, "its path is above 512 bytes");
        }
        if !listed.insert(method.path.as_str()) {
            return refuse(&method.path, "the method table has it twice");
        }
    }
    let service = |path: &str| path.rsplit_once('/').map(|(service, _)| service.to_owned());
    let served: BTreeSet<_> = methods.iter().map(|method| service(&method.path)).collect();
    match described.keys().find(|path| served.contains(&service(path)) && !listed.contains(path.as_str())) {
        Some(path) => refuse(path, "the descriptors have it, but the method table does not"),
        None => Ok(()),
    }
}
