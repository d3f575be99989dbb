//! `balsa call`.

use tonic::metadata::MetadataValue;

use super::*;
use crate::client::fake::module_says_with;

fn notes() -> FakeCluster {
    FakeCluster::saying(|asked| reply(asked.message.clone(), 5))
}

#[test]
fn a_call_goes_to_any_method_by_its_descriptor() {
    let cluster = notes();
    let message = r#"{"text":"hi","data":"AP8=","at":"7"}"#;
    for method in ["test.v1.Notes/Write", "/test.v1.Notes/Write", "test.v1.Notes.Write", "Notes/Write", "Write"] {
        let ran = Shell::on(&cluster, &["call", method, message, "-o", "json"]).run().exits(Exit::Ok);
        assert_eq!(ran.text(), format!("{message}\n"));
    }
    let asked = cluster.asked();
    assert_eq!(asked[0].path, "/test.v1.Notes/Write");
    assert_eq!(&*asked[0].message, b"\x0a\x02hi\x12\x02\x00\xff\x18\x07");
    assert!(asked[0].key().is_some());
}

#[test]
fn a_query_has_no_key_and_may_be_stale_and_a_command_may_not() {
    let cluster = notes();
    Shell::on(&cluster, &["call", "Notes/Read", "--stale"]).run().exits(Exit::Ok);
    let asked = &cluster.asked()[0];
    assert_eq!((asked.key(), asked.text("balsa-consistency")), (None, Some("stale")));
    let ran = Shell::on(&cluster, &["call", "Notes/Write", "--stale"]).run().exits(Exit::Usage);
    assert!(ran.err.contains("'test.v1.Notes/Write' is a command"), "{}", ran.err);
}

#[test]
fn the_message_of_a_call_comes_from_a_file_or_standard_input_and_defaults_to_an_empty_one() {
    let cluster = notes();
    let text = "{\n  \"text\": \"hi\",\n  \"data\": \"\",\n  \"at\": \"0\"\n}\n";
    let ran = Shell::on(&cluster, &["call", "Write", "@note.json"]).file("note.json", br#"{"text":"hi"}"#).run();
    assert_eq!(ran.exits(Exit::Ok).text(), text);
    let ran = Shell::on(&cluster, &["call", "Write", "-"]).stdin(br#"{"text":"hi"}"#).run();
    assert_eq!(ran.exits(Exit::Ok).text(), text);
    let ran = Shell::on(&cluster, &["call", "Write"]).run().exits(Exit::Ok);
    assert_eq!(ran.json()["text"], "");
}

#[test]
fn a_stream_is_a_line_of_json_for_each_message() {
    let cluster = notes();
    for format in ["json", "text"] {
        let ran = Shell::on(&cluster, &["call", "Notes/Watch", r#"{"text":"hi"}"#, "-o", format]).run().exits(Exit::Ok);
        assert_eq!(ran.text(), "{\"text\":\"hi\",\"data\":\"\",\"at\":\"0\"}\n".repeat(REPEATED));
    }
    assert_eq!(cluster.asked()[0].key(), None);
}

#[test]
fn a_stream_that_fails_has_shown_what_came_before() {
    let fails = |status: fn() -> Status, after: &'static str| {
        let cluster = FakeCluster::saying(move |_| {
            let mut status = status();
            status.metadata_mut().insert(AFTER, after.parse().unwrap());
            Err(status)
        });
        let ran = Shell::on(&cluster, &["call", "Notes/Watch"]).run();
        assert_eq!(ran.text().lines().count().to_string(), after, "{}", ran.err);
        assert_eq!(cluster.asked().len(), 1, "a stream that has begun is not begun again");
        ran
    };
    let ran = fails(|| Status::not_found("no such note"), "2").exits(Exit::Rejected);
    assert_eq!(ran.err, "error: rejected by the module: NOT_FOUND: no such note\n");
    let ran = fails(|| refuse(Code::DeadlineExceeded, "DEADLINE", &[]), "2").exits(Exit::Unavailable);
    assert!(ran.err.starts_with("error: the node stopped sending in the middle: "), "{}", ran.err);
}

#[test]
fn a_stream_that_has_not_begun_is_tried_again() {
    let cluster = FakeCluster::saying(|asked| match asked.attempt {
        0 => Err(refuse(Code::Unavailable, "NOT_READY", &[])),
        _ => reply("", 1),
    });
    let ran = Shell::on(&cluster, &["call", "Notes/Watch"]).run().exits(Exit::Ok);
    assert_eq!((ran.text().lines().count(), cluster.asked().len()), (REPEATED, 2));
}

#[test]
fn an_unknown_method_names_the_nearest() {
    let cluster = notes();
    let ran = Shell::on(&cluster, &["call", "test.v1.Notes/Wriet", "{}"]).run().exits(Exit::Usage);
    let expected = "error: the cluster serves no method 'test.v1.Notes/Wriet'; did you mean test.v1.Notes/Write? \
                    List all with `balsa call --list`\n";
    assert_eq!(ran.err, expected);
    let ran = Shell::on(&cluster, &["call", "Xyz"]).run().exits(Exit::Usage);
    assert!(ran.err.ends_with("list what it serves with `balsa call --list`\n"), "{}", ran.err);
}

#[test]
fn a_message_that_does_not_fit_names_what_is_wrong_and_which_fields_there_are() {
    let cluster = notes();
    for (message, wrong) in [
        (r#"{"txet":"hi"}"#, "txet"),
        (r#"{"at":"soon"}"#, "invalid"),
        (r#"{"data":"***"}"#, "base64"),
        (r#"{"text":"hi"} x"#, "trailing characters"),
        ("nonsense", "expected"),
    ] {
        let ran = Shell::on(&cluster, &["call", "Notes/Write", message]).run().exits(Exit::Usage);
        assert!(ran.err.starts_with("error: the message is not a test.types.Note in JSON: "), "{}", ran.err);
        assert!(ran.err.contains(wrong), "{message}: {}", ran.err);
        assert!(ran.err.ends_with("its fields are text, data, at\n"), "{}", ran.err);
    }
    assert!(cluster.asked().is_empty());
}

#[test]
fn methods_are_listed_with_their_kind() {
    let ran = Shell::on(&notes(), &["call", "--list"]).run().exits(Exit::Ok);
    insta::assert_snapshot!(ran.text(), @"
    command test.v1.Notes/Write  (test.types.Note) -> test.types.Note
    query   test.v1.Notes/Read  (test.types.Note) -> test.types.Note
    query   test.v1.Notes/Watch  (test.types.Note) -> stream test.types.Note
    ");
    assert_eq!(notes_files()[1].service[0].method.len(), ran.text().lines().count());
}

#[test]
fn a_command_is_sent_with_the_key_that_is_given_and_says_if_its_answer_is_an_older_one() {
    let cluster = FakeCluster::saying(|asked| {
        let mut answer = reply(asked.message.clone(), 5)?;
        if asked.attempt > 0 {
            answer.metadata_mut().insert("balsa-replayed", MetadataValue::from_static("true"));
        }
        Ok(answer)
    });
    let arguments = ["call", "Notes/Write", r#"{"text":"hi"}"#, "--idempotency-key", "order-17"];
    let first = Shell::on(&cluster, &arguments).run().exits(Exit::Ok);
    let again = Shell::on(&cluster, &arguments).run().exits(Exit::Ok);
    assert_eq!(first.text(), again.text());
    assert_eq!(first.err, "");
    let replayed = "replayed: this is the stored answer to an earlier attempt with the same idempotency key\n";
    assert_eq!(again.err, replayed);
    assert!(cluster.asked().iter().all(|asked| asked.key() == Some("order-17")));
}

#[test]
fn a_key_that_no_node_would_take_and_a_key_of_a_query_are_refused_before_anything_is_sent() {
    let cluster = notes();
    let ran = Shell::on(&cluster, &["call", "Notes/Read", "--idempotency-key", "k"]).run().exits(Exit::Usage);
    assert!(ran.err.contains("'test.v1.Notes/Read' is a query"), "{}", ran.err);
    let long = "k".repeat(129);
    for key in ["", "a b", "ä", &long] {
        let ran = Shell::on(&cluster, &["call", "Notes/Write", "--idempotency-key", key]).run().exits(Exit::Usage);
        assert!(ran.err.contains("write 1 to 128 visible ASCII characters"), "{}", ran.err);
    }
    assert!(cluster.asked().is_empty());
}

#[test]
fn what_a_module_says_in_the_details_of_a_status_is_shown_as_json_if_it_is_described() {
    let note = b"\x0a\x02hi\x18\x07";
    let cluster = FakeCluster::saying(|_| {
        let details = [
            ("test.types.Note", &note[..]),
            ("test.types.Unknown", &b"\x08\x01"[..]),
            ("test.types.Note", &b"\xff"[..]),
        ];
        let mut status = module_says_with(Code::FailedPrecondition, "too late", &details);
        status.metadata_mut().insert("balsa-replayed", MetadataValue::from_static("true"));
        Err(status)
    });
    let ran = Shell::on(&cluster, &["call", "Notes/Write"]).run().exits(Exit::Rejected);
    insta::assert_snapshot!(ran.err, @r#"
    error: rejected by the module: FAILED_PRECONDITION: too late
      detail: test.types.Note {"text":"hi","data":"","at":"7"}
      detail: test.types.Unknown \x08\x01
      detail: test.types.Note \xff
      replayed: this is the stored answer to an earlier attempt with the same idempotency key
    "#);
    let ran = Shell::on(&cluster, &["call", "Notes/Watch", "-o", "json"]).run().exits(Exit::Rejected);
    let json: serde_json::Value = serde_json::from_str(&ran.err).unwrap();
    let details = &json["error"]["details"];
    assert_eq!((&details[0]["type"], &details[0]["message"]["at"]), (&"test.types.Note".into(), &"7".into()));
    assert_eq!((&details[1]["value"], &details[1]["message"]), (&"CAE=".into(), &serde_json::Value::Null));
    assert_eq!(json["error"]["replayed"], true);
}
