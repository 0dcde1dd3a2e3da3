//! Config files: the good ones load, the bad ones give exactly the text beside them, and no
//! mutation of a file makes the loader panic or keeps it from naming a line.
//!
//! `UPDATE_EXPECT=1` writes the expected texts and the schema anew; read the difference before you
//! keep it.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use weir::config::load::{Invalid, load_text, load_with};
use weir::config::{Loaded, schema};
use weir::plan::compile::{all_faults, compile};
use weir::problem::{Problems, Sources};
use weir::telemetry::handles::Metrics;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn env(name: &str) -> Option<String> {
    match name {
        "APP" => Some("127.0.0.1:9001".to_owned()),
        "EMPTY" => Some(String::new()),
        "TRICK" => Some("${APP}".to_owned()),
        _ => None,
    }
}

/// The `*.toml` files of a folder, sorted.
fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).expect("the folder is there");
    let paths = entries.map(|entry| entry.expect("the folder can be read").path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    paths.sort();
    paths
}

/// The problems as printed, with paths that do not depend on the machine.
fn rendered(invalid: &Invalid) -> String {
    let folder = format!("{}/", root().display());
    invalid.render(false).replace(&folder, "")
}

/// Compares with what a file holds, or writes it there if asked to.
fn expect_file(path: &Path, text: &str) {
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(path, text).expect("the text can be written");
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(text, expected, "{}", path.display());
}

fn loads(path: &Path) -> Loaded {
    load_with(path, &env)
        .unwrap_or_else(|invalid| panic!("{}:\n{}", path.display(), rendered(&invalid)))
}

#[test]
fn every_valid_file_loads() {
    for path in files("tests/config/valid") {
        loads(&path);
    }
}

/// What is wrong with a file that does not load, or does not compile.
fn refusal(path: &Path) -> Option<String> {
    let loaded = match load_with(path, &env) {
        Ok(loaded) => Arc::new(loaded),
        Err(invalid) => return Some(rendered(&all_faults(invalid))),
    };
    let problems = compile(loaded.clone(), None, &Metrics::new(1)).err()?;
    let folder = format!("{}/", root().display());
    let text = problems.render(&loaded.sources, false);
    Some(text.replace(&folder, ""))
}

#[test]
fn every_invalid_file_is_explained_in_these_words() {
    let paths = files("tests/config/invalid");
    assert!(paths.len() >= 40, "{} files", paths.len());
    for path in paths {
        let Some(text) = refusal(&path) else {
            panic!("{} was let through", path.display());
        };
        // what a route matches is shown at its id, where there may be another fault; and the faults
        // of syntax are the parser's
        let syntax = text.contains("expected `=`");
        let other = |f: &&str| !syntax && !f.contains("match the same");
        let faults = text.split("error: ").filter(other);
        let mut told = BTreeSet::new();
        for place in faults.filter_map(|f| f.lines().find(|line| line.contains("--> "))) {
            assert!(told.insert(place.trim()), "told twice: {text}");
        }
        expect_file(&path.with_extension("txt"), &text);
    }
}

#[test]
fn included_sections_are_added_and_their_routes_follow() {
    let config = loads(&root().join("tests/config/valid/contract.toml")).config;
    let ids: Vec<&str> = config.routes.iter().map(|r| r.id.as_str()).collect();
    assert_eq!(ids, ["api", "shop", "live", "old", "probe", "extra"]);
    assert!(config.upstreams.contains_key("extra"));
    assert!(config.listeners.contains_key("more"));
}

#[test]
fn the_example_files_load_as_they_stand() {
    for name in ["weir.toml", "minimal.toml", "sidecar.toml"] {
        let path = root().join("config").join(name);
        if let Err(invalid) = load_with(&path, &|_| None) {
            panic!("{}", rendered(&invalid));
        }
    }
}

/// A folder with a self-signed certificate under each of these names, and a token.
fn folder_with_certificates(names: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for folder in ["tls", "secrets"] {
        fs::create_dir(dir.path().join(folder)).expect("a new folder");
    }
    for name in names {
        let made = rcgen::generate_simple_self_signed([format!("{name}.example.com")]);
        let made = made.expect("a certificate");
        let at = |end: &str| dir.path().join("tls").join(format!("{name}.{end}"));
        fs::write(at("crt"), made.cert.pem()).expect("the certificate is written");
        fs::write(at("key"), made.signing_key.serialize_pem()).expect("the key is written");
    }
    fs::write(dir.path().join("secrets/partner-token"), "secret\n").expect("the token is written");
    dir
}

/// Takes the `#` away from the examples that are switched off.
fn switched_on(text: &str) -> String {
    let on = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest.to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(|line| on(line) + "\n").collect()
}

#[test]
fn the_full_example_also_loads_with_everything_switched_on() {
    let (dir, text) = full_example();
    let loaded = load_text("weir.toml", &text, dir.path(), &|_| None)
        .unwrap_or_else(|invalid| panic!("{}", rendered(&invalid)));
    assert!(loaded.config.listeners.contains_key("secure"));
    assert!(loaded.config.upstreams.contains_key("partner"));
    assert!(loaded.files.iter().all(|(_, content)| content.is_ok()));
}

/// Where the string values of a file stand that have no variable in them.
fn strings(text: &str) -> Vec<Range<usize>> {
    fn below(value: &Spanned<DeValue<'_>>, found: &mut Vec<Range<usize>>) {
        match value.get_ref() {
            DeValue::String(text) if !text.contains('$') => found.push(value.span()),
            DeValue::Array(array) => array.iter().for_each(|v| below(v, found)),
            DeValue::Table(table) => table.values().for_each(|v| below(v, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    let tree = DeTable::parse(text).expect("it is TOML");
    tree.get_ref().values().for_each(|v| below(v, &mut found));
    found.sort_by_key(|span| span.start);
    found
}

/// The full example with everything switched on, in a folder that has all it names.
fn full_example() -> (tempfile::TempDir, String) {
    let text = fs::read_to_string(root().join("config/weir.toml")).expect("the example is there");
    (
        folder_with_certificates(&["a", "b", "ca"]),
        switched_on(&text),
    )
}

#[test]
fn what_the_environment_fills_in_is_shown_as_it_is_written() {
    let (dir, mut text) = full_example();
    let mut values = Vec::new();
    for (n, span) in strings(&text).into_iter().enumerate().rev() {
        let value = text[span.clone()].trim_matches(['"', '\'']).to_owned();
        text.replace_range(span, &format!("\"${{V{n}}}\""));
        values.insert(0, value);
    }
    assert!(values.len() > 50, "{}", values.len());
    let env = |name: &str| {
        let number: Option<usize> = name.strip_prefix('V')?.parse().ok();
        values.get(number?).cloned()
    };
    let loaded = load_text("weir.toml", &text, dir.path(), &env)
        .unwrap_or_else(|invalid| panic!("{}", rendered(&invalid)));
    let shown = loaded.shown().to_string();
    for (n, value) in values.iter().enumerate() {
        let written = format!("\"${{V{n}}}\"");
        assert!(
            shown.contains(&written),
            "{written}, which is {value}, is not in {shown}"
        );
    }
}

#[test]
fn no_problem_tells_what_the_environment_fills_in() {
    let (dir, text) = full_example();
    for secret in [
        "hunter2",
        "HUNTER2 \"hunter2\\hunter2",
        "/hunter2//{hunter2",
        "7hunter2:99999",
    ] {
        let env = |name: &str| (name == "SECRET").then(|| secret.to_owned());
        let mut told = 0;
        for span in strings(&text) {
            let mut text = text.clone();
            text.replace_range(span, "\"${SECRET}\"");
            let (problems, sources) = problems(&text, dir.path(), &env);
            told += problems.len();
            for said in [
                problems.render(&sources, false),
                problems.to_json(&sources).to_string(),
            ] {
                assert!(!said.to_ascii_lowercase().contains("hunter2"), "{said}");
            }
        }
        assert!(told > 50, "{told}");
    }
}

/// All that `weir check` says of a text.
fn problems(text: &str, dir: &Path, env: &dyn Fn(&str) -> Option<String>) -> (Problems, Sources) {
    let loaded = match load_text("weir.toml", text, dir, env) {
        Ok(loaded) => loaded,
        Err(invalid) => {
            let Invalid {
                problems, sources, ..
            } = all_faults(invalid);
            return (problems, sources);
        }
    };
    let sources = loaded.sources.clone();
    let compiled = compile(Arc::new(loaded), None, &Metrics::new(1));
    (compiled.err().unwrap_or_default(), sources)
}

#[test]
fn the_edge_example_loads_beside_its_certificates() {
    let dir = folder_with_certificates(&["www", "api"]);
    let path = dir.path().join("edge.toml");
    fs::copy(root().join("config/edge.toml"), &path).expect("the example is copied");
    let loaded =
        load_with(&path, &|_| None).unwrap_or_else(|invalid| panic!("{}", rendered(&invalid)));
    assert_eq!(loaded.files.iter().count(), 4);
    assert!(loaded.files.iter().all(|(_, content)| content.is_ok()));
}

#[test]
fn the_full_example_shows_every_key_there_is() {
    let text = fs::read_to_string(root().join("config/weir.toml")).expect("the example is there");
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let shown: BTreeSet<&str> = words.collect();
    let mut keys = BTreeSet::new();
    properties(&schema(), &mut keys);
    let hidden: Vec<&String> = keys
        .iter()
        .filter(|k| !shown.contains(k.as_str()))
        .collect();
    assert!(hidden.is_empty(), "not in config/weir.toml: {hidden:?}");
}

fn properties(schema: &serde_json::Value, keys: &mut BTreeSet<String>) {
    match schema {
        serde_json::Value::Object(object) => {
            let named = object.get("properties").and_then(|p| p.as_object());
            keys.extend(named.into_iter().flat_map(|p| p.keys().cloned()));
            object.values().for_each(|value| properties(value, keys));
        }
        serde_json::Value::Array(array) => array.iter().for_each(|v| properties(v, keys)),
        _ => {}
    }
}

#[test]
fn the_schema_beside_the_examples_is_the_one_of_this_version() {
    let text = serde_json::to_string_pretty(&schema()).expect("a schema is JSON") + "\n";
    expect_file(&root().join("config/weir.schema.json"), &text);
}

/// A small generator, so that every run tries the same mutations.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(limit.max(1)).expect("a small number"))
            .expect("below a usize")
    }
}

/// Deletes, inserts, overwrites, doubles or cuts off somewhere.
fn mutate(text: &[u8], random: &mut Seeded) -> Vec<u8> {
    const PIECES: [&[u8]; 12] = [
        b"\"", b"]", b"{", b"=", b"\n", b"[x]", b"$", b"\0", b"\xff", b"9", b".", b"#",
    ];
    let mut out = text.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(out.len());
        let end = (at + 1 + random.below(40)).min(out.len());
        match random.below(5) {
            0 => drop(out.drain(at..end)),
            1 => drop(out.splice(at..at, PIECES[random.below(PIECES.len())].iter().copied())),
            2 => drop(out.splice(at..end, PIECES[random.below(PIECES.len())].iter().copied())),
            3 => {
                let piece = out[at..end].to_vec();
                drop(out.splice(at..at, piece));
            }
            _ if random.below(4) == 0 => out.truncate(at),
            _ => {}
        }
    }
    out
}

#[test]
fn n16_a_broken_variant_is_explained_with_a_line_and_a_caret() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("weir.toml");
    let text = fs::read(root().join("config/weir.toml")).expect("the example is there");
    // prose is left out: a mutation there changes nothing
    let code = String::from_utf8(text).expect("the example is text");
    let code: String = code
        .lines()
        .filter(|l| !l.starts_with('#'))
        .map(|l| format!("{l}\n"))
        .collect();
    let mut random = Seeded(0x5eed);
    let mut refused = 0;
    for round in 0..1200 {
        fs::write(&path, mutate(code.as_bytes(), &mut random)).expect("the variant is written");
        let Err(invalid) = load_with(&path, &env) else {
            continue;
        };
        refused += 1;
        let shown = invalid.render(false);
        let (line, caret) = (shown.contains("weir.toml:"), shown.contains('^'));
        assert!(line && caret, "round {round}:\n{shown}");
    }
    assert!(refused >= 500, "only {refused} variants were broken");
}
