//! Server reflection: clients that have no `.proto` ask for the descriptors, so that `grpcurl`, Python or `balsa call` can
//! talk to any module.
//!
//! The services are our own on tonic-reflection's generated types: its server wants descriptors that live for ever and
//! cannot follow a change of module. [`Files`] is what is served at one time; each answer comes from the table that is
//! current when the question arrives.
//!
//! In one reflection database a file's name is unique, but two modules may each have a `common.proto`. Files with the same
//! content are shared. A file whose name is taken by other content is served as `<module>/<name>`, and so is every file that
//! imports it, because its content changes with the name of its import.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use futures::Stream;
use prost::Message;
use prost_reflect::{DescriptorPool, FileDescriptor};
use tonic::{Code, Request, Response, Status, Streaming};

use super::call::Core;
use super::routes::Table;
use crate::service::Backend;

/// Our own services, beside those of modules.
pub(super) const OURS: [&str; 4] = [super::admin::NAME, super::health::NAME, V1, V1ALPHA];
pub(super) const V1: &str = v1::SERVICE_NAME;
pub(super) const V1ALPHA: &str = v1alpha::SERVICE_NAME;

/// The files of our own services.
static OWN: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let mut pool = DescriptorPool::new();
    let sets: [&[u8]; 4] = [
        include_bytes!(concat!(env!("OUT_DIR"), "/admin.bin")),
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    for set in sets {
        pool.decode_file_descriptor_set(set).expect("our own descriptors are compiled in and a test decodes them");
    }
    pool
});

/// The files that are served, and where each symbol is.
#[derive(Debug, Default)]
pub(super) struct Files {
    files: HashMap<String, File>,
    /// In the order in which they were added: ours, then the modules'.
    owners: Vec<Owner>,
}

#[derive(Debug)]
struct File {
    encoded: Bytes,
    /// Names as they are served.
    imports: Vec<String>,
}

#[derive(Debug)]
struct Owner {
    pool: DescriptorPool,
    /// From a file's own name to the one it is served under, where they differ.
    renamed: HashMap<String, String>,
}

impl Files {
    /// Our own.
    pub(super) fn ours() -> Self {
        let mut files = Self::default();
        files.add("balsa", &OWN);
        files
    }

    /// Adds a module's.
    pub(super) fn add(&mut self, owner: &str, pool: &DescriptorPool) {
        let mut renamed = HashMap::new();
        // A pool lists a file after those it imports.
        for file in pool.files() {
            let name = self.add_file(owner, &file, &renamed);
            if name != file.name() {
                renamed.insert(file.name().to_owned(), name);
            }
        }
        self.owners.push(Owner { pool: pool.clone(), renamed });
    }

    /// Returns the name that the file is served under.
    fn add_file(&mut self, owner: &str, file: &FileDescriptor, renamed: &HashMap<String, String>) -> String {
        let imports: Vec<_> = file.dependencies().map(|import| served(renamed, import.name()).to_owned()).collect();
        let changed = file.dependencies().any(|import| renamed.contains_key(import.name()));
        let encoded = if changed { rename(file, file.name(), renamed) } else { file.encode_to_vec().into() };
        let taken = self.files.get(file.name());
        if taken.is_some_and(|taken| taken.encoded == encoded) {
            return file.name().to_owned();
        }
        if taken.is_none() {
            self.files.insert(file.name().to_owned(), File { encoded, imports });
            return file.name().to_owned();
        }
        let name = format!("{owner}/{}", file.name());
        self.files.insert(name.clone(), File { encoded: rename(file, &name, renamed), imports });
        name
    }

    /// The name of the file that defines a message, enum, enum value, field, extension, service or method.
    fn of_symbol(&self, symbol: &str) -> Option<&str> {
        self.find(|pool| {
            let parent = |symbol: &str| {
                let service = || pool.get_service_by_name(symbol).map(|service| service.parent_file());
                let message = || pool.get_message_by_name(symbol).map(|message| message.parent_file());
                let values = || pool.get_enum_by_name(symbol).map(|values| values.parent_file());
                service().or_else(message).or_else(values)
            };
            let extension = || pool.get_extension_by_name(symbol).map(|extension| extension.parent_file());
            parent(symbol).or_else(extension).or_else(|| member(pool, symbol))
        })
    }

    /// The name of the file that extends a message with a field of this number.
    fn of_extension(&self, extended: &str, number: i32) -> Option<&str> {
        let number = u32::try_from(number).ok()?;
        self.find(|pool| {
            let extension = pool.get_message_by_name(extended)?.get_extension(number)?;
            Some(extension.parent_file())
        })
    }

    fn find(&self, look: impl Fn(&DescriptorPool) -> Option<FileDescriptor>) -> Option<&str> {
        self.owners.iter().find_map(|owner| {
            let file = look(&owner.pool)?;
            let (name, _) = self.files.get_key_value(served(&owner.renamed, file.name()))?;
            Some(name.as_str())
        })
    }

    /// The numbers of a message's extensions, ascending; `None` if there is no such message.
    fn extensions_of(&self, extended: &str) -> Option<Vec<i32>> {
        let messages: Vec<_> =
            self.owners.iter().filter_map(|owner| owner.pool.get_message_by_name(extended)).collect();
        let extensions = messages.iter().flat_map(|message| message.extensions());
        let mut numbers: Vec<_> = extensions.filter_map(|extension| i32::try_from(extension.number()).ok()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        (!messages.is_empty()).then_some(numbers)
    }

    /// A file, and those of its imports (and theirs) that this client was not sent before: what other servers do, so that a
    /// client needs one question and not one for each file.
    fn with_imports(&self, name: &str, sent: &mut HashSet<String>) -> Option<Vec<Vec<u8>>> {
        let mut encoded = vec![self.files.get(name)?.encoded.to_vec()];
        sent.insert(name.to_owned());
        let mut wanted: Vec<&String> = self.files[name].imports.iter().collect();
        while let Some(import) = wanted.pop() {
            if let Some(file) = self.files.get(import).filter(|_| sent.insert(import.clone())) {
                encoded.push(file.encoded.to_vec());
                wanted.extend(&file.imports);
            }
        }
        Some(encoded)
    }
}

fn served<'a>(renamed: &'a HashMap<String, String>, name: &'a str) -> &'a str {
    renamed.get(name).map_or(name, String::as_str)
}

/// `file` with another name and other names for its imports.
fn rename(file: &FileDescriptor, name: &str, renamed: &HashMap<String, String>) -> Bytes {
    let mut proto = file.file_descriptor_proto().clone();
    proto.name = Some(name.to_owned());
    for import in &mut proto.dependency {
        *import = served(renamed, import).to_owned();
    }
    proto.encode_to_vec().into()
}

/// Where a symbol is that is named by its parent: a method, a field, a oneof, or an enum's value (which protobuf puts beside
/// its enum, not inside it).
fn member(pool: &DescriptorPool, symbol: &str) -> Option<FileDescriptor> {
    let (parent, name) = symbol.rsplit_once('.')?;
    let method = || {
        let service = pool.get_service_by_name(parent)?;
        service.methods().any(|method| method.name() == name).then(|| service.parent_file())
    };
    let field = || {
        let message = pool.get_message_by_name(parent)?;
        let oneof = message.oneofs().any(|oneof| oneof.name() == name);
        (oneof || message.get_field_by_name(name).is_some()).then(|| message.parent_file())
    };
    let value = || {
        let mut values = pool.all_enums().flat_map(|values| values.values().collect::<Vec<_>>());
        values.find(|value| value.full_name() == symbol).map(|value| value.parent_enum().parent_file())
    };
    method().or_else(field).or_else(value)
}

/// The service, for both versions of its protocol.
pub(super) struct Reflection<B>(pub(super) Arc<Core<B>>);

/// A client's question.
enum Question {
    File(String),
    Symbol(String),
    Extension(String, i32),
    ExtensionNumbers(String),
    Services,
    /// None was set.
    Nothing,
}

/// And its answer.
enum Answer {
    Files(Vec<Vec<u8>>),
    ExtensionNumbers(String, Vec<i32>),
    Services(Vec<String>),
    Error(Code, String),
}

fn answer(table: &Table, question: Question, sent: &mut HashSet<String>) -> Answer {
    let files = &table.files;
    let mut file = |name: Option<&str>, what: String| {
        let encoded = name.and_then(|name| files.with_imports(name, sent));
        encoded.map_or_else(|| Answer::Error(Code::NotFound, format!("{what} is not served here")), Answer::Files)
    };
    match question {
        Question::File(name) => file(Some(&name), format!("file {name}")),
        Question::Symbol(symbol) => file(files.of_symbol(&symbol), format!("symbol {symbol}")),
        Question::Extension(extended, number) => {
            file(files.of_extension(&extended, number), format!("extension {number} of {extended}"))
        }
        Question::ExtensionNumbers(extended) => match files.extensions_of(&extended) {
            Some(numbers) => Answer::ExtensionNumbers(extended, numbers),
            None => Answer::Error(Code::NotFound, format!("message {extended} is not served here")),
        },
        Question::Services => {
            let mut services: Vec<_> = table.services().chain(OURS).map(str::to_owned).collect();
            services.sort_unstable();
            Answer::Services(services)
        }
        Question::Nothing => Answer::Error(Code::InvalidArgument, "the request asks for nothing".to_owned()),
    }
}

/// The two versions have the same messages in two packages, so that one text serves both.
macro_rules! version {
    ($name:ident) => {
        pub(super) mod $name {
            use std::pin::Pin;

            use tonic_reflection::pb::$name::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$name::server_reflection_response::MessageResponse;
            pub(in crate::api) use tonic_reflection::pb::$name::server_reflection_server::{
                SERVICE_NAME, ServerReflection, ServerReflectionServer,
            };
            use tonic_reflection::pb::$name::{
                ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
                ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
            };

            use super::*;

            #[tonic::async_trait]
            impl<B: Backend> ServerReflection for Reflection<B> {
                type ServerReflectionInfoStream =
                    Pin<Box<dyn Stream<Item = Result<ServerReflectionResponse, Status>> + Send>>;

                async fn server_reflection_info(
                    &self,
                    request: Request<Streaming<ServerReflectionRequest>>,
                ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
                    let talk = (Arc::clone(&self.0), request.into_inner(), HashSet::new());
                    let stream = futures::stream::try_unfold(talk, |(core, mut requests, mut sent)| async move {
                        let next = tokio::select! {
                            next = requests.message() => next?,
                            () = core.stopping.cancelled() => None,
                        };
                        Ok(next.map(|request| (respond(&core.table(), request, &mut sent), (core, requests, sent))))
                    });
                    Ok(Response::new(Box::pin(stream)))
                }
            }

            fn respond(
                table: &Table,
                request: ServerReflectionRequest,
                sent: &mut HashSet<String>,
            ) -> ServerReflectionResponse {
                let question = request.message_request.clone().map_or(Question::Nothing, Question::from);
                ServerReflectionResponse {
                    valid_host: request.host.clone(),
                    original_request: Some(request),
                    message_response: Some(answer(table, question, sent).into()),
                }
            }

            impl From<MessageRequest> for Question {
                fn from(request: MessageRequest) -> Self {
                    match request {
                        MessageRequest::FileByFilename(name) => Self::File(name),
                        MessageRequest::FileContainingSymbol(symbol) => Self::Symbol(symbol),
                        MessageRequest::FileContainingExtension(extension) => {
                            Self::Extension(extension.containing_type, extension.extension_number)
                        }
                        MessageRequest::AllExtensionNumbersOfType(extended) => Self::ExtensionNumbers(extended),
                        MessageRequest::ListServices(_) => Self::Services,
                    }
                }
            }

            impl From<Answer> for MessageResponse {
                fn from(answer: Answer) -> Self {
                    match answer {
                        Answer::Files(file_descriptor_proto) => {
                            Self::FileDescriptorResponse(FileDescriptorResponse { file_descriptor_proto })
                        }
                        Answer::ExtensionNumbers(base_type_name, extension_number) => {
                            let response = ExtensionNumberResponse { base_type_name, extension_number };
                            Self::AllExtensionNumbersResponse(response)
                        }
                        Answer::Services(names) => {
                            let service = names.into_iter().map(|name| ServiceResponse { name }).collect();
                            Self::ListServicesResponse(ListServiceResponse { service })
                        }
                        Answer::Error(code, error_message) => {
                            Self::ErrorResponse(ErrorResponse { error_code: code as i32, error_message })
                        }
                    }
                }
            }
        }
    };
}
version!(v1);
version!(v1alpha);
