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
use super::path::Node;
use super::read::{self, Text};
use super::{Config, Loaded, check, decode, expand, merge, syntax};
use crate::files::Files;
use crate::problem::{Problem, Problems, Sources};

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
            lost: Lost::default(),
            hasher: DefaultHasher::new(),
        }
    }

    fn run(mut self, path: &Path, text: Text) -> Result<Loaded, Invalid> {
        let top = self.parse(path, &text);
        let included = self.included(&top);
        let others = included.iter().map(|(path, text)| self.parse(path, text));
        let others: Vec<_> = others.collect();
        if !self.problems.is_empty() {
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
        if let Some(fault) = &text.fault {
            self.problems.push(fault.problem(base));
            return syntax::empty();
        }
        syntax::parse(&text.shown, base, &mut self.problems)
    }

    /// The files that the top file includes, in order; a pattern is expanded like any string.
    fn included(&mut self, top: &syntax::Tree<'_>) -> Vec<(PathBuf, Text)> {
        let mut found = Vec::new();
        for pattern in merge::includes(top) {
            let pattern = match expand::expand(&pattern, self.env) {
                Ok(value) => crate::problem::Located {
                    value,
                    span: pattern.span,
                },
                // reported when the whole tree is expanded
                Err(_) => continue,
            };
            let files = read::matching(&self.dir, &pattern, &mut self.problems);
            for path in files {
                match read::config(&path) {
                    Ok(text) => found.push((path, text)),
                    Err(why) => {
                        let message = format!("cannot read \"{}\": {why}", path.display());
                        self.problems.push(Problem::at(&pattern.span, message));
                    }
                }
            }
        }
        found
    }

    fn expand(&mut self, root: &mut Node<'_>) {
        for (span, message) in expand::expand_all(root, self.env, &mut self.hasher) {
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
