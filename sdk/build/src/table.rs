//! The method table: which number means which method.
//!
//! Host and guest know a method by its position in this table during one call; everything that lasts (log entries, errors)
//! names it by its path. So the order may change from one version of a module to the next.

use std::collections::BTreeSet;

use prost_types::method_options::IdempotencyLevel;
use prost_types::{FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto};

use crate::error::Error;

/// All methods of a module, grouped by service.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) services: Vec<Service>,
}

/// The methods of one service.
#[derive(Debug)]
pub(crate) struct Service {
    /// Full name: `kvstore.v1.KvStore`.
    pub(crate) name: String,
    /// Position of its first method in the table.
    pub(crate) first: usize,
    pub(crate) methods: Vec<Method>,
}

/// One row.
#[derive(Debug)]
pub(crate) struct Method {
    /// As gRPC spells it: `/kvstore.v1.KvStore/Put`.
    pub(crate) path: String,
    pub(crate) kind: Kind,
    /// Whether it returns a stream.
    pub(crate) streaming: bool,
}

/// Numbers are those of `balsa.module.v1.Kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Command = 1,
    Query = 2,
}

impl Table {
    /// The methods of the files named in `served`, in the order of `descriptors`.
    pub(crate) fn new(descriptors: &FileDescriptorSet, served: &BTreeSet<String>) -> Result<Self, Error> {
        let mut services = Vec::new();
        let mut first = 0;
        for file in descriptors.file.iter().filter(|file| served.contains(file.name())) {
            for service in &file.service {
                let name = full_name(file, service.name());
                let methods = service.method.iter().map(|method| Method::new(&name, method));
                let methods = methods.collect::<Result<Vec<_>, _>>()?;
                services.push(Service { first, name, methods });
                first += service.method.len();
            }
        }
        if first == 0 { Err(Error::NoMethods) } else { Ok(Self { services }) }
    }

    pub(crate) fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }

    pub(crate) fn methods(&self) -> impl Iterator<Item = &Method> {
        self.services.iter().flat_map(|service| &service.methods)
    }

    /// The services as a Rust expression: what `export!` compares its list with, and what it says about a missing one.
    pub(crate) fn listing(&self) -> String {
        let entry = |service: &Service| {
            let name = &service.name;
            format!("({name:?}, \"export! does not list the server of {name}, which the .proto files define\")")
        };
        format!("&[{}]", self.services.iter().map(entry).collect::<Vec<_>>().join(", "))
    }
}

impl Method {
    fn new(service: &str, method: &MethodDescriptorProto) -> Result<Self, Error> {
        let path = format!("/{service}/{}", method.name());
        let (kind, streaming) = (Kind::of(method), method.server_streaming());
        if method.client_streaming() {
            return Err(Error::StreamOfRequests { method: path });
        }
        if streaming && kind == Kind::Command {
            return Err(Error::StreamingCommand { method: path });
        }
        Ok(Self { path, kind, streaming })
    }
}

impl Kind {
    /// Only a method that promises to have no side effects is a query. An idempotent one does have them.
    fn of(method: &MethodDescriptorProto) -> Self {
        match method.options.as_ref().map(|options| options.idempotency_level()) {
            Some(IdempotencyLevel::NoSideEffects) => Self::Query,
            _ => Self::Command,
        }
    }
}

/// A service without a package has no dot.
fn full_name(file: &FileDescriptorProto, service: &str) -> String {
    match file.package() {
        "" => service.to_owned(),
        package => format!("{package}.{service}"),
    }
}
