//! A tree to sections, with every complaint of the way and not only the first.
//!
//! The deserializer stops at its first error. So that one run reports all of them, the smallest
//! node around an error is taken out of the tree and the rest is tried again. What was taken out
//! is kept in [`Lost`], and a complaint that only follows from it (a missing key that was there but
//! wrong, a name that stood in a broken section) is not made.

use std::collections::BTreeSet;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeArray, DeValue, ValueDeserializer};

use super::Config;
use super::path::{self, Node, Step};
use super::words;
use crate::problem::{Problem, Problems, Span};

/// Problems after which the rest is not looked for: such a file is not a config.
const MOST_PROBLEMS: usize = 100;

/// What was taken out of the tree because it is wrong.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Where the table began that held it, and its key.
    keys: BTreeSet<(usize, String)>,
    /// Section (`"upstreams"`, ...) and name of what lost something; an empty name: all of it.
    named: BTreeSet<(String, String)>,
}

impl Lost {
    /// Whether this listener, upstream or route lost something, or is lost itself.
    pub(super) fn touched(&self, section: &str, name: &str) -> bool {
        let has = |name: &str| self.named.contains(&(section.to_owned(), name.to_owned()));
        has("") || has(name)
    }

    /// Whether anything of this section is lost.
    pub(super) fn any(&self, section: &str) -> bool {
        self.named.iter().any(|(lost, _)| lost == section)
    }

    /// Counts a whole section as damaged, such as when a file with more of it cannot be read.
    pub(super) fn give_up(&mut self, section: &str) {
        self.named.insert((section.to_owned(), String::new()));
    }

    /// Takes the smallest node around `span` out of the tree.
    pub(super) fn prune(&mut self, root: &mut Node<'_>, span: &Span) {
        if let Some(steps) = path::find(root, span) {
            self.remove(root, &steps);
        }
    }

    fn remove(&mut self, root: &mut Node<'_>, steps: &[Step]) {
        self.remember(root, steps);
        let Some((last, parents)) = steps.split_last() else {
            return;
        };
        let Some(parent) = path::get_mut(root, parents) else {
            return;
        };
        let start = parent.span().start;
        let emptied = match (parent.get_mut(), last) {
            (DeValue::Table(table), Step::Key(key)) => {
                table.remove(key.as_str());
                self.keys.insert((start, key.clone()));
                false
            }
            (DeValue::Array(array), Step::Index(index)) => {
                *array = without(std::mem::replace(array, DeArray::new()), *index);
                array.is_empty()
            }
            _ => false,
        };
        // an array whose last element was wrong is as wrong as the element
        if emptied {
            self.remove(root, parents);
        }
    }

    /// Keeps the name of the listener, upstream or route that loses something.
    fn remember(&mut self, root: &Node<'_>, steps: &[Step]) {
        let Some(Step::Key(section)) = steps.first() else {
            return;
        };
        let name = match steps.get(1) {
            None => Some(""),
            Some(Step::Key(name)) => Some(name.as_str()),
            Some(Step::Index(_)) => {
                let route = path::get(root, &steps[..2]);
                let id = route.and_then(|route| route.get_ref().get("id"));
                id.and_then(|id| id.get_ref().as_str())
            }
        };
        if let Some(name) = name {
            self.named.insert((section.clone(), name.to_owned()));
        }
    }

    /// Takes the key `meant` for one that stood beside the last of these steps.
    fn excuse(&mut self, root: &Node<'_>, steps: &[Step], meant: &str) {
        let parents = steps.split_last().map_or(steps, |(_, parents)| parents);
        if let Some(table) = path::get(root, parents) {
            self.keys.insert((table.span().start, meant.to_owned()));
        }
    }

    /// Whether the key `field` stood in the table at these steps and was taken out.
    fn held(&self, root: &Node<'_>, steps: &[Step], field: &str) -> bool {
        let table = path::get(root, steps).map(Spanned::span);
        table.is_some_and(|table| self.keys.contains(&(table.start, field.to_owned())))
    }
}

fn without(array: DeArray<'_>, index: usize) -> DeArray<'_> {
    let mut rest = DeArray::new();
    for (at, element) in array.into_iter().enumerate() {
        if at != index {
            rest.push(element);
        }
    }
    rest
}

/// Makes sections of the tree; pushes every problem, and gives what is left without the wrong
/// parts. `None` if the problems have no end.
pub(super) fn decode(
    mut root: Node<'_>,
    lost: &mut Lost,
    problems: &mut Problems,
) -> Option<Config> {
    for _ in 0..MOST_PROBLEMS {
        let error = match Config::deserialize(ValueDeserializer::from(root.clone())) {
            Ok(config) => return Some(config),
            Err(error) => error,
        };
        let found = error.span().and_then(|span| {
            let steps = path::find(&root, &span)?;
            Some((span, steps))
        });
        let Some((span, steps)) = found else {
            problems.push(Problem::general(words::plain(error.message())));
            return None;
        };
        let follows = words::missing_key(error.message())
            .is_some_and(|field| lost.held(&root, &steps, field));
        if !follows {
            problems.push(words::problem(&error, &span, &steps));
        }
        // who wrote "adress" need not be told that "address" is missing
        if let Some(meant) = words::meant_key(error.message()) {
            lost.excuse(&root, &steps, meant);
        }
        lost.remove(&mut root, &steps);
    }
    let message = format!("more than {MOST_PROBLEMS} problems; the rest was not looked for");
    problems.push(Problem::general(message));
    None
}
