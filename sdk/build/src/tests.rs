//! What comes out of a build, and what is refused.

use std::fs;
use std::path::Path;

use prost::Message;
use prost_types::FileDescriptorSet;
use tempfile::TempDir;

use crate::error::Error;
use crate::generate;
use crate::metadata::Module;

/// A folder with `.proto` files, and another that stands for `OUT_DIR`.
struct Crate {
    protos: TempDir,
    out: TempDir,
}

impl Crate {
    fn new(files: &[(&str, &str)]) -> Self {
        let protos = TempDir::new().unwrap();
        for (name, text) in files {
            fs::write(protos.path().join(name), format!("syntax = \"proto3\"; {text}")).unwrap();
        }
        Self { protos, out: TempDir::new().unwrap() }
    }

    fn build(&self, names: &[&str]) -> Result<(), Error> {
        let files: Vec<_> = names.iter().map(|name| self.protos.path().join(name)).collect();
        generate(&files, &[self.protos.path().to_owned()], "my-module", "1.2.3", self.out.path()).map(drop)
    }

    fn module(&self) -> Module {
        Module::decode(fs::read(self.out.path().join("balsa.module.bin")).unwrap().as_slice()).unwrap()
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(Path::new(self.out.path()).join(name)).unwrap()
    }
}

const COUNTER: &str = "
    package counter.v1;
    message Number { uint64 n = 1; bytes raw = 2; }
    // Counts.
    service Counter {
      rpc Add(Number) returns (Number);
      rpc Total(Number) returns (Number) { option idempotency_level = NO_SIDE_EFFECTS; }
      rpc Set(Number) returns (Number) { option idempotency_level = IDEMPOTENT; }
    }";

#[test]
fn only_no_side_effects_makes_a_query() {
    let crate_ = Crate::new(&[("counter.proto", COUNTER)]);
    crate_.build(&["counter.proto"]).unwrap();
    let methods = crate_.module().methods;
    let methods: Vec<_> = methods.iter().map(|method| (method.path.as_str(), method.kind)).collect();
    assert_eq!(
        methods,
        [("/counter.v1.Counter/Add", 1), ("/counter.v1.Counter/Total", 2), ("/counter.v1.Counter/Set", 1)]
    );
    let code = crate_.text("counter.v1.rs");
    assert!(code.contains("fn add(\n        ctx: &mut ::balsa_sdk::Context,"), "{code}");
    assert!(code.contains("fn total(\n        ctx: &::balsa_sdk::View,"), "{code}");
}

#[test]
fn the_section_says_name_version_and_descriptors_without_source_info() {
    let crate_ = Crate::new(&[("counter.proto", COUNTER)]);
    crate_.build(&["counter.proto"]).unwrap();
    let module = crate_.module();
    assert_eq!((module.abi, module.name.as_str(), module.version.as_str()), (1, "my-module", "1.2.3"));
    assert!(module.sdk.starts_with("balsa-sdk "), "{}", module.sdk);
    let files = FileDescriptorSet::decode(module.file_descriptor_set.as_slice()).unwrap().file;
    assert_eq!(files.len(), 1);
    assert!(files[0].source_code_info.is_none());
    assert!(crate_.text("counter.v1.rs").contains("/// Counts."), "the comments are in the Rust code instead");
}

#[test]
fn dispatcher_and_metadata_number_several_services_alike() {
    let second = "import \"counter.proto\"; package b.v1;
        service First { rpc One(counter.v1.Number) returns (counter.v1.Number); }
        service Second { rpc Two(counter.v1.Number) returns (counter.v1.Number); }";
    let crate_ = Crate::new(&[("counter.proto", COUNTER), ("b.proto", second)]);
    crate_.build(&["b.proto", "counter.proto"]).unwrap();
    let paths: Vec<_> = crate_.module().methods.into_iter().map(|method| method.path).collect();
    assert_eq!(paths[3..], ["/b.v1.First/One", "/b.v1.Second/Two"], "an imported file comes first");
    let code = crate_.text("b.v1.rs");
    assert!(code.contains("const FIRST: u32 = 3;") && code.contains("const FIRST: u32 = 4;"), "{code}");
    assert!(crate_.text("balsa.services.rs").contains("b.v1.Second"));
}

#[test]
fn services_that_are_only_imported_are_not_served_but_described() {
    let second = "import \"counter.proto\"; package b.v1;
        service Mine { rpc One(counter.v1.Number) returns (counter.v1.Number); }";
    let crate_ = Crate::new(&[("counter.proto", COUNTER), ("b.proto", second)]);
    crate_.build(&["b.proto"]).unwrap();
    let module = crate_.module();
    assert_eq!(module.methods.len(), 1);
    let files = FileDescriptorSet::decode(module.file_descriptor_set.as_slice()).unwrap().file;
    assert_eq!(files.iter().map(|file| file.name()).collect::<Vec<_>>(), ["counter.proto", "b.proto"]);
    assert!(!crate_.text("counter.v1.rs").contains("trait Counter"));
}

#[test]
fn a_query_may_return_a_stream() {
    let text = "package s.v1; message M {} message N {}
        service S { rpc Dump(M) returns (stream N) { option idempotency_level = NO_SIDE_EFFECTS; } }";
    let crate_ = Crate::new(&[("s.proto", text)]);
    crate_.build(&["s.proto"]).unwrap();
    let code = crate_.text("s.v1.rs");
    assert!(code.contains("out: &mut ::balsa_sdk::Sender<N>,\n    ) -> ::core::result::Result<(), "), "{code}");
    assert!(code.contains("streaming: true"), "{code}");
    assert_eq!(crate_.module().methods[0].kind, 2);
}

#[test]
fn other_streams_are_refused_by_name_with_what_to_do() {
    let refused = |method: &str| {
        let text = format!("package s.v1; message M {{}} service S {{ rpc Watch{method} }}");
        format!("{:?}", Crate::new(&[("s.proto", &text)]).build(&["s.proto"]).unwrap_err())
    };
    assert_eq!(
        refused("(M) returns (stream M);"),
        "method /s.v1.S/Watch returns a stream and is a command, which has one response: if it only reads, say so with \
         `option idempotency_level = NO_SIDE_EFFECTS;`; if it writes, take `stream` out of its response"
    );
    let of_requests = "method /s.v1.S/Watch takes a stream of requests, and modules take one request at a time: take \
                       `stream` out of its request; many small ones can be one request with a repeated field";
    assert_eq!(refused("(stream M) returns (M);"), of_requests);
    assert_eq!(refused("(stream M) returns (stream M) { option idempotency_level = NO_SIDE_EFFECTS; }"), of_requests);
}

#[test]
fn a_module_without_methods_is_refused() {
    let error = Crate::new(&[("m.proto", "message M {}")]).build(&["m.proto"]).unwrap_err();
    assert!(matches!(error, Error::NoMethods), "{error}");
}

#[test]
fn a_mistake_in_a_proto_is_told_with_its_place() {
    let error = Crate::new(&[("m.proto", "message M { Missing m = 1; }")]).build(&["m.proto"]).unwrap_err();
    let message = format!("{error:?}");
    assert!(message.contains("m.proto:1:") && message.contains("Missing"), "{message}");
}
