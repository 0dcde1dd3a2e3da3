//! The walls of the house: what the map in `lib.rs` says must be so, and above all what must not
//! be there. Reads the sources as text; each finding names the rule, the file and the line.
//!
//! Three rules are held elsewhere: every key of the config stands in `config/weir.toml`
//! (`config.rs`), no `unsafe` and no lock across an await (the lints of `Cargo.toml`).

use std::fs;
use std::path::{Path, PathBuf};

/// The floors, as in `lib.rs`: a module may use those below its own.
const FLOORS: &[(u8, &str)] = &[
    (
        0,
        "error problem units switch files filled clock chance gather gate message pressure telemetry BUILD",
    ),
    (1, "middleware upstream"),
    (2, "config"),
    (3, "plan"),
    (4, "server reload watch admin control"),
    (5, "main lib cli run demo"),
];

/// Floors whose modules may use each other.
const OPEN_FLOORS: &[u8] = &[0, 4, 5];

/// What stands only in some places: the words, the places, the rule.
const ONLY_IN: &[(&str, &[&str], &str)] = &[
    ("Instant::now", &["clock.rs"], "one clock, in clock.rs"),
    ("SystemTime::now", &["clock.rs"], "one clock, in clock.rs"),
    (
        "ArcSwap",
        &["plan/mod.rs"],
        "one ArcSwap, in plan/mod.rs: a request sees one plan",
    ),
    ("thread::spawn", &["server/"], "only server/ spawns threads"),
    (
        "thread::Builder",
        &["server/"],
        "only server/ spawns threads",
    ),
    (
        "tokio::spawn",
        &[
            "server/",
            "upstream/",
            "middleware/cache/",
            "admin/",
            "demo/",
            "reload.rs",
            "run.rs",
        ],
        "tasks are spawned by server/, upstream/, the fills of the cache and the control thread",
    ),
    (
        "spawn_blocking",
        &["upstream/resolve.rs"],
        "a worker has no threads to lend; only names are looked up beside",
    ),
    ("static ", &["main.rs"], "no globals"),
    ("thread_local!", &[], "no globals"),
    ("LazyLock", &[], "no globals"),
    ("lazy_static", &[], "no globals"),
    (
        "\"weir_",
        &["telemetry/names.rs"],
        "metric names stand in telemetry/names.rs",
    ),
];

/// Modules that take time and chance as arguments.
const PURE: &[&str] = &[
    "message/coding.rs",
    "middleware/compress/verdict.rs",
    "gate/gradient.rs",
    "pressure/mod.rs",
    "middleware/rate_limit/pace.rs",
    "middleware/rate_limit/table.rs",
    "upstream/balance.rs",
    "upstream/breaker/mod.rs",
    "upstream/breaker/window.rs",
    "upstream/breaker/word.rs",
    "upstream/budget.rs",
    "upstream/eject.rs",
    "plan/router.rs",
    "plan/pattern.rs",
    "middleware/cache/key.rs",
    "middleware/cache/stamps.rs",
    "middleware/cache/tags.rs",
    "middleware/cache/status.rs",
    "middleware/cache/shy.rs",
    "middleware/cache/policy/conditional.rs",
    "middleware/cache/policy/date.rs",
    "middleware/cache/policy/dictionary.rs",
    "middleware/cache/policy/directives.rs",
    "middleware/cache/policy/etag.rs",
    "middleware/cache/policy/fields.rs",
    "middleware/cache/policy/freshness.rs",
    "middleware/cache/policy/invalidate.rs",
    "middleware/cache/policy/lexer.rs",
    "middleware/cache/policy/mod.rs",
    "middleware/cache/policy/range.rs",
    "middleware/cache/policy/reuse.rs",
    "middleware/cache/policy/storable.rs",
    "middleware/cache/policy/targeted.rs",
    "middleware/cache/policy/vary.rs",
];

/// The most lines of a file, its tests not counted.
const LONGEST: usize = 500;

/// Files that are longer. May only shrink.
const LONGER: &[&str] = &[];

/// A file under `src`, without its tests.
struct Source {
    /// Below `src`, as `plan/mod.rs`.
    path: String,
    lines: Vec<String>,
    /// It holds nothing but tests.
    tests: bool,
}

impl Source {
    fn read(root: &Path, file: &Path) -> Self {
        let text = fs::read_to_string(file).expect("a source is text");
        let path = file.strip_prefix(root).expect("a file below src");
        let path = path.to_string_lossy().replace('\\', "/");
        let tests = path.ends_with("tests.rs");
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let end = lines.windows(2).position(|pair| {
            pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{')
        });
        let end = end.unwrap_or(lines.len());
        Source {
            path,
            lines: lines[..end].to_vec(),
            tests,
        }
    }

    /// The module it belongs to, as `plan`.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().expect("a path has a part");
        first.trim_end_matches(".rs")
    }

    /// Its lines with their numbers, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.lines.iter().enumerate();
        lines
            .map(|(index, line)| (index + 1, line.trim_start()))
            .filter(|(_, line)| !line.starts_with("//"))
    }

    /// The modules of the crate it names, with the line: `use crate::{a, b::c}` names two.
    fn uses(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (number, line) in self.code() {
            for (at, _) in line.match_indices("crate::") {
                let rest = &line[at + "crate::".len()..];
                let group = rest.strip_prefix('{');
                assert!(
                    group.is_none_or(|g| g.contains('}')),
                    "{}:{number}: a group of crate:: goes over lines, which this test cannot read",
                    self.path
                );
                let names = group.map_or(vec![rest], |g| g.split(", ").collect());
                found.extend(names.iter().map(|name| (number, leading_word(name))));
            }
        }
        found
    }
}

fn leading_word(text: &str) -> String {
    let word = text
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_');
    word.collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> Vec<Source> {
    let root = root();
    let (mut folders, mut sources) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("a folder can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                sources.push(Source::read(&root, &path));
            }
        }
    }
    assert!(sources.len() > 50, "only {} sources", sources.len());
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn floor(module: &str) -> Option<u8> {
    let holds = |names: &str| names.split(' ').any(|name| name == module);
    let found = FLOORS.iter().find(|(_, names)| holds(names));
    found.map(|(floor, _)| *floor)
}

/// Fails with every finding.
fn nothing(findings: Vec<String>) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn imports_go_down_and_never_from_room_to_room() {
    let mut findings = Vec::new();
    for source in sources().iter().filter(|s| !s.tests) {
        let (path, own) = (&source.path, source.module());
        let Some(from) = floor(own) else {
            findings.push(format!("src/{path}: `{own}` stands on no floor of lib.rs"));
            continue;
        };
        for (line, module) in source.uses() {
            let to = floor(&module).unwrap_or(5);
            let beside = to == from && OPEN_FLOORS.contains(&from);
            let within = module == own && own != "middleware";
            if to >= from && !beside && !within {
                findings.push(format!(
                    "imports go down only: src/{path}:{line}: `{own}` is on floor {from} and uses `{module}` on floor {to}"
                ));
            }
        }
        // A room with a folder of its own may use what is in it.
        let folder = path.matches('/').count() > 1 && !path.ends_with("/mod.rs");
        let sideways = |line: &str| own == "middleware" && !folder && line.contains("super::");
        let aside = source.code().filter(|(_, line)| sideways(line));
        findings.extend(
            aside.map(|(line, _)| format!("rooms do not use each other: src/{path}:{line}")),
        );
    }
    nothing(findings);
}

#[test]
fn the_paper_knows_only_the_sections_of_the_rooms() {
    let mut findings = Vec::new();
    for source in sources().iter().filter(|s| s.module() == "config") {
        for (line, code) in source.code() {
            let upstream = code.contains("crate::upstream::") && !code.contains("upstream::config");
            let room = code.contains("crate::middleware::") && !code.contains("Config");
            if upstream || room {
                let path = &source.path;
                findings.push(format!(
                    "config uses sections alone: src/{path}:{line}: {code}"
                ));
            }
        }
    }
    nothing(findings);
}

#[test]
fn some_words_stand_only_where_they_belong() {
    let mut findings = Vec::new();
    for source in sources().iter().filter(|s| !s.tests) {
        for (line, code) in source.code() {
            let path = &source.path;
            let astray = ONLY_IN.iter().filter(|(word, places, _)| {
                let global = *word != "static " || declares_static(code);
                code.contains(word) && global && !places.iter().any(|p| path.starts_with(p))
            });
            findings
                .extend(astray.map(|(word, _, rule)| {
                    format!("{rule}: src/{path}:{line}: `{}`", word.trim())
                }));
        }
    }
    nothing(findings);
}

fn declares_static(code: &str) -> bool {
    let code = code.strip_prefix("pub ").unwrap_or(code);
    code.strip_prefix("pub(crate) ")
        .unwrap_or(code)
        .starts_with("static ")
}

#[test]
fn pure_modules_ask_for_neither_time_nor_chance() {
    let sources = sources();
    let mut findings = Vec::new();
    for pure in PURE {
        let source = sources.iter().find(|s| s.path == *pure);
        let source = source.unwrap_or_else(|| panic!("src/{pure} is gone: change PURE"));
        let asks = |code: &str| {
            let words = ["now()", "crate::clock", "crate::chance", "Chance", "rand::"];
            words.iter().any(|word| code.contains(word))
        };
        let impure = source.code().filter(|(_, code)| asks(code));
        findings.extend(impure.map(|(line, code)| {
            format!("time and chance are arguments: src/{pure}:{line}: {code}")
        }));
    }
    nothing(findings);
}

#[test]
fn every_file_says_what_it_owns_and_none_is_too_long() {
    let mut findings = Vec::new();
    for source in &sources() {
        let path = &source.path;
        let opens = source.lines.iter().take_while(|l| l.starts_with("//!"));
        if opens.count() < if source.tests { 1 } else { 2 } {
            findings.push(format!(
                "a file opens with two lines of `//!`: src/{path}:1"
            ));
        }
        let (lines, excepted) = (source.lines.len(), LONGER.contains(&path.as_str()));
        if lines > LONGEST && !excepted && !source.tests {
            findings.push(format!("at most {LONGEST} lines: src/{path} has {lines}"));
        }
        if lines <= LONGEST && excepted {
            findings.push(format!("src/{path} is short now: take it out of LONGER"));
        }
    }
    nothing(findings);
}

/// The rooms of `middleware/`, each a file or a folder: name and text.
fn rooms() -> Vec<(String, String)> {
    let sources = sources().into_iter();
    let rooms = sources.filter_map(|source| {
        let file = source.path.strip_prefix("middleware/")?;
        let room = match file.split_once('/') {
            None => file.strip_suffix(".rs").filter(|room| *room != "mod")?,
            Some((room, rest)) => Some(room).filter(|_| rest == "mod.rs")?,
        };
        Some((room.to_owned(), source.lines.join("\n")))
    });
    rooms.collect()
}

/// `request_id` as `RequestId`.
fn camel(name: &str) -> String {
    let words = name.split('_').map(|word| {
        let (first, rest) = word.split_at(1);
        first.to_uppercase() + rest
    });
    words.collect()
}

#[test]
fn every_room_has_its_doors_and_its_sample() {
    let list = text("src/middleware/mod.rs");
    let (sections, example) = (text("src/config/mod.rs"), text("config/weir.toml"));
    let order = text("src/plan/stack.rs") + &text("src/plan/route.rs");
    let mut findings = Vec::new();
    for (room, code) in rooms() {
        let mut need = |there: bool, what: &str| {
            if !there {
                findings.push(format!("src/middleware/{room}.rs: {what}"));
            }
        };
        let listed = list.contains(&format!("`{room}`"));
        need(listed, "is not in the list of rooms in middleware/mod.rs");
        let placed = order.contains(&format!("middleware::{room}::"));
        need(placed, "has no line in plan/stack.rs");
        let section = format!("{}Config", camel(&room));
        if code.contains(&format!("pub struct {section} ")) {
            let key = format!("pub {room}: Option<");
            let keyed = |line: &str| line.contains(&key) && line.contains(&section);
            let keyed = sections.lines().any(keyed);
            need(
                keyed,
                "has a section but no key on a route in config/mod.rs",
            );
            let sampled = [format!("{room} = "), format!("[routes.{room}")];
            let sampled = sampled.iter().any(|sample| example.contains(sample));
            need(sampled, "has a key but no sample in config/weir.toml");
        }
    }
    nothing(findings);
}
