//! The services that every node has: health, reflection, administration.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;
use prost_reflect::DescriptorPool;
use prost_types::FileDescriptorProto;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};

use super::fake::{Fake, LATE, PUT, TEST};
use super::{BackDoor, Server, soon};
use crate::client::RawCodec;
use crate::limits::PUSHES_MAX;
use crate::proto::admin::admin_client::AdminClient;
use crate::proto::admin::module_push_request::Part;
use crate::proto::admin::module_push_response::Event;
use crate::proto::admin::operator_client::OperatorClient;
use crate::proto::admin::{
    BackupRequest, DeepCheckRequest, ModuleHistoryRequest, ModulePush, ModulePushRequest, ModulePushResponse,
    StatusRequest,
};
use crate::proto::command::Activation;

/// A module, as small as they come.
const TINY: &[u8] = include_bytes!("../../../tests/fixtures/abi-1/tiny.wasm");

async fn server() -> (Server, Channel) {
    let server = Server::start(Fake::serving(&[&LATE, &TEST])).await;
    let channel = server.channel().await;
    (server, channel)
}

/// Where operators are served.
async fn back_door() -> (BackDoor, Channel) {
    let door = BackDoor::open(Fake::serving(&[&LATE, &TEST]));
    let channel = door.channel().await;
    (door, channel)
}

fn health_of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn health_follows_readiness() {
    let (server, channel) = server().await;
    let mut health = HealthClient::new(channel);
    for (ready, status) in [(true, ServingStatus::Serving), (false, ServingStatus::NotServing)] {
        server.fake.set_ready(ready);
        for service in ["", "test.v1.Test", "late.v1.Test", "balsa.admin.v1.Admin", "grpc.health.v1.Health"] {
            assert_eq!(health.check(health_of(service)).await.unwrap().into_inner().status(), status, "{service}");
        }
    }
    assert_eq!(health.check(health_of("no.Such")).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_watched_health_is_told_when_it_changes_and_when_the_server_stops() {
    let (server, channel) = server().await;
    let mut health = HealthClient::new(channel);
    let mut watch = health.watch(health_of("test.v1.Test")).await.unwrap().into_inner();
    let mut next = async || soon(watch.message()).await.unwrap().map(|response| response.status());
    assert_eq!(next().await, Some(ServingStatus::Serving));
    server.fake.set_ready(false);
    assert_eq!(next().await, Some(ServingStatus::NotServing));
    server.fake.set_ready(true);
    assert_eq!(next().await, Some(ServingStatus::Serving));
    server.shutdown.cancel();
    assert_eq!(next().await, Some(ServingStatus::NotServing));
    assert_eq!(next().await, None);
    soon(server.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_unknown_service_can_be_watched() {
    let (_server, channel) = server().await;
    let mut watch = HealthClient::new(channel).watch(health_of("no.Such")).await.unwrap().into_inner();
    let first = soon(watch.message()).await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::ServiceUnknown);
}

#[tokio::test]
async fn operators_get_the_status_and_a_check() {
    let (_server, channel) = server().await;
    let mut admin = AdminClient::new(channel);
    let status = admin.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.answered_by, "balsa-0");
    let checked = admin.deep_check(DeepCheckRequest { index: 9 }).await.unwrap().into_inner();
    assert_eq!(checked.index, 9);
    let error = admin.deep_check(DeepCheckRequest { index: 101 }).await.unwrap_err();
    assert_eq!(super::reason_of(&error).unwrap().0, "NOT_READY");
}

#[tokio::test]
async fn a_backup_that_the_disk_ends_ends_in_an_error() {
    let (_door, channel) = back_door().await;
    let mut chunks = OperatorClient::new(channel).backup(BackupRequest {}).await.unwrap().into_inner();
    for expected in ["one", "two"] {
        assert_eq!(chunks.message().await.unwrap().unwrap().data, expected);
    }
    let error = chunks.message().await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::DataLoss, "the disk is gone"));
}

fn header(pushed_by: &str) -> ModulePushRequest {
    let header = ModulePush { pushed_by: pushed_by.into(), ..ModulePush::default() };
    ModulePushRequest { part: Some(Part::Header(header)) }
}

fn data(bytes: &[u8]) -> ModulePushRequest {
    ModulePushRequest { part: Some(Part::Data(Bytes::copy_from_slice(bytes))) }
}

/// Pushes what `parts` are, and waits for the first word.
async fn push(channel: &Channel, parts: Vec<ModulePushRequest>) -> Result<Streaming<ModulePushResponse>, Status> {
    let mut events = OperatorClient::new(channel.clone()).module_push(tokio_stream::iter(parts)).await?.into_inner();
    let first = soon(events.message()).await?.and_then(|response| response.event);
    assert_eq!(first, Some(Event::Stage("begun".into())));
    Ok(events)
}

#[tokio::test]
async fn a_module_is_pushed_in_pieces() {
    let (door, channel) = back_door().await;
    let mut parts = vec![header("somebody")];
    parts.extend(TINY.chunks(100).map(data));
    push(&channel, parts).await.unwrap();
    let pushes = door.fake.pushes();
    let [(header, wasm)] = &pushes[..] else { panic!("{}", pushes.len()) };
    assert_eq!((header.pushed_by.as_str(), &wasm[..]), ("somebody", TINY));
}

#[tokio::test]
async fn what_is_no_push_is_refused() {
    let (door, channel) = back_door().await;
    let large = vec![0; 1024 * 1024];
    let too_large = std::iter::once(header("")).chain((0..=32).map(|_| data(&large)));
    for (parts, why) in [
        (vec![], "a push begins with its header"),
        (vec![data(TINY)], "a push begins with its header"),
        (vec![header(""), data(&TINY[..9]), header("")], "a push is one header, and then data"),
        (vec![header(&"x".repeat(257)), data(TINY)], "who pushes is said in at most 256 bytes"),
        (too_large.collect(), "the module has more than 33554432 bytes, which is the most there may be"),
    ] {
        let refused = push(&channel, parts).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, why));
        assert_eq!(super::reason_of(&refused).unwrap().0, "MODULE_REFUSED");
    }
    for bytes in [&b""[..], b"not wasm", &TINY[..TINY.len() - 1]] {
        let refused = push(&channel, vec![header(""), data(bytes)]).await.unwrap_err();
        assert!(refused.message().starts_with("what was pushed "), "{refused:?}");
    }
    assert!(door.fake.pushes().is_empty());
}

#[tokio::test]
async fn so_many_modules_are_pushed_at_once() {
    let (door, channel) = back_door().await;
    let parts = || vec![header(""), data(TINY)];
    let mut under_way = Vec::new();
    for _ in 0..PUSHES_MAX {
        under_way.push(push(&channel, parts()).await.unwrap());
    }
    let refused = push(&channel, parts()).await.unwrap_err();
    assert_eq!(super::reason_of(&refused).unwrap().0, "OVERLOADED");
    // One that is given up makes room, as one that ends does.
    drop(under_way.pop());
    let again = async {
        loop {
            match push(&channel, parts()).await {
                Ok(events) => return events,
                Err(refused) => assert_eq!(refused.code(), Code::ResourceExhausted),
            }
        }
    };
    under_way.push(soon(again).await);
    door.fake.open();
    for mut events in under_way {
        assert!(soon(events.message()).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_history_that_is_too_long_for_a_message_is_told_from_its_end() {
    let (server, channel) = server().await;
    let row = |index| Activation { index, proposed_by: "x".repeat(300_000), ..Activation::default() };
    let mut admin = AdminClient::new(channel);
    for (rows, first) in [(0, 0), (5, 0), (40, 27)] {
        server.fake.set_history((0..rows).map(row).collect());
        let told = admin.module_history(ModuleHistoryRequest::default()).await.unwrap().into_inner().activations;
        assert_eq!(told.iter().map(|row| row.index).collect::<Vec<_>>(), (first..rows).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn operators_are_not_served_at_the_clients_port_and_are_told_where() {
    let (server, channel) = server().await;
    let refused = OperatorClient::new(channel).backup(BackupRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("on each node's Unix socket"), "{refused:?}");
    let paths = ["balsa.admin.v1.Operator/ModuleDrop", "balsa.admin.v1.Operator/No", "balsa.admin.v1.Admin/ModulePush"];
    for path in paths {
        let answer = server.client().await.call(&format!("/{path}"), &[], b"").await;
        assert_eq!(answer.failure(), (Code::PermissionDenied, "OPERATORS_ONLY".into()), "{path}");
    }
    assert!(server.fake.pushes().is_empty());
}

#[tokio::test]
async fn a_peers_methods_are_not_served_at_the_clients_port() {
    let (server, _) = server().await;
    for path in ["balsa.peer.v1.Peer/Vote", "balsa.peer.v1.Peer/Execute", "balsa.peer.v1.Peer/Identify"] {
        let answer = server.client().await.call(&format!("/{path}"), &[], b"").await;
        assert_eq!(answer.failure(), (Code::Unimplemented, "UNKNOWN_METHOD".into()), "{path}");
    }
    assert_eq!(server.fake.refreshes(), 0, "no module can bring it");
}

#[tokio::test]
async fn operators_find_what_only_reads_at_their_door_and_no_method_of_a_module() {
    let (door, channel) = back_door().await;
    let status = AdminClient::new(channel.clone()).status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.answered_by, "balsa-0");
    for path in [PUT, "/grpc.health.v1.Health/Check", "/balsa.peer.v1.Peer/Vote", "/"] {
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        grpc.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static(path);
        let refused = grpc.unary(tonic::Request::new(Bytes::new()), path, RawCodec).await.unwrap_err();
        assert_eq!(super::reason_of(&refused).unwrap().0, "UNKNOWN_METHOD");
        assert!(refused.message().contains("clients are served on client_addr"), "{refused:?}");
    }
    assert!(door.fake.commands().is_empty());
}

#[tokio::test]
async fn our_own_packages_hold_nothing_else() {
    let (server, _) = server().await;
    let answer = server.client().await.call("/balsa.admin.v2.Admin/Status", &[], b"").await;
    assert_eq!(answer.failure(), (Code::Unimplemented, "UNKNOWN_METHOD".into()));
    assert_eq!(server.fake.refreshes(), 0, "no module can bring it");
}

use v1::server_reflection_request::MessageRequest as Ask;
use v1::server_reflection_response::MessageResponse as Told;

/// Asks one question after the other on one stream.
async fn reflect(channel: &Channel, questions: Vec<Ask>) -> Vec<Told> {
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let requests = questions
        .into_iter()
        .map(|question| v1::ServerReflectionRequest { host: "here".into(), message_request: Some(question) });
    let mut responses = client.server_reflection_info(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let mut told = Vec::new();
    while let Some(response) = soon(responses.message()).await.unwrap() {
        assert_eq!(response.valid_host, "here");
        told.push(response.message_response.unwrap());
    }
    told
}

async fn files_of(channel: &Channel, question: Ask) -> Vec<FileDescriptorProto> {
    match reflect(channel, vec![question]).await.remove(0) {
        Told::FileDescriptorResponse(files) => {
            files.file_descriptor_proto.iter().map(|file| FileDescriptorProto::decode(&file[..]).unwrap()).collect()
        }
        other => panic!("{other:?}"),
    }
}

const SERVICES: [&str; 6] = [
    "balsa.admin.v1.Admin",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "late.v1.Test",
    "test.v1.Test",
];

#[tokio::test]
async fn reflection_lists_what_is_served() {
    let (_server, channel) = server().await;
    let told = reflect(&channel, vec![Ask::ListServices(String::new())]).await;
    let Told::ListServicesResponse(list) = &told[0] else { panic!("{told:?}") };
    assert_eq!(list.service.iter().map(|service| service.name.as_str()).collect::<Vec<_>>(), SERVICES);
}

#[tokio::test]
async fn every_served_service_can_be_built_from_what_reflection_says() {
    let (_server, channel) = server().await;
    let mut pool = DescriptorPool::new();
    for service in SERVICES {
        let mut files = files_of(&channel, Ask::FileContainingSymbol(service.into())).await;
        files.reverse();
        pool.add_file_descriptor_protos(files).unwrap();
        assert!(pool.get_service_by_name(service).unwrap().methods().len() > 0);
    }
    let put = pool.services().find(|service| service.full_name() == "late.v1.Test").unwrap().methods().next().unwrap();
    assert_eq!((put.name(), put.input().full_name()), ("Put", "other.v1.Text"));
}

#[tokio::test]
async fn files_of_one_name_and_two_contents_are_told_apart() {
    let (_server, channel) = server().await;
    for (service, own, common, package) in [
        ("late.v1.Test", "late/v1/late.proto", "common.proto", "other.v1"),
        ("test.v1.Test", "test/v1/test.proto", "test/common.proto", "shared.v1"),
    ] {
        let files = files_of(&channel, Ask::FileContainingSymbol(service.into())).await;
        assert_eq!((files[0].name(), &files[0].dependency[..]), (own, &[common.to_owned()][..]));
        assert_eq!((files[1].name(), files[1].package()), (common, package));
        let by_name = files_of(&channel, Ask::FileByFilename(common.into())).await;
        assert_eq!(by_name, files[1..]);
    }
}

#[tokio::test]
async fn symbols_of_every_kind_are_found() {
    let (_server, channel) = server().await;
    for (symbol, file) in [
        ("test.v1.Test.Put", "test/v1/test.proto"),
        ("shared.v1.Text", "test/common.proto"),
        ("shared.v1.Text.text", "test/common.proto"),
        ("balsa.admin.v1.NodeStatus.role", "admin.proto"),
    ] {
        assert_eq!(files_of(&channel, Ask::FileContainingSymbol(symbol.into())).await[0].name(), file, "{symbol}");
    }
    let status = "grpc.health.v1.HealthCheckResponse.ServingStatus";
    let health = files_of(&channel, Ask::FileContainingSymbol(status.into())).await;
    let value = "grpc.health.v1.HealthCheckResponse.SERVING";
    assert_eq!(files_of(&channel, Ask::FileContainingSymbol(value.into())).await, health);
}

#[tokio::test]
async fn an_import_is_sent_once_and_what_is_asked_for_always() {
    let (_server, channel) = server().await;
    let symbol = || Ask::FileContainingSymbol("test.v1.Test".into());
    let told = reflect(&channel, vec![symbol(), symbol(), Ask::FileByFilename("test/common.proto".into())]).await;
    let counts: Vec<_> = told
        .iter()
        .map(|told| match told {
            Told::FileDescriptorResponse(files) => files.file_descriptor_proto.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(counts, [2, 1, 1]);
}

#[tokio::test]
async fn what_reflection_does_not_know_is_an_error_response_and_the_stream_goes_on() {
    let (_server, channel) = server().await;
    let extension = v1::ExtensionRequest { containing_type: "shared.v1.Text".into(), extension_number: 7 };
    let questions = vec![
        Ask::FileByFilename("no.proto".into()),
        Ask::FileContainingSymbol("no.Such".into()),
        Ask::FileContainingExtension(extension),
        Ask::AllExtensionNumbersOfType("no.Such".into()),
        Ask::AllExtensionNumbersOfType("shared.v1.Text".into()),
    ];
    let mut told = reflect(&channel, questions).await;
    let last = told.pop().unwrap();
    for told in told {
        let Told::ErrorResponse(error) = told else { panic!("{told:?}") };
        assert_eq!(error.error_code, Code::NotFound as i32);
    }
    let Told::AllExtensionNumbersResponse(numbers) = last else { panic!("{last:?}") };
    assert_eq!((numbers.base_type_name.as_str(), numbers.extension_number.len()), ("shared.v1.Text", 0));
}

#[tokio::test]
async fn the_older_reflection_answers_as_well_and_follows_the_catalog() {
    let server = Server::start(Fake::serving(&[])).await;
    let channel = server.channel().await;
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let mut list = async || {
        let question = v1alpha::server_reflection_request::MessageRequest::ListServices(String::new());
        let request = v1alpha::ServerReflectionRequest { message_request: Some(question), ..Default::default() };
        let mut stream = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
        let response = soon(stream.message()).await.unwrap().unwrap().message_response;
        let Some(v1alpha::server_reflection_response::MessageResponse::ListServicesResponse(list)) = response else {
            panic!("{response:?}")
        };
        list.service.into_iter().map(|service| service.name).collect::<BTreeSet<_>>()
    };
    assert!(!list().await.contains("test.v1.Test"));
    server.fake.refresh_brings(Ok(&[&TEST]));
    server.client().await.call(PUT, &[], b"").await.message();
    assert!(list().await.contains("test.v1.Test"));
}
