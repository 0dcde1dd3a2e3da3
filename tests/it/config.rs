//! Config files: the good ones load, the bad ones give exactly the text beside them, and no
//! mutation of a file makes the loader panic or keeps it from naming a line.
//!
//! `UPDATE_EXPECT=1` writes the expected texts anew; read the difference before you keep it.

use std::fs;
use std::path::{Path, PathBuf};

use weir::config::load::{Invalid, load_with};

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

#[test]
fn every_valid_file_loads() {
    let paths = files("tests/config/valid");
    assert!(!paths.is_empty());
    for path in paths {
        if let Err(invalid) = load_with(&path, &env) {
            panic!("{}:\n{}", path.display(), rendered(&invalid));
        }
    }
}

#[test]
fn every_invalid_file_is_explained_in_these_words() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let paths = files("tests/config/invalid");
    let count = paths.len();
    for path in paths {
        let Err(invalid) = load_with(&path, &env) else {
            panic!("{} was let through", path.display());
        };
        let text = rendered(&invalid);
        let beside = path.with_extension("txt");
        if update {
            fs::write(&beside, &text).expect("the text can be written");
        }
        let expected = fs::read_to_string(&beside).unwrap_or_default();
        assert_eq!(text, expected, "{}", path.display());
    }
    assert!(count >= 40, "{count} files");
}
