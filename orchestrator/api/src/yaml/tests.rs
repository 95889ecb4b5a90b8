//! YAML as people write it, read and written back.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn value(text: &str) -> Value {
    parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).value
}

#[test]
fn plain_scalars_as_in_yaml_1_1() {
    for (text, want) in [
        ("y", json!(true)),
        ("Yes", json!(true)),
        ("on", json!(true)),
        ("n", json!(false)),
        ("off", json!(false)),
        ("FALSE", json!(false)),
        ("tRue", json!("tRue")),
        ("~", json!(null)),
        ("null", json!(null)),
        ("\"y\"", json!("y")),
        ("'1'", json!("1")),
        ("12", json!(12)),
        ("-12", json!(-12)),
        ("+12", json!(12)),
        ("1_000", json!(1000)),
        ("0644", json!(420)),
        ("0o644", json!(420)),
        ("0x1F", json!(31)),
        ("0b101", json!(5)),
        ("08", json!(8)),
        ("18446744073709551615", json!(18_446_744_073_709_551_615_u64)),
        ("-9223372036854775808", json!(i64::MIN)),
        ("1.5", json!(1.5)),
        (".5", json!(0.5)),
        ("3.0", json!(3)),
        ("1e-1", json!(0.1)),
        ("1e+3", json!(1000)),
        ("1e3", json!("1e3")),
        ("1.", json!("1.")),
        ("1.2.3", json!("1.2.3")),
        ("100m", json!("100m")),
        ("2026-01-01", json!("2026-01-01")),
        ("2026-01-01T00:00:00Z", json!("2026-01-01T00:00:00Z")),
        ("!!str 12", json!("12")),
        ("!!int \"12\"", json!(12)),
        ("!custom x", json!("x")),
        ("-", json!([null])),
        ("10:30", json!("10:30")),
    ] {
        assert_eq!(value(text), want, "{text}");
    }
}

#[test]
fn structures_and_texts() {
    let text =
        "a: |\n  line 1\n  line 2\nb: >-\n  folded\n  text\nc: [1, {d: e}]\n\"f\": {}\n1: one\ny: yes\n";
    let want = json!({"a": "line 1\nline 2\n", "b": "folded text", "c": [1, {"d": "e"}], "f": {}, "1": "one", "true": true});
    assert_eq!(value(text), want);
    assert_eq!(value(""), json!(null));
    assert_eq!(value("# nothing\n"), json!(null));
    assert_eq!(value("\u{feff}a: 1"), json!({"a": 1}));
}

#[test]
fn many_documents() {
    let text = "---\na: 1\n---\n# empty\n---\nb: 2\n...\n---\nc: 3\n";
    let all: Vec<Value> = documents(text).map(|d| d.unwrap().value).collect();
    assert_eq!(all, [json!({"a": 1}), json!(null), json!({"b": 2}), json!({"c": 3})]);
    let results: Vec<bool> = documents("a: 1\n---\nb: [\n---\nc: 3\n").map(|d| d.is_ok()).collect();
    assert_eq!(results, [true, false]);
}

#[test]
fn anchors_aliases_and_merge_keys() {
    let text =
        "base: &b {x: 1, y: {z: 2}}\none: *b\ntwo:\n  <<: *b\n  x: 9\nthree:\n  <<: [*b, {x: 7, w: 8}]\n";
    let value = value(text);
    let base = json!({"x": 1, "true": {"z": 2}});
    assert_eq!(value["one"], base);
    assert_eq!(value["two"], json!({"x": 9, "true": {"z": 2}}));
    assert_eq!(value["three"], json!({"x": 1, "true": {"z": 2}, "w": 8}));
    assert!(parse("<<: 5").is_err());
    assert!(parse("a: *nobody").is_err());
    assert!(parse("a: &a [*a]").is_err());
}

#[test]
fn duplicates_are_named_and_the_last_counts() {
    let document = parse("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n").unwrap();
    assert_eq!(document.value, json!({"a": 3, "b": {"c": 2}}));
    assert_eq!(
        document.duplicates,
        ["line 4: key \"c\" already set in map", "line 5: key \"a\" already set in map"]
    );
}

#[test]
fn bombs_are_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..10 {
        let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
        bomb.push_str(&format!("a{i}: &a{i} [{aliases}]\n"));
    }
    assert_eq!(parse(&bomb), Err(YamlError::Aliasing));
    assert!(matches!(parse(&"[".repeat(200)), Err(YamlError::Depth { .. } | YamlError::Syntax { .. })));
    assert!(parse(&"[".repeat(100_000)).is_err());
    assert!(parse(&"- ".repeat(100_000)).is_err());
    assert!(parse(&format!("{}1{}", "[".repeat(90), "]".repeat(90))).is_ok());
}

#[test]
fn what_json_cannot_hold() {
    for text in [".inf", "-.inf", ".nan", "!!binary aGk=", "!!int x", "? [a]\n: b", "a: [", "a: b: c"] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn written_as_kubectl_shows_it() {
    let value = json!({
        "apiVersion": "v1",
        "data": {"a": "y", "b": "0644", "script": "#!/bin/sh\necho hi\n", "t": "2026-01-01T00:00:00Z", "e": ""},
        "items": [{"name": "c", "args": ["-f", "x: y", "*"]}, [1, []], {}, null, true],
    });
    let want = "apiVersion: v1\ndata:\n  a: \"y\"\n  b: \"0644\"\n  e: \"\"\n  script: |\n    #!/bin/sh\n    echo hi\n  t: \"2026-01-01T00:00:00Z\"\n\
        items:\n- args:\n  - -f\n  - \"x: y\"\n  - \"*\"\n  name: c\n- \n  - 1\n  - []\n- {}\n- null\n- true\n";
    assert_eq!(to_yaml(&value), want);
    assert_eq!(to_yaml(&json!({})), "{}\n");
    assert_eq!(to_yaml(&json!("on")), "\"on\"\n");
}

/// Texts that tempt a reader, and whatever else.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ynoYNOfrue0-9.:_+eExob~-]{0,6}",
        "[-:{}\\[\\]&*!|>'\"%#, \n\ta-c0-9<=.]{0,12}",
        any::<String>(),
    ]
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        texts().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(texts(), inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn written_and_read_again(value in values()) {
        let text = to_yaml(&value);
        prop_assert_eq!(parse(&text).map(|d| d.value), Ok(value), "{}", text);
    }

    #[test]
    fn no_text_panics(text in "[-:{}\\[\\]&*!|>'\"%#, \\n\\ta-c0-9<]{0,60}") {
        for document in documents(&text).take(100) {
            let _ = document;
        }
    }
}
