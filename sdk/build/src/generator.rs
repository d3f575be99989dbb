//! The Rust code of a service: its trait, and the server that dispatches to an implementation of it.

use std::fmt::Write;

use prost_build::{Service, ServiceGenerator};

use crate::table::{self, Kind, Table};

/// Called by prost-build for each service of each file, imported ones included.
pub(crate) struct Generator {
    table: Table,
}

impl Generator {
    pub(crate) fn new(table: Table) -> Self {
        Self { table }
    }
}

impl ServiceGenerator for Generator {
    fn generate(&mut self, service: Service, code: &mut String) {
        let separator = if service.package.is_empty() { "" } else { "." };
        let name = format!("{}{separator}{}", service.package, service.proto_name);
        // A service that is only imported is not served.
        let Some(rows) = self.table.service(&name) else { return };
        write_trait(&service, rows, code);
        write_server(&service, rows, code).expect("a String takes everything");
    }
}

fn write_trait(service: &Service, rows: &table::Service, code: &mut String) {
    service.comments.append_with_indent(0, code);
    code.push_str(&format!("pub trait {} {{\n", service.name));
    for (method, row) in service.methods.iter().zip(&rows.methods) {
        let context = match row.kind {
            Kind::Command => "ctx: &mut ::balsa_sdk::Context",
            Kind::Query => "ctx: &::balsa_sdk::View",
        };
        method.comments.append_with_indent(1, code);
        let (sender, output) = if row.streaming {
            (format!(", out: &mut ::balsa_sdk::Sender<{}>", method.output_type), "()")
        } else {
            (String::new(), method.output_type.as_str())
        };
        code.push_str(&format!(
            "    fn {}({context}, request: {}{sender}) -> ::core::result::Result<{output}, ::balsa_sdk::Status>;\n",
            method.name, method.input_type
        ));
    }
    code.push_str("}\n");
}

fn write_server(service: &Service, rows: &table::Service, code: &mut String) -> std::fmt::Result {
    let (service_name, full_name, first) = (&service.name, &rows.name, rows.first);
    writeln!(code, "/// Serves `{full_name}` with the methods of `T`, when `balsa_sdk::export!` lists it.")?;
    writeln!(code, "#[derive(Debug)]")?;
    writeln!(code, "pub struct {service_name}Server<T>(::core::marker::PhantomData<T>);")?;
    writeln!(code, "impl<T: {service_name}> ::balsa_sdk::Service for {service_name}Server<T> {{")?;
    writeln!(code, "    const NAME: &'static str = {full_name:?};")?;
    writeln!(code, "    const FIRST: u32 = {first};")?;
    writeln!(code, "    const METHODS: &'static [::balsa_sdk::Method] = &[")?;
    for row in &rows.methods {
        let table::Method { path, kind, streaming } = row;
        writeln!(code, "::balsa_sdk::Method {{")?;
        writeln!(code, "path: {path:?}, kind: ::balsa_sdk::Kind::{kind:?}, streaming: {streaming},")?;
        writeln!(code, "}},")?;
    }
    writeln!(code, "    ];")?;
    writeln!(code, "    fn call(ctx: &mut ::balsa_sdk::Context, position: u32, input: ::balsa_sdk::Bytes)")?;
    writeln!(code, "        -> ::core::result::Result<::balsa_sdk::Reply, ::balsa_sdk::Status> {{")?;
    writeln!(code, "        match position {{")?;
    for (position, (method, row)) in service.methods.iter().zip(&rows.methods).enumerate() {
        let name = &method.name;
        let (run, given) = if row.streaming { ("stream", "request, out") } else { ("answer", "request") };
        writeln!(code, "{position} => ::balsa_sdk::private::{run}(input, |{given}| T::{name}(ctx, {given})),")?;
    }
    writeln!(code, "            _ => ::core::result::Result::Err(::balsa_sdk::private::unknown_method()),")?;
    writeln!(code, "        }}\n    }}\n}}")
}
