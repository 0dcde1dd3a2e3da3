//! Ways into a tree of TOML: from a span to the node around it, and from steps to the node.
//!
//! Tables under headers do not lie inside the span of the table above them, so a search by span
//! looks everywhere and takes the smallest node that fits.

use std::fmt::Write;

use toml::Spanned;
use toml::de::DeValue;

use crate::problem::Span;

/// A value of the tree and where it stands.
pub(super) type Node<'t> = Spanned<DeValue<'t>>;

/// One step down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// To the value of a key.
    Key(String),
    /// To an element of an array.
    Index(usize),
}

/// The node at these steps.
pub(super) fn get<'a, 't>(root: &'a Node<'t>, steps: &[Step]) -> Option<&'a Node<'t>> {
    steps.iter().try_fold(root, |node, step| match step {
        Step::Key(key) => node.get_ref().get(key),
        Step::Index(index) => node.get_ref().get(*index),
    })
}

/// The node at these steps, to change it.
pub(super) fn get_mut<'a, 't>(root: &'a mut Node<'t>, steps: &[Step]) -> Option<&'a mut Node<'t>> {
    let step_down = |node: &'a mut Node<'t>, step: &Step| match (node.get_mut(), step) {
        (DeValue::Table(table), Step::Key(key)) => table.get_mut(key.as_str()),
        (DeValue::Array(array), Step::Index(index)) => array.get_mut(*index),
        _ => None,
    };
    steps.iter().try_fold(root, step_down)
}

/// The steps to the smallest node whose key or value holds the span; the deeper of equals.
pub(super) fn find(root: &Node<'_>, span: &Span) -> Option<Vec<Step>> {
    let mut search = Search {
        span,
        steps: Vec::new(),
        best: None,
    };
    search.below(root);
    search.best.map(|(_, steps)| steps)
}

struct Search<'a> {
    span: &'a Span,
    steps: Vec<Step>,
    best: Option<(usize, Vec<Step>)>,
}

impl Search<'_> {
    fn below(&mut self, node: &Node<'_>) {
        match node.get_ref() {
            DeValue::Table(table) => {
                for (key, value) in table {
                    self.steps.push(Step::Key(key.get_ref().to_string()));
                    self.judge(&key.span());
                    self.visit(value);
                }
            }
            DeValue::Array(array) => {
                for (index, value) in array.iter().enumerate() {
                    self.steps.push(Step::Index(index));
                    self.visit(value);
                }
            }
            _ => {}
        }
    }

    fn visit(&mut self, value: &Node<'_>) {
        self.judge(&value.span());
        self.below(value);
        self.steps.pop();
    }

    fn judge(&mut self, held: &Span) {
        let holds = held.start <= self.span.start && self.span.end <= held.end;
        let better = |best: &(usize, Vec<Step>)| held.len() <= best.0;
        if holds && self.best.as_ref().is_none_or(better) {
            self.best = Some((held.len(), self.steps.clone()));
        }
    }
}

/// The steps as an operator would say them: `upstreams.app.endpoints[2]`.
pub(super) fn words(steps: &[Step]) -> String {
    let mut out = String::new();
    for step in steps {
        match step {
            Step::Key(key) if out.is_empty() => out.push_str(key),
            Step::Key(key) => out.extend([".", key]),
            Step::Index(index) => {
                write!(out, "[{index}]").expect("a String takes everything");
            }
        }
    }
    out
}
