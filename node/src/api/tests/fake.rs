//! A backend that does as it is told, and the modules that it serves.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::method_options::IdempotencyLevel;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
    MethodOptions, ServiceDescriptorProto,
};
use tokio::sync::{Semaphore, watch};

use crate::command::Outcome;
use crate::limits::PUSHES_MAX;
use crate::proto::admin;
use crate::proto::admin::module_push_response::Event;
use crate::proto::command::Activation;
use crate::service::{
    Active, Backend, BackupStream, Catalog, Events, Execute, Executed, Place, Query, ServiceError, Streaming,
};
use crate::stream::{self, Sender};
use crate::testing::{COMMAND, MethodRow, ModuleSection, QUERY};
use crate::wasm::{Engine, HostFault, Module, Options};

/// A request that waits until [`Fake::open`].
pub(super) const WAIT: &[u8] = b"wait";
pub(super) const PUT: &str = "/test.v1.Test/Put";
pub(super) const GET: &str = "/test.v1.Test/Get";
pub(super) const WATCH: &str = "/stream.v1.Test/Watch";

type Answer = Result<Executed, ServiceError>;

#[derive(Clone)]
pub(super) struct Fake(Arc<Inner>);

struct Inner {
    catalog: ArcSwap<Catalog>,
    /// What a refresh brings.
    after_refresh: Mutex<Result<Arc<Catalog>, ServiceError>>,
    refreshes: AtomicU32,
    ready: AtomicBool,
    /// Whether requests are kept, to be looked at; a measurement makes too many.
    keeps: bool,
    commands: Mutex<Vec<Execute>>,
    queries: Mutex<Vec<Query>>,
    pushes: Mutex<Vec<(admin::ModulePush, Bytes)>>,
    places: Arc<Semaphore>,
    history: Mutex<Vec<Activation>>,
    /// The next answers; then requests are echoed at index 7.
    answers: Mutex<VecDeque<Answer>>,
    /// Streams that have begun, and nobody asked for yet.
    streams: watch::Sender<VecDeque<Arc<Sender>>>,
    gate: watch::Sender<bool>,
    waiting: watch::Sender<u32>,
    finished: watch::Sender<u32>,
}

impl Fake {
    pub(super) fn serving(modules: &[&Module]) -> Self {
        Self::new(modules, true)
    }

    /// One that only echoes.
    pub(super) fn echoing(modules: &[&Module]) -> Self {
        Self::new(modules, false)
    }

    fn new(modules: &[&Module], keeps: bool) -> Self {
        let catalog = catalog(modules);
        Self(Arc::new(Inner {
            keeps,
            after_refresh: Mutex::new(Ok(Arc::clone(&catalog))),
            catalog: ArcSwap::new(catalog),
            refreshes: AtomicU32::new(0),
            ready: AtomicBool::new(true),
            commands: Mutex::default(),
            queries: Mutex::default(),
            pushes: Mutex::default(),
            history: Mutex::default(),
            answers: Mutex::default(),
            streams: watch::Sender::default(),
            places: Arc::new(Semaphore::new(PUSHES_MAX)),
            gate: watch::Sender::new(false),
            waiting: watch::Sender::new(0),
            finished: watch::Sender::new(0),
        }))
    }

    pub(super) fn answer(&self, answer: Answer) {
        self.0.answers.lock().push_back(answer);
    }

    pub(super) fn outcome(&self, outcome: Outcome) {
        self.answer(Ok(Executed { index: 7, outcome, replayed: false, trap_detail: Some("at lib.rs:1".into()) }));
    }

    pub(super) fn refresh_brings(&self, result: Result<&[&Module], ServiceError>) {
        *self.0.after_refresh.lock() = result.map(catalog);
    }

    pub(super) fn refreshes(&self) -> u32 {
        self.0.refreshes.load(Ordering::Relaxed)
    }

    pub(super) fn set_ready(&self, ready: bool) {
        self.0.ready.store(ready, Ordering::Relaxed);
    }

    pub(super) fn commands(&self) -> Vec<Execute> {
        self.0.commands.lock().clone()
    }

    pub(super) fn queries(&self) -> Vec<Query> {
        self.0.queries.lock().clone()
    }

    /// What was pushed.
    pub(super) fn pushes(&self) -> Vec<(admin::ModulePush, Bytes)> {
        self.0.pushes.lock().clone()
    }

    pub(super) fn set_history(&self, history: Vec<Activation>) {
        *self.0.history.lock() = history;
    }

    /// Lets the waiting requests go on.
    pub(super) fn open(&self) {
        self.0.gate.send_replace(true);
    }

    /// The next stream that begins, to be fed by the test.
    pub(super) async fn next_stream(&self) -> Arc<Sender> {
        super::soon(self.0.streams.subscribe().wait_for(|streams| !streams.is_empty())).await.unwrap();
        let mut stream = None;
        self.0.streams.send_modify(|streams| stream = streams.pop_front());
        stream.unwrap()
    }

    /// Until as many requests have come to wait.
    pub(super) async fn until_waiting(&self, count: u32) {
        super::soon(self.0.waiting.subscribe().wait_for(|waiting| *waiting >= count)).await.unwrap();
    }

    /// Until as many requests that waited have gone on to their end.
    pub(super) async fn until_finished(&self, count: u32) {
        super::soon(self.0.finished.subscribe().wait_for(|finished| *finished >= count)).await.unwrap();
    }

    async fn run(&self, request: Bytes) -> Answer {
        if request == WAIT {
            self.0.waiting.send_modify(|count| *count += 1);
            self.0.gate.subscribe().wait_for(|open| *open).await.unwrap();
            self.0.finished.send_modify(|count| *count += 1);
        }
        let echo = Executed { index: 7, outcome: Outcome::Ok(request), replayed: false, trap_detail: None };
        self.0.answers.lock().pop_front().unwrap_or(Ok(echo))
    }
}

fn catalog(modules: &[&Module]) -> Arc<Catalog> {
    let active = |module: &&Module| Active { module: (*module).clone(), generation: 1 };
    Arc::new(Catalog { modules: modules.iter().map(active).collect() })
}

impl Backend for Fake {
    async fn execute(&self, command: Execute) -> Answer {
        if self.0.keeps {
            self.0.commands.lock().push(command.clone());
        }
        self.run(command.request).await
    }

    async fn query(&self, query: Query) -> Answer {
        if self.0.keeps {
            self.0.queries.lock().push(query.clone());
        }
        self.run(query.request).await
    }

    async fn query_stream(&self, query: Query) -> Result<Streaming, ServiceError> {
        self.0.queries.lock().push(query);
        if let Some(Err(error)) = self.0.answers.lock().pop_front() {
            return Err(error);
        }
        let (sender, messages) = stream::channel();
        self.0.streams.send_modify(|streams| streams.push_back(sender.into()));
        Ok(Streaming { index: 7, messages })
    }

    fn catalog(&self) -> Arc<Catalog> {
        self.0.catalog.load_full()
    }

    async fn refresh(&self) -> Result<(), ServiceError> {
        self.0.refreshes.fetch_add(1, Ordering::Relaxed);
        self.0.catalog.store(self.0.after_refresh.lock().clone()?);
        Ok(())
    }

    async fn status(&self) -> admin::StatusResponse {
        admin::StatusResponse { answered_by: self.node_name().to_owned(), ..Default::default() }
    }

    async fn deep_check(&self, index: u64) -> Result<admin::DeepCheckResponse, ServiceError> {
        if index > 100 {
            return Err(ServiceError::NotReady("index 100 is the last".into()));
        }
        Ok(admin::DeepCheckResponse { index, ..Default::default() })
    }

    async fn backup(&self) -> Result<BackupStream, ServiceError> {
        let chunks = [Ok("one".into()), Ok("two".into()), Err(HostFault("the disk is gone".into()))];
        Ok(futures::stream::iter(chunks).boxed())
    }

    async fn module_history(&self, _module: Option<String>) -> Result<Vec<Activation>, ServiceError> {
        Ok(self.0.history.lock().clone())
    }

    fn push_place(&self) -> Result<Place, ServiceError> {
        let places = Arc::clone(&self.0.places).try_acquire_owned();
        places.map_err(|_| ServiceError::Overloaded("as many modules as may be are being pushed"))
    }

    /// Says once that it has begun, and ends when the gate is open.
    fn module_push(&self, push: admin::ModulePush, wasm: Bytes, place: Place) -> Events {
        self.0.pushes.lock().push((push, wasm));
        let begun = admin::ModulePushResponse { event: Some(Event::Stage("begun".into())) };
        let mut gate = self.0.gate.subscribe();
        let opened = async move {
            let opened = gate.wait_for(|open| *open).await.map(drop).ok();
            drop(place);
            opened
        };
        let end = futures::stream::once(opened).filter_map(|_| async { None });
        futures::stream::once(async { Ok(begun) }).chain(end).boxed()
    }

    async fn module_retry(&self, _request: admin::ModuleRetryRequest) -> Result<Vec<String>, ServiceError> {
        Ok(Vec::new())
    }

    async fn module_drop(&self, _module: String) -> Result<u64, ServiceError> {
        Ok(0)
    }

    async fn members(&self) -> admin::MembersResponse {
        admin::MembersResponse::default()
    }

    async fn change_member(&self, _change: admin::MemberChange) -> Result<String, ServiceError> {
        Err(ServiceError::Member("it is the last voter".into()))
    }

    fn ready(&self) -> bool {
        self.0.ready.load(Ordering::Relaxed)
    }

    fn node_name(&self) -> &str {
        "balsa-0"
    }
}

/// `test.v1.Test` with the command `Put` and the query `Get`.
pub(super) static TEST: LazyLock<Module> = LazyLock::new(|| module("test", "test.v1", "shared"));
/// `stream.v1.Test` with the query `Watch`, which answers with a stream.
pub(super) static STREAM: LazyLock<Module> = LazyLock::new(|| {
    let mut files = files("stream", "stream.v1", "shared");
    let mut watch = query("Watch", ".shared.v1.Text");
    watch.server_streaming = Some(true);
    files[1].service[0].method = vec![watch];
    load("stream", files, vec![MethodRow { path: WATCH.to_owned(), kind: QUERY }])
});
/// `late.v1.Test`, alike; its `common.proto` is another than that of [`TEST`].
pub(super) static LATE: LazyLock<Module> = LazyLock::new(|| module("late", "late.v1", "other"));

static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(Options::default()).unwrap());

fn module(name: &str, package: &str, common: &str) -> Module {
    let method = |name: &str, kind| MethodRow { path: format!("/{package}.Test/{name}"), kind };
    load(name, files(name, package, common), vec![method("Put", COMMAND), method("Get", QUERY)])
}

fn load(name: &str, file: Vec<FileDescriptorProto>, methods: Vec<MethodRow>) -> Module {
    let mut wasm = wat::parse_str(
        r#"(module (memory (export "memory") 1) (func (export "balsa_abi_1"))
            (func (export "balsa_call") (param i32 i32) (result i32) unreachable))"#,
    )
    .unwrap();
    let section = ModuleSection {
        abi: 1,
        name: name.to_owned(),
        version: "0.1.0".to_owned(),
        file_descriptor_set: FileDescriptorSet { file }.encode_to_vec(),
        methods,
    };
    section.append_to(&mut wasm);
    Module::load(&ENGINE, &wasm).unwrap()
}

/// `common.proto`, whose content depends on `common`, and the service's file, which imports it.
fn files(name: &str, package: &str, common: &str) -> Vec<FileDescriptorProto> {
    let text = FieldDescriptorProto {
        name: Some("text".into()),
        number: Some(1),
        label: Some(Label::Optional.into()),
        r#type: Some(Type::String.into()),
        json_name: Some("text".into()),
        ..Default::default()
    };
    let message = DescriptorProto { name: Some("Text".into()), field: vec![text], ..Default::default() };
    let common = FileDescriptorProto {
        name: Some("common.proto".into()),
        package: Some(format!("{common}.v1")),
        message_type: vec![message],
        syntax: Some("proto3".into()),
        ..Default::default()
    };
    let text = format!(".{}.Text", common.package());
    let service = ServiceDescriptorProto {
        name: Some("Test".into()),
        method: vec![method("Put", &text, IdempotencyLevel::IdempotencyUnknown), query("Get", &text)],
        ..Default::default()
    };
    let own = FileDescriptorProto {
        name: Some(format!("{name}/v1/{name}.proto")),
        package: Some(package.to_owned()),
        dependency: vec!["common.proto".into()],
        service: vec![service],
        syntax: Some("proto3".into()),
        ..Default::default()
    };
    vec![common, own]
}

fn query(name: &str, message: &str) -> MethodDescriptorProto {
    method(name, message, IdempotencyLevel::NoSideEffects)
}

fn method(name: &str, message: &str, level: IdempotencyLevel) -> MethodDescriptorProto {
    let unknown = level == IdempotencyLevel::IdempotencyUnknown;
    let options = MethodOptions { idempotency_level: Some(level.into()), ..Default::default() };
    MethodDescriptorProto {
        name: Some(name.into()),
        input_type: Some(message.into()),
        output_type: Some(message.into()),
        options: (!unknown).then_some(options),
        ..Default::default()
    }
}
