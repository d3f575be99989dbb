//! The `balsa` program: see [`balsa::cli`].

fn main() -> std::process::ExitCode {
    balsa::cli::main()
}
