//! `balsa config`: look at a configuration without a node.
//!
//! `check` says what is wrong. `show` prints what holds as a `balsa.toml` that says it all, with where each value came from and
//! who obeys it as comments, and then every node's addresses; what it prints can be loaded again.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value as Json, json};

use super::Format;
use crate::config::problem::{Finding, PlaceOrigin};
use crate::config::schema::{self, Default, Section};
use crate::config::settings::{Setting, Value};
use crate::config::{self, ConfigErrors, Loaded, ModuleFile, Origin, Overrides, Recipe};
use crate::files::binary;
use crate::ids::ModuleHash;
use crate::meta;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what is wrong with a file; exit code 2 if anything is
    Check {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print all settings, where each came from, and every node's addresses
    Show {
        /// The file; without it, the defaults and the environment
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Show what holds for this node
        #[arg(long)]
        name: Option<String>,
    },
}

pub(super) fn run(args: Args, format: Format) -> ExitCode {
    let (loaded, shown) = match args.command {
        Command::Check { file } => (recipe(Some(file), None).load(), false),
        // A module's file that cannot be taken is shown as such.
        Command::Show { file, name } => (recipe(file, name).settings(), true),
    };
    match (loaded, format) {
        (Err(errors), Format::Text) => refuse(&errors),
        (Err(errors), Format::Json) => {
            print_json(&json!({ "ok": false, "findings": findings_json(&errors.findings) }));
            ExitCode::from(config::EXIT_CODE)
        }
        (Ok(loaded), Format::Text) => {
            warn(&loaded.warnings);
            anstream::print!("{}", if shown { show(&loaded) } else { verdict(&loaded) });
            ExitCode::SUCCESS
        }
        (Ok(loaded), Format::Json) => {
            print_json(&if shown { show_json(&loaded) } else { verdict_json(&loaded) });
            ExitCode::SUCCESS
        }
    }
}

/// Says what is wrong with the configuration a process was started with; the process ends with this code.
pub fn refuse(errors: &ConfigErrors) -> ExitCode {
    anstream::eprint!("{}", errors.coloured());
    let count = errors.errors().count();
    anstream::eprintln!(
        "\nThe configuration has {count} error{}; nothing was started.",
        if count == 1 { "" } else { "s" }
    );
    ExitCode::from(config::EXIT_CODE)
}

/// Shows warnings; the process goes on.
pub fn warn(warnings: &[Finding]) {
    for warning in warnings {
        anstream::eprintln!("{}", warning.coloured());
    }
}

/// Loads a configuration for nodes with these data directories. A module's file that cannot be taken is an error only if one of them
/// may have to found a cluster with it; a node that belongs to a cluster goes by that cluster's log.
pub fn load_to_run(recipe: &Recipe, data_dirs: impl FnOnce(&Loaded) -> Vec<PathBuf>) -> Result<Loaded, ConfigErrors> {
    let loaded = recipe.settings()?;
    if data_dirs(&loaded).iter().all(|dir| meta::has_cluster(dir)) { Ok(loaded) } else { recipe.load() }
}

/// With no name, the first node stands for all: which host this is does not matter here.
fn recipe(file: Option<PathBuf>, name: Option<String>) -> Recipe {
    Recipe { path: file, args: Overrides { name, ..Overrides::default() }, env: config::environment().collect() }
}

fn print_json(value: &Json) {
    anstream::println!("{value}");
}

fn verdict(loaded: &Loaded) -> String {
    let count = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    let modules = match loaded.config.modules.len() {
        0 => "the built-in module".to_owned(),
        modules => count(modules, "module"),
    };
    format!("ok: cluster \"{}\" of {}, {modules}\n", loaded.config.cluster.name, count(loaded.sites.len(), "node"))
}

fn verdict_json(loaded: &Loaded) -> Json {
    let nodes: Vec<_> = loaded.sites.iter().map(|site| &site.name).collect();
    let modules: Vec<_> = loaded.config.modules.iter().map(|module| &module.name).collect();
    json!({
        "ok": true,
        "findings": findings_json(&loaded.warnings),
        "cluster": loaded.config.cluster.name,
        "nodes": nodes,
        "modules": modules,
    })
}

fn findings_json(findings: &[Finding]) -> Vec<Json> {
    findings.iter().map(finding_json).collect()
}

fn finding_json(finding: &Finding) -> Json {
    let severity = if finding.problem.is_warning() { "warning" } else { "error" };
    let place = finding.place.as_ref().map(|place| match &place.origin {
        PlaceOrigin::File { path, line, column } => json!({ "file": path, "line": line, "column": column }),
        PlaceOrigin::Environment(variable) => json!({ "variable": variable }),
        PlaceOrigin::Argument(flag) => json!({ "argument": flag }),
    });
    json!({ "severity": severity, "message": finding.problem.to_string(), "help": finding.problem.help(), "place": place })
}

/// The settings as a file, and the nodes as a comment below it.
fn show(loaded: &Loaded) -> String {
    let mut text = String::from(
        "# Each line says where its value came from, and when it is obeyed: by this node at once or when it\n",
    );
    text.push_str("# starts, by the replicated log, to which it is a proposal, or only when a cluster is founded.\n");
    for section in schema::SECTIONS {
        show_section(&mut text, loaded, section);
    }
    show_nodes(&mut text, loaded);
    text
}

fn show_section(text: &mut String, loaded: &Loaded, section: &Section) {
    if !section.repeated {
        let settings: Vec<_> = loaded.settings.iter().filter(|setting| setting.key.section() == section.name).collect();
        return show_settings(text, loaded, section, &settings);
    }
    if loaded.config.modules.is_empty() {
        text.push_str("\n# no [[module]]: the built-in key/value store\n");
    }
    for (settings, module) in loaded.settings.modules().zip(&loaded.config.modules) {
        show_settings(text, loaded, section, &settings.iter().collect::<Vec<_>>());
        writeln!(text, "# {}", module_file(&module.path)).expect("writing to a String cannot fail");
    }
}

fn show_settings(text: &mut String, loaded: &Loaded, section: &Section, settings: &[&Setting]) {
    let lines: Vec<_> = settings.iter().map(|setting| assignment(setting)).collect();
    let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    text.push_str(&format!("\n{}\n", section.title()));
    for (setting, line) in settings.iter().zip(&lines) {
        let origin = loaded.settings.origin(setting);
        writeln!(text, "{line:width$}  # {origin}; {}", setting.key.obeyed).expect("writing to a String cannot fail");
    }
}

/// What a module's file holds, in words.
fn module_file(path: &Path) -> String {
    match binary::read(path) {
        Ok(wasm) => format!("{}: {} bytes of wasm, hash {}", path.display(), wasm.len(), ModuleHash::of(&wasm)),
        Err(error) => format!("{} {error}", path.display()),
    }
}

/// `key = value`, or a comment where nothing is set.
fn assignment(setting: &Setting) -> String {
    let name = setting.key.name();
    match (&setting.value, setting.key.default) {
        (Some(Value::Number(number)), _) if matches!(setting.key.kind, schema::Kind::Bytes(..)) => {
            format!("{name} = \"{}\"", schema::bytes(*number))
        }
        (Some(Value::Number(number)), _) => format!("{name} = {number}"),
        (Some(Value::Text(text)), _) if setting.key.kind == schema::Kind::Fraction => format!("{name} = {text}"),
        (Some(Value::Text(text)), _) => format!("{name} = {}", toml::Value::String(text.clone())),
        (Some(Value::Switch(on)), _) => format!("{name} = {on}"),
        (None, Default::Follows(words)) => format!("# {name} = {words}"),
        (None, _) => format!("# {name}"),
    }
}

fn show_nodes(text: &mut String, loaded: &Loaded) {
    let head = ["NODE", "CLIENTS", "PEERS", "HTTP", "REACHED BY CLIENTS", "REACHED BY PEERS"].map(str::to_owned);
    let rows = loaded.sites.iter().map(|site| {
        let listen = [site.client_addr, site.peer_addr, site.http_addr].map(|addr| addr.to_string());
        let [client, peer, http] = listen;
        [site.name.clone(), client, peer, http, site.member.client_addr.clone(), site.member.peer_addr.clone()]
    });
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..6).map(width).collect();
    text.push('\n');
    for row in &rows {
        let cells: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}  ")).collect();
        writeln!(text, "# {}", cells.trim_end()).expect("writing to a String cannot fail");
    }
}

fn show_json(loaded: &Loaded) -> Json {
    let settings: Vec<_> = loaded.settings.iter().map(|setting| setting_json(loaded, setting)).collect();
    let modules: Vec<_> = loaded.config.modules.iter().map(module_json).collect();
    let nodes: Vec<_> = loaded.sites.iter().map(site_json).collect();
    json!({
        "ok": true,
        "findings": findings_json(&loaded.warnings),
        "settings": settings,
        "modules": modules,
        "nodes": nodes,
        "node": { "name": loaded.config.node.name, "data_dir": loaded.config.node.data_dir },
    })
}

fn module_json(module: &ModuleFile) -> Json {
    let (hash, size, problem) = match binary::read(&module.path) {
        Ok(wasm) => (Some(ModuleHash::of(&wasm).to_string()), Some(wasm.len()), None),
        Err(error) => (None, None, Some(error.to_string())),
    };
    json!({
        "name": module.name,
        "path": module.path,
        "allow_breaking": module.allow_breaking,
        "hash": hash,
        "size": size,
        "problem": problem,
    })
}

fn setting_json(loaded: &Loaded, setting: &Setting) -> Json {
    let origin = match setting.origin {
        Origin::Default => "default",
        Origin::File(_) => "file",
        Origin::Environment(_) => "environment",
        Origin::Argument(_) => "argument",
    };
    json!({
        "key": setting.key.path,
        "value": setting.value,
        "origin": origin,
        "origin_detail": loaded.settings.origin(setting),
        "obeyed": setting.key.obeyed.to_string(),
    })
}

fn site_json(site: &config::Site) -> Json {
    json!({
        "name": site.name,
        "ordinal": site.ordinal,
        "client_addr": site.client_addr,
        "peer_addr": site.peer_addr,
        "http_addr": site.http_addr,
        "socket": site.socket,
        "advertise_client_addr": site.member.client_addr,
        "advertise_peer_addr": site.member.peer_addr,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::Config;

    fn load_text(path: &Path, text: &str) -> Loaded {
        fs::write(path, text).unwrap();
        Config::load(Some(path), &Overrides::default(), std::iter::empty()).unwrap_or_else(|errors| panic!("{errors}"))
    }

    #[test]
    fn what_show_prints_can_be_loaded_and_means_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("balsa.toml");
        fs::write(directory.path().join("counter.wasm"), b"\0asm\x01\0\0\0\0\x0d\x0cbalsa.module").unwrap();
        let text = "[cluster]\nreplicas = 3\n[node]\ndata_dir = \"a \\\"b\\\" \\\\ {name}\"\n[limits]\nmemory_bytes = 2000000\n\
                    [[module]]\nname = \"counter\"\npath = \"counter.wasm\"\n";
        let first = load_text(&path, text);
        let second = load_text(&path, &show(&first));
        assert_eq!(first.config, second.config);
    }

    #[test]
    fn show_says_where_values_came_from_and_who_obeys_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("balsa.toml");
        fs::write(&path, "[cluster]\nreplicas = 3\n").unwrap();
        let env = [("BALSA_LOG__LEVEL".to_owned(), "debug".to_owned())];
        let args = Overrides { name: Some("balsa-1".to_owned()), ..Overrides::default() };
        let loaded = Config::load(Some(&path), &args, env.into_iter()).unwrap();
        let prefix = format!("{}/", directory.path().display());
        insta::assert_snapshot!(show(&loaded).replace(&prefix, ""), @r#"
        # Each line says where its value came from, and when it is obeyed: by this node at once or when it
        # starts, by the replicated log, to which it is a proposal, or only when a cluster is founded.

        [node]
        name = "balsa-1"                                  # --name; at start
        data_dir = "balsa-data/{name}"                    # default; at start
        client_addr = "127.0.0.1:{6000 + 100 * ordinal}"  # default; at start
        peer_addr = "127.0.0.1:{6001 + 100 * ordinal}"    # default; at start
        http_addr = "127.0.0.1:{6080 + 100 * ordinal}"    # default; at start
        # socket = `balsa.sock` in data_dir               # default; at start
        # advertise_client_addr = client_addr             # default; at start
        # advertise_peer_addr = peer_addr                 # default; at start
        query_threads = 2                                 # default; at start
        max_connection_age_ms = 300000                    # default; at start
        drain_wait_ms = 7000                              # default; at start

        [cluster]
        name = "balsa"                     # default; at founding
        replicas = 3                       # balsa.toml:2; by the log
        node_name = "{cluster}-{ordinal}"  # default; at founding

        # no [[module]]: the built-in key/value store

        [limits]
        command_fuel = 50000000         # default; by the log
        query_fuel = 200000000          # default; by the log
        memory_bytes = "16 MiB"         # default; by the log
        idempotency_window_ms = 120000  # default; by the log
        idempotency_keys = 1000000      # default; by the log
        idempotency_bytes = "512 MiB"   # default; by the log
        migrate_fuel = 2000000000       # default; by the log
        migrate_writes = 100000         # default; by the log
        migrate_bytes = "64 MiB"        # default; by the log

        [raft]
        heartbeat_interval_ms = 125     # default; at start
        election_timeout_min_ms = 500   # default; at start
        election_timeout_max_ms = 1000  # default; at start
        snapshot_log_bytes = "256 MiB"  # default; at start
        keep_log_bytes = "1 GiB"        # default; at start

        [storage]
        cache_bytes = "256 MiB"        # default; at start
        checkpoint_bytes = "16 MiB"    # default; at start
        checkpoint_interval_ms = 5000  # default; at start

        [log]
        format = "text"  # default; at start
        level = "debug"  # BALSA_LOG__LEVEL; at once

        [otlp]
        # endpoint = no traces  # default; at start
        sample_ratio = 0.01     # default; at start

        # NODE     CLIENTS         PEERS           HTTP            REACHED BY CLIENTS  REACHED BY PEERS
        # balsa-0  127.0.0.1:6000  127.0.0.1:6001  127.0.0.1:6080  127.0.0.1:6000      127.0.0.1:6001
        # balsa-1  127.0.0.1:6100  127.0.0.1:6101  127.0.0.1:6180  127.0.0.1:6100      127.0.0.1:6101
        # balsa-2  127.0.0.1:6200  127.0.0.1:6201  127.0.0.1:6280  127.0.0.1:6200      127.0.0.1:6201
        "#);
    }

    #[test]
    fn a_modules_file_is_needed_only_by_a_node_without_a_cluster() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("balsa.toml");
        fs::write(&path, "[[module]]\nname = \"a\"\npath = \"a.wasm\"\n").unwrap();
        let recipe = Recipe { path: Some(path), ..Recipe::default() };
        let data = |name: &str, cluster: Option<&str>| {
            let dir = directory.path().join(name);
            fs::create_dir(&dir).unwrap();
            let cluster = cluster.map(|id| format!("cluster_id = \"{id}\"\n")).unwrap_or_default();
            let meta = format!("version = 1\nname = \"balsa-0\"\nnode_id = \"00000000000000ab\"\n{cluster}");
            fs::write(dir.join("node.meta"), meta).unwrap();
            dir
        };
        let (member, waiting) = (data("member", Some(&"0".repeat(32))), data("waiting", None));
        let pristine = directory.path().join("pristine");
        let starts = |dirs: &[&PathBuf]| load_to_run(&recipe, |_| dirs.iter().copied().cloned().collect()).is_ok();
        assert!(starts(&[&member]));
        assert!(!starts(&[&waiting]), "it may have to found the cluster");
        assert!(!starts(&[&pristine]));
        assert!(!starts(&[&member, &pristine]));
    }

    #[test]
    fn show_tells_what_a_modules_file_holds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("balsa.toml");
        fs::write(directory.path().join("a.wasm"), b"\0asm\x01\0\0\0\0\x0d\x0cbalsa.module").unwrap();
        let text = "[[module]]\nname = \"a\"\npath = \"a.wasm\"\nallow_breaking = true\n[[module]]\nname = \"b\"\npath = \"b.wasm\"\n";
        fs::write(&path, text).unwrap();
        let loaded = recipe(Some(path), None).settings().unwrap();
        let text = show(&loaded).replace(&format!("{}/", directory.path().display()), "");
        let (_, modules) = text.split_once("node_name").unwrap();
        let (modules, _) = modules.split_once("[limits]").unwrap();
        insta::assert_snapshot!(modules, @r#"
         = "{cluster}-{ordinal}"  # default; at founding

        [[module]]
        name = "a"                            # balsa.toml:2; by the log
        path = "a.wasm"                       # balsa.toml:3; by the log
        allow_breaking = true                 # balsa.toml:4; by the log
        # command_fuel = limits.command_fuel  # default; by the log
        # query_fuel = limits.query_fuel      # default; by the log
        # a.wasm: 23 bytes of wasm, hash 37fdf6440c63d289f2739f36ef3aaae58a80363a770d6856a981375788312529

        [[module]]
        name = "b"                            # balsa.toml:6; by the log
        path = "b.wasm"                       # balsa.toml:7; by the log
        allow_breaking = false                # default; by the log
        # command_fuel = limits.command_fuel  # default; by the log
        # query_fuel = limits.query_fuel      # default; by the log
        # b.wasm does not exist
        "#);
    }

    #[test]
    fn a_good_file_is_said_to_be_one_in_words_and_in_json() {
        let directory = tempfile::tempdir().unwrap();
        let loaded = load_text(&directory.path().join("balsa.toml"), "[cluster]\nreplicas = 3\n");
        assert_eq!(verdict(&loaded), "ok: cluster \"balsa\" of 3 nodes, the built-in module\n");
        let json = json!({
            "ok": true, "findings": [], "cluster": "balsa", "nodes": ["balsa-0", "balsa-1", "balsa-2"], "modules": [],
        });
        assert_eq!(verdict_json(&loaded), json);
    }

    #[test]
    fn findings_are_objects_for_programs() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("balsa.toml");
        fs::write(&path, "[raft]\nheartbeat_ms = 1\n").unwrap();
        let errors = Config::load(Some(&path), &Overrides::default(), std::iter::empty()).unwrap_err();
        let json = finding_json(&errors.findings[0]).to_string().replace(&path.display().to_string(), "balsa.toml");
        insta::assert_snapshot!(json, @r#"{"help":"did you mean `heartbeat_interval_ms`?","message":"unknown key `heartbeat_ms` in [raft]","place":{"column":1,"file":"balsa.toml","line":2},"severity":"error"}"#);
    }
}
