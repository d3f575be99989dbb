//! A node that is not one: it answers unary calls as a test tells it to, and remembers what it was asked.
//!
//! It speaks real gRPC on a real port, so that the client under test is the one users have. It also describes a little
//! service, `test.v1.Notes`, by reflection; its messages are in another file, which the description only names.
//!
//! The operators' streaming methods are answered by the same script: it is asked once all messages of the request have come, and
//! its answer is a sequence of messages, put together by [`stream`].

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request as HttpRequest;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::method_options::IdempotencyLevel;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, MethodDescriptorProto, MethodOptions,
    ServiceDescriptorProto,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tonic::body::Body;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::server_reflection_server::{ServerReflection, ServerReflectionServer};
use tonic_reflection::pb::v1::{
    ErrorResponse, FileDescriptorResponse, ListServiceResponse, ServerReflectionRequest, ServerReflectionResponse,
    ServiceResponse,
};
use tower::Service;

use super::failure::{DOMAIN, ERROR_INFO, ErrorInfo, RichStatus};
use super::{Backoff, Client, Endpoint, Options, RawCodec};

/// What a fake node was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) message: Bytes,
    /// Of a request that is a stream, the messages after the first.
    pub(crate) more: Vec<Bytes>,
    pub(crate) metadata: MetadataMap,
    /// Counts from 0.
    pub(crate) attempt: usize,
}

impl Asked {
    pub(crate) fn key(&self) -> Option<&str> {
        self.text("idempotency-key")
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.metadata.get(name).map(|value| value.to_str().unwrap())
    }
}

/// What it answers.
pub(crate) type Answer = Result<Response<Bytes>, Status>;

type Script = dyn Fn(&Asked) -> Option<Answer> + Send + Sync;

/// A server on a free port of this machine, which ends when it is dropped.
pub(crate) struct FakeNode {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    serving: JoinHandle<()>,
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl FakeNode {
    /// A node that answers each call with what `script` makes of it.
    pub(crate) async fn start(script: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_sometimes_silent(move |asked| Some(script(asked))).await
    }

    /// The same, where `None` means: no answer, ever.
    pub(crate) async fn start_sometimes_silent(
        script: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").await.unwrap(), script)
    }

    /// A node where another was before.
    pub(crate) async fn start_at(
        address: SocketAddr,
        script: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let deadline = Instant::now() + Duration::from_secs(30);
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < deadline, "{address} does not become free: {error}"),
            }
            tokio::task::yield_now().await;
        };
        Self::listen(listener, move |asked| Some(script(asked)))
    }

    fn listen(listener: TcpListener, script: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().unwrap();
        let asked = Arc::default();
        let handler = Handler { script: Arc::new(script), asked: Arc::clone(&asked) };
        Self { address, asked, serving: tokio::spawn(serve(listener, handler)) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::new("127.0.0.1", self.address.port())
    }

    /// What it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }

    /// A client of this node alone.
    pub(crate) fn client(&self) -> Client {
        client(&[self.endpoint()])
    }
}

/// A client with short pauses.
pub(crate) fn client(endpoints: &[Endpoint]) -> Client {
    let backoff = Backoff { first: Duration::from_millis(1), cap: Duration::from_millis(2) };
    Client::new(Options { backoff, ..Options::new(endpoints.to_vec(), Duration::from_secs(10)) })
}

/// An address where nothing listens: bound once, then closed.
pub(crate) async fn nobody() -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Endpoint::new("127.0.0.1", listener.local_addr().unwrap().port())
}

/// A reply with a `balsa-index`.
pub(crate) fn reply(message: impl Into<Bytes>, index: u64) -> Answer {
    let mut response = Response::new(message.into());
    response.metadata_mut().insert("balsa-index", MetadataValue::from(index));
    response.metadata_mut().insert("balsa-node", MetadataValue::from_static("fake-0"));
    Ok(response)
}

/// An error as a node makes it, with a reason.
pub(crate) fn refuse(code: Code, reason: &str, metadata: &[(&str, &str)]) -> Status {
    let info = ErrorInfo {
        reason: reason.into(),
        domain: DOMAIN.into(),
        metadata: metadata.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
    };
    let type_url = format!("type.googleapis.com/{ERROR_INFO}");
    let any = prost_types::Any { type_url, value: info.encode_to_vec() };
    let message = format!("fake {reason}");
    let rich = RichStatus { code: code as i32, message: message.clone(), details: vec![any] };
    Status::with_details(code, message, rich.encode_to_vec().into())
}

/// The same, with a pause that no test has time for: the client gives up at once.
pub(crate) fn refuse_for_long(code: Code, reason: &str) -> Status {
    let mut status = refuse(code, reason, &[]);
    status.metadata_mut().insert("grpc-retry-pushback-ms", MetadataValue::from(3_600_000));
    status
}

/// An error as a module makes it: it has an index, since it was applied.
pub(crate) fn module_says(code: Code, message: &str, index: u64) -> Status {
    let mut status = Status::new(code, message);
    status.metadata_mut().insert("balsa-index", MetadataValue::from(index));
    status
}

/// The same with details: the full name of each one's message, and its bytes.
pub(crate) fn module_says_with(code: Code, message: &str, details: &[(&str, &[u8])]) -> Status {
    let any = |(name, value): &(&str, &[u8])| prost_types::Any {
        type_url: format!("type.googleapis.com/{name}"),
        value: value.to_vec(),
    };
    let details = details.iter().map(any).collect();
    let rich = RichStatus { code: code as i32, message: message.into(), details };
    let mut status = Status::with_details(code, message, rich.encode_to_vec().into());
    status.metadata_mut().insert("balsa-index", MetadataValue::from(9));
    status
}

async fn serve(listener: TcpListener, handler: Handler) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let handler = handler.clone();
        let service = hyper::service::service_fn(move |request| route(handler.clone(), request));
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service);
        connections.spawn(connection);
    }
}

async fn route(handler: Handler, request: HttpRequest<Incoming>) -> Result<http::Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    if path.starts_with("/grpc.reflection.v1.") {
        return ServerReflectionServer::new(Reflection).call(request).await;
    }
    let mut grpc = tonic::server::Grpc::new(RawCodec);
    if path.ends_with("/Watch") {
        return Ok(grpc.server_streaming(Watch(Unary { handler, path }), request).await);
    }
    if STREAMING.iter().any(|method| path.ends_with(method)) {
        return Ok(grpc.streaming(Several { handler, path }, request).await);
    }
    Ok(grpc.unary(Unary { handler, path }, request).await)
}

/// Methods whose answers are streams.
const STREAMING: [&str; 2] = ["/ModulePush", "/Backup"];
/// Metadata of an answer whose stream does not end.
const ENDLESS: &str = "fake-endless";

/// An answer of several messages.
pub(crate) fn stream(messages: impl IntoIterator<Item = impl Message>) -> Answer {
    Ok(Response::new(messages.into_iter().flat_map(|message| message.encode_length_delimited_to_vec()).collect()))
}

/// The same, after which nothing comes, not even an end.
pub(crate) fn stream_without_end(messages: impl IntoIterator<Item = impl Message>) -> Answer {
    let mut answer = stream(messages)?;
    answer.metadata_mut().insert(ENDLESS, MetadataValue::from_static("yes"));
    Ok(answer)
}

struct Several {
    handler: Handler,
    path: String,
}

impl Service<Request<Streaming<Bytes>>> for Several {
    type Response = Response<Pin<Box<dyn tokio_stream::Stream<Item = Result<Bytes, Status>> + Send>>>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let (handler, path) = (self.handler.clone(), self.path.clone());
        Box::pin(async move {
            let metadata = request.metadata().clone();
            let messages = request.into_inner().collect::<Result<Vec<_>, _>>().await?;
            let mut messages = messages.into_iter();
            let message = messages.next().unwrap_or_default();
            let answer = handler.ask(path, message, messages.collect(), metadata);
            let Some(answer) = answer else { return std::future::pending().await };
            let (metadata, mut bytes, _) = answer?.into_parts();
            let mut messages = Vec::new();
            while !bytes.is_empty() {
                let length = prost::decode_length_delimiter(&mut bytes).unwrap();
                messages.push(Ok(bytes.split_to(length)));
            }
            let messages = tokio_stream::iter(messages);
            Ok(Response::new(match metadata.contains_key(ENDLESS) {
                true => Box::pin(messages.chain(tokio_stream::pending())),
                false => Box::pin(messages) as Pin<Box<dyn tokio_stream::Stream<Item = _> + Send>>,
            }))
        })
    }
}

#[derive(Clone)]
struct Handler {
    script: Arc<Script>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Handler {
    fn ask(&self, path: String, message: Bytes, more: Vec<Bytes>, metadata: MetadataMap) -> Option<Answer> {
        let mut all = self.asked.lock();
        let asked = Asked { path, message, more, metadata, attempt: all.len() };
        all.push(asked.clone());
        drop(all);
        (self.script)(&asked)
    }
}

struct Unary {
    handler: Handler,
    path: String,
}

impl Service<Request<Bytes>> for Unary {
    type Response = Response<Bytes>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let metadata = request.metadata().clone();
        let answer = self.handler.ask(self.path.clone(), request.into_inner(), Vec::new(), metadata);
        Box::pin(async move {
            match answer {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        })
    }
}

/// How many times a stream says what a unary call would say once.
pub(crate) const REPEATED: usize = 3;
/// Metadata of an error of a stream: it comes behind as many empty messages.
pub(crate) const AFTER: &str = "x-after";

struct Watch(Unary);

impl Service<Request<Bytes>> for Watch {
    type Response = Response<Messages>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Messages>, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async move {
            let (metadata, messages) = match answer.await {
                Ok(reply) => (reply.metadata().clone(), vec![Ok(reply.into_inner()); REPEATED]),
                Err(status) => {
                    let after = status.metadata().get(AFTER).ok_or_else(|| status.clone())?;
                    let after = after.to_str().unwrap().parse().unwrap();
                    let messages = std::iter::repeat_n(Ok(Bytes::new()), after).chain([Err(status)]);
                    (MetadataMap::new(), messages.collect())
                }
            };
            let mut response: Response<Messages> = Response::new(Box::pin(tokio_stream::iter(messages)));
            *response.metadata_mut() = metadata;
            Ok(response)
        })
    }
}

type Messages = Pin<Box<dyn tokio_stream::Stream<Item = Result<Bytes, Status>> + Send>>;

/// `test.v1.Notes` has a command `Write` and two queries, `Read` and `Watch`, from `test.types.Note` to the same or a stream of it.
pub(crate) fn notes_files() -> [FileDescriptorProto; 2] {
    let types = FileDescriptorProto {
        name: Some("test/types.proto".into()),
        package: Some("test.types".into()),
        message_type: vec![DescriptorProto {
            name: Some("Note".into()),
            field: vec![field("text", 1, Type::String), field("data", 2, Type::Bytes), field("at", 3, Type::Int64)],
            ..Default::default()
        }],
        syntax: Some("proto3".into()),
        ..Default::default()
    };
    let query = MethodOptions { idempotency_level: Some(IdempotencyLevel::NoSideEffects.into()), ..Default::default() };
    let watch = MethodDescriptorProto { server_streaming: Some(true), ..method("Watch", Some(query.clone())) };
    let notes = FileDescriptorProto {
        name: Some("test/notes.proto".into()),
        package: Some("test.v1".into()),
        dependency: vec!["test/types.proto".into()],
        service: vec![ServiceDescriptorProto {
            name: Some("Notes".into()),
            method: vec![method("Write", None), method("Read", Some(query.clone())), watch],
            ..Default::default()
        }],
        syntax: Some("proto3".into()),
        ..Default::default()
    };
    [types, notes]
}

fn field(name: &str, number: i32, kind: Type) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.into()),
        number: Some(number),
        label: Some(Label::Optional.into()),
        r#type: Some(kind.into()),
        ..Default::default()
    }
}

fn method(name: &str, options: Option<MethodOptions>) -> MethodDescriptorProto {
    MethodDescriptorProto {
        name: Some(name.into()),
        input_type: Some(".test.types.Note".into()),
        output_type: Some(".test.types.Note".into()),
        options,
        ..Default::default()
    }
}

struct Reflection;

type Answers = Pin<Box<dyn tokio_stream::Stream<Item = Result<ServerReflectionResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ServerReflection for Reflection {
    type ServerReflectionInfoStream = Answers;

    async fn server_reflection_info(
        &self,
        request: Request<Streaming<ServerReflectionRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let answers = request.into_inner().map(|question| {
            let question = question?.message_request.expect("a question");
            Ok(ServerReflectionResponse { message_response: Some(answer(question)), ..Default::default() })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

fn answer(question: MessageRequest) -> MessageResponse {
    let [types, notes] = notes_files();
    match question {
        MessageRequest::ListServices(_) => {
            let service = ["test.v1.Notes", "grpc.health.v1.Health"].map(|name| ServiceResponse { name: name.into() });
            MessageResponse::ListServicesResponse(ListServiceResponse { service: service.into() })
        }
        MessageRequest::FileContainingSymbol(symbol) if symbol == "test.v1.Notes" => file(&notes),
        MessageRequest::FileByFilename(name) if name == types.name() => file(&types),
        MessageRequest::FileContainingSymbol(name) | MessageRequest::FileByFilename(name) => {
            let error_message = format!("{name} is not known");
            MessageResponse::ErrorResponse(ErrorResponse { error_code: Code::NotFound as i32, error_message })
        }
        _ => panic!("the client asks nothing else"),
    }
}

fn file(file: &FileDescriptorProto) -> MessageResponse {
    MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
        file_descriptor_proto: vec![file.encode_to_vec()],
    })
}
