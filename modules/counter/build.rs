//! Generates messages, service trait and metadata section from the `.proto`.

fn main() -> Result<(), balsa_build::Error> {
    balsa_build::compile(&["proto/counter.proto"], &["proto"])
}
