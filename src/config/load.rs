//! From a path to a [`Loaded`]: the whole way of a config, step by step.
//!
//! `read` the files, `syntax` to a tree, `expand` the environment, `merge` the includes, `decode`
//! into sections, `check` them, then read the files they name. A step that finds faults lets the
//! later ones go on with what is sound, so that one run reports everything; only a fault of syntax
//! ends it early, because what follows from a half-read text is noise. The environment is handed
//! in, so that tests need not touch the process. Nothing here is kept between two loads.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use super::decode::Lost;
use super::expand::Expanded;
use super::path::Node;
use super::read::{self, Text};
use super::{Config, Loaded, check, decode, expand, merge, syntax};
use crate::files::Files;
use crate::problem::{Problem, Problems, Sources, Span};

/// Looks up a variable of the environment.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A config that must not run, and why.
#[derive(Debug, Clone)]
pub struct Invalid {
    /// Everything that is wrong; never empty.
    pub problems: Problems,
    /// The files it stands in.
    pub sources: Sources,
    /// What could be made out in spite of it, so that compiling it can add to the problems. It is
    /// never run. `None` after a fault of syntax.
    pub salvage: Option<Box<Loaded>>,
}

impl Invalid {
    /// The problems for people, each with its line and a caret.
    pub fn render(&self, color: bool) -> String {
        self.problems.render(&self.sources, color)
    }
}

/// Loads and checks a config file with all it includes and names.
///
/// # Errors
/// [`Invalid`] with every problem of every file; the config is then not to be used.
pub fn load(path: &Path) -> Result<Loaded, Invalid> {
    load_with(path, &|name| std::env::var(name).ok())
}

/// As [`load`], with another environment.
///
/// # Errors
/// As [`load`].
pub fn load_with(path: &Path, env: Env<'_>) -> Result<Loaded, Invalid> {
    let dir = path.parent().unwrap_or(Path::new("")).to_path_buf();
    let mut loading = Loading::new(dir, env);
    match read::config(path) {
        Ok(text) => loading.run(path, text),
        Err(why) => {
            let message = format!("cannot read \"{}\": {why}", path.display());
            loading.problems.push(Problem::general(message));
            Err(loading.invalid(None))
        }
    }
}

/// Loads a config that is at hand as text; `label` stands for its path in problems, and relative
/// paths in it start from `dir`.
///
/// # Errors
/// As [`load`].
pub fn load_text(label: &str, text: &str, dir: &Path, env: Env<'_>) -> Result<Loaded, Invalid> {
    let text = Text::from_bytes(text.as_bytes().to_vec());
    Loading::new(dir.to_path_buf(), env).run(Path::new(label), text)
}

/// One load under way.
struct Loading<'e> {
    dir: PathBuf,
    env: Env<'e>,
    sources: Sources,
    problems: Problems,
    /// A file is not TOML.
    broken: bool,
    lost: Lost,
    hasher: DefaultHasher,
}

impl<'e> Loading<'e> {
    fn new(dir: PathBuf, env: Env<'e>) -> Self {
        Loading {
            dir,
            env,
            sources: Sources::default(),
            problems: Problems::new(),
            broken: false,
            lost: Lost::default(),
            hasher: DefaultHasher::new(),
        }
    }

    fn run(mut self, path: &Path, text: Text) -> Result<Loaded, Invalid> {
        let top = self.parse(path, &text);
        let included = self.included(&top);
        let others = included.iter().map(|(path, text)| self.parse(path, text));
        let others: Vec<_> = others.collect();
        if self.broken {
            return Err(self.invalid(None));
        }
        let tree = merge::merge(top, others, &mut self.problems);
        let mut root = syntax::root(tree);
        self.expand(&mut root);
        let config = decode::decode(root, &mut self.lost, &mut self.problems);
        let Some(config) = config else {
            return Err(self.invalid(None));
        };
        check::check_partial(&config, &self.lost, &mut self.problems);
        self.finish(config)
    }

    fn parse<'t>(&mut self, path: &Path, text: &'t Text) -> syntax::Tree<'t> {
        text.shown.hash(&mut self.hasher);
        let base = self.sources.add(path.to_path_buf(), text.shown.clone());
        let before = self.problems.len();
        let tree = match &text.fault {
            Some(fault) => {
                self.problems.push(fault.problem(base));
                syntax::empty()
            }
            None => syntax::parse(&text.shown, base, &mut self.problems),
        };
        self.broken |= self.problems.len() > before;
        tree
    }

    /// The files that the top file includes, in order; a pattern is expanded like any string.
    fn included(&mut self, top: &syntax::Tree<'_>) -> Vec<(PathBuf, Text)> {
        let mut found = Vec::new();
        for pattern in merge::includes(top) {
            // one that cannot be expanded is reported with the whole tree
            let Ok(Expanded { value, parts }) = expand::expand(&pattern, self.env) else {
                self.lack_a_file();
                continue;
            };
            let span = pattern.span;
            let filled = &mut self.sources.filled;
            filled.fill(&span, "/include".to_owned(), parts);
            match read::matching(&self.dir, &value) {
                Ok(paths) => {
                    let read = paths
                        .into_iter()
                        .filter_map(|path| self.include(path, &span));
                    found.extend(read);
                }
                Err(why) => {
                    self.lack_a_file();
                    self.problems.push(Problem::at(&span, why));
                }
            }
        }
        found
    }

    fn include(&mut self, path: PathBuf, span: &Span) -> Option<(PathBuf, Text)> {
        match read::config(&path) {
            Ok(text) => Some((path, text)),
            Err(why) => {
                self.lack_a_file();
                let message = format!("cannot read \"{}\": {why}", path.display());
                self.problems.push(Problem::at(span, message));
                None
            }
        }
    }

    /// What a missing file may have defined is not missed elsewhere.
    fn lack_a_file(&mut self) {
        self.lost.give_up("listeners");
        self.lost.give_up("upstreams");
    }

    fn expand(&mut self, root: &mut Node<'_>) {
        let filled = &mut self.sources.filled;
        for (span, message) in expand::expand_all(root, self.env, filled, &mut self.hasher) {
            self.problems.push(Problem::at(&span, message));
            self.lost.prune(root, &span);
        }
    }

    fn finish(mut self, config: Config) -> Result<Loaded, Invalid> {
        let files = read::named(&self.dir, &config);
        hash_files(&files, &mut self.hasher);
        let loaded = Loaded {
            config,
            files,
            dir: self.dir.clone(),
            sources: self.sources.clone(),
            hash: self.hasher.finish(),
        };
        if self.problems.is_empty() {
            Ok(loaded)
        } else {
            Err(self.invalid(Some(Box::new(loaded))))
        }
    }

    fn invalid(self, salvage: Option<Box<Loaded>>) -> Invalid {
        Invalid {
            problems: self.problems,
            sources: self.sources,
            salvage,
        }
    }
}

fn hash_files(files: &Files, hasher: &mut DefaultHasher) {
    for (path, content) in files.iter() {
        path.hash(hasher);
        content.as_deref().hash(hasher);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[listeners.web]\naddress = \"127.0.0.1:0\"\n\
                        [[routes]]\nid = \"a\"\nrespond = { body = \"${WORD:-hi}\" }\n";

    fn nothing(_: &str) -> Option<String> {
        None
    }

    fn text(text: &str, env: Env<'_>) -> Result<Loaded, Invalid> {
        load_text("weir.toml", text, Path::new("/nowhere"), env)
    }

    #[test]
    fn the_hash_tells_a_change_of_the_text_and_of_the_environment() {
        let hash = |source: &str, env: Env<'_>| text(source, env).map(|l| l.hash).ok();
        let one = hash(GOOD, &nothing);
        assert!(one.is_some());
        assert_eq!(one, hash(GOOD, &nothing));
        assert_ne!(one, hash(&format!("{GOOD}\n"), &nothing));
        assert_ne!(one, hash(GOOD, &|_| Some("other".to_owned())));
        assert_eq!(one, hash(GOOD, &|_| Some("hi".to_owned())));
    }

    #[test]
    fn what_is_sound_is_salvaged_from_a_config_with_a_fault() {
        let invalid = text(&format!("{GOOD}colour = 1\n"), &nothing).expect_err("a fault");
        let salvage = invalid.salvage.expect("the rest");
        assert_eq!(salvage.config.routes.len(), 1);
        assert!(text("[", &nothing).expect_err("a fault").salvage.is_none());
    }

    #[test]
    fn o12_a_missing_file_is_named_in_one_line() {
        let invalid = load_with(Path::new("/nowhere/weir.toml"), &nothing).expect_err("no file");
        let shown = invalid.render(false);
        assert!(shown.starts_with("error: cannot read \"/nowhere/weir.toml\": no such file\n"));
    }

    #[test]
    fn n01_a_file_too_large_is_not_read() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("weir.toml");
        let file = std::fs::File::create(&path).expect("a new file");
        file.set_len(100 << 20).expect("a sparse file");
        let shown = load_with(&path, &nothing)
            .expect_err("too large")
            .render(false);
        assert!(shown.contains("larger than 8 MiB"), "{shown}");
        assert!(shown.contains("weir.toml:1:1"), "{shown}");
    }

    #[test]
    fn endless_problems_are_cut_off() {
        let keys: String = (0..5000).map(|i| format!("key_{i} = 1\n")).collect();
        let invalid = text(&keys, &nothing).expect_err("nothing but problems");
        assert!((100..110).contains(&invalid.problems.len()));
        for junk in ["= ?\n".repeat(5_000), "= ?\n".repeat(500_000)] {
            let invalid = text(&junk, &nothing).expect_err("nothing but problems");
            assert!(invalid.problems.len() < 110);
            assert!(invalid.render(false).contains("weir.toml:1:1"));
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_left_to_compile() {
        let source = GOOD.replace("\"${WORD:-hi}\"", "{ file = \"missing\" }");
        let loaded = text(&source, &nothing).expect("the config itself is good");
        let (path, content) = loaded.files.iter().next().expect("the file is named");
        assert_eq!(path, "missing");
        assert_eq!(
            content.as_ref().err().map(String::as_str),
            Some("no such file")
        );
    }
}
