//! The services of a cluster, as its modules describe themselves: `grpc.reflection.v1`, read into a descriptor pool.
//!
//! One stream is opened on one node; services are listed, and each one's file is asked for with all that it imports. Some
//! servers answer with the imports too and some without, so what is missing is asked for by name.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use prost::Message;
use prost_reflect::DescriptorPool;
use prost_types::FileDescriptorProto;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use super::{Client, Error, attempt_timeout};

/// Files that one description may have; more is a server that makes them up.
const FILES_MAX: usize = 10_000;

impl Client {
    /// The full names of all services that a node lists, ascending.
    pub async fn services(&self) -> Result<Vec<String>, Error> {
        let list = |channel, _| async move { Session::open(channel).await?.services().await };
        self.retry(None, attempt_timeout, list).await
    }

    /// Descriptors of `services` (full names), with all that they need.
    pub async fn describe(&self, services: &[String]) -> Result<DescriptorPool, Error> {
        let describe = |channel, _| async move { Session::open(channel).await?.describe(services).await };
        self.retry(None, attempt_timeout, describe).await
    }
}

/// One reflection stream: a question, an answer, in turn.
struct Session {
    questions: mpsc::Sender<ServerReflectionRequest>,
    answers: Streaming<ServerReflectionResponse>,
}

impl Session {
    async fn open(channel: Channel) -> Result<Self, Status> {
        let (questions, outgoing) = mpsc::channel(1);
        let mut client = ServerReflectionClient::new(channel);
        let response = client.server_reflection_info(ReceiverStream::new(outgoing)).await.map_err(not_ready)?;
        Ok(Self { questions, answers: response.into_inner() })
    }

    async fn ask(&mut self, question: MessageRequest) -> Result<MessageResponse, Status> {
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
        if self.questions.send(request).await.is_err() {
            return Err(ended());
        }
        let answer = self.answers.next().await.unwrap_or_else(|| Err(ended()))?;
        match answer.message_response {
            Some(MessageResponse::ErrorResponse(error)) => {
                Err(Status::new(Code::from_i32(error.error_code), error.error_message))
            }
            Some(answer) => Ok(answer),
            None => Err(Status::internal("the reflection service sent an empty answer")),
        }
    }

    async fn services(&mut self) -> Result<Vec<String>, Status> {
        match self.ask(MessageRequest::ListServices(String::new())).await? {
            MessageResponse::ListServicesResponse(list) => {
                let names: BTreeSet<_> = list.service.into_iter().map(|service| service.name).collect();
                Ok(names.into_iter().collect())
            }
            _ => Err(off_topic()),
        }
    }

    async fn describe(&mut self, services: &[String]) -> Result<DescriptorPool, Status> {
        let mut files = Files::default();
        for service in services {
            files.add(self.files(MessageRequest::FileContainingSymbol(service.clone())).await?)?;
        }
        while let Some(missing) = files.missing() {
            files.add(self.files(MessageRequest::FileByFilename(missing)).await?)?;
        }
        files.pool()
    }

    async fn files(&mut self, question: MessageRequest) -> Result<Vec<Vec<u8>>, Status> {
        match self.ask(question).await? {
            MessageResponse::FileDescriptorResponse(files) => Ok(files.file_descriptor_proto),
            _ => Err(off_topic()),
        }
    }
}

/// Files by name, and names that are still to be asked for.
///
/// Kept as encoded bytes too: decoding and encoding again would lose options that are extensions.
#[derive(Default)]
struct Files {
    encoded: BTreeMap<String, Vec<u8>>,
    wanted: VecDeque<String>,
}

impl Files {
    fn add(&mut self, files: Vec<Vec<u8>>) -> Result<(), Status> {
        let before = self.encoded.len();
        for bytes in files {
            let file = FileDescriptorProto::decode(&*bytes).map_err(|error| undescribed(&error))?;
            self.wanted.extend(file.dependency);
            self.encoded.entry(file.name.unwrap_or_default()).or_insert(bytes);
        }
        if self.encoded.len() > FILES_MAX {
            return Err(Status::internal("the reflection service has no end of files"));
        }
        let nothing_new = self.encoded.len() == before && self.missing_front();
        if nothing_new {
            Err(Status::not_found("the reflection service does not have a file that it names"))
        } else {
            Ok(())
        }
    }

    fn missing_front(&self) -> bool {
        self.wanted.front().is_some_and(|name| !self.encoded.contains_key(name))
    }

    fn missing(&mut self) -> Option<String> {
        while self.wanted.front().is_some_and(|name| self.encoded.contains_key(name)) {
            self.wanted.pop_front();
        }
        self.wanted.front().cloned()
    }

    fn pool(self) -> Result<DescriptorPool, Status> {
        let mut pool = DescriptorPool::new();
        pool.decode_file_descriptor_set(&*encoded_set(&self.encoded)).map_err(|error| undescribed(&error))?;
        Ok(pool)
    }
}

/// A `FileDescriptorSet` is its files one after the other, each as field 1 (the tag byte 0x0a, a length, the file).
fn encoded_set(files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut set = Vec::new();
    for bytes in files.values() {
        set.push(0x0a);
        prost::encode_length_delimiter(bytes.len(), &mut set).expect("a Vec grows");
        set.extend_from_slice(bytes);
    }
    set
}

/// The generated client says UNKNOWN where the connection broke before the call; that may be tried again.
fn not_ready(status: Status) -> Status {
    match status.code() {
        Code::Unknown => Status::unavailable(status.message()),
        _ => status,
    }
}

fn ended() -> Status {
    Status::unavailable("the reflection stream ended early")
}

fn off_topic() -> Status {
    Status::internal("the reflection service answered another question")
}

fn undescribed(error: &dyn std::fmt::Display) -> Status {
    Status::internal(format!("the descriptors of the cluster's services are damaged: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake::FakeNode;

    #[tokio::test]
    async fn services_are_listed_and_described_with_what_they_import() {
        let node = FakeNode::start(|_| Err(Status::unimplemented("only reflection"))).await;
        let client = node.client();
        let services = client.services().await.unwrap();
        assert_eq!(services, ["grpc.health.v1.Health", "test.v1.Notes"]);
        let pool = client.describe(&["test.v1.Notes".into()]).await.unwrap();
        let method = pool.get_service_by_name("test.v1.Notes").unwrap().methods().next().unwrap();
        assert_eq!(method.input().full_name(), "test.types.Note");
    }

    #[tokio::test]
    async fn a_service_that_nobody_describes_is_an_error() {
        let node = FakeNode::start(|_| Err(Status::unimplemented("only reflection"))).await;
        let error = node.client().describe(&["test.v1.Absent".into()]).await.unwrap_err();
        assert!(error.to_string().contains("test.v1.Absent is not known"), "{error}");
    }
}
